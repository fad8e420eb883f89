"""The estimators by name, with the settings that each of them takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from prmkit.errors import InvalidSetting
from prmkit.labelling.first_error import check_error_rate, first_error, sequential
from prmkit.labelling.monte_carlo import check, monte_carlo, relative
from prmkit.labelling.rollouts import MakeEstimator
from prmkit.settings import above, at_least

Method = Literal["mc", "relative", "first-error", "sequential"]


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """How steps are labelled by rollouts.

    Attributes:
        method: mc (every prefix), relative (to the value before), first-error (binary search for
            the first wrong step) or sequential (a test with a stated error rate; the cheapest).
        rollouts: of mc, relative and first-error: completions from each prefix.
        kind: of mc: hard (1 if any completion is right) or soft (the share that is).
        eta: of mc's soft labels: above 0, a log-mean-exp with this factor instead of the mean
            (ER-PRM).
        stop_at_success: of mc and first-error: no more completions of a prefix once one is right;
            the labels stay the same.
        stop_at_error: of mc: no more prefixes after the first step labelled 0.
        to: of relative: what a prefix's value is compared with, previous or root.
        least: of relative: the smallest ratio of a right step.
        error_rate: of sequential: how likely the first wrong step may be another one.
        most: of sequential: rollouts of a solution's prefixes at most.
    """

    method: Method = "mc"
    rollouts: int = 8
    kind: Literal["hard", "soft"] = "hard"
    eta: float = 0.0
    stop_at_success: bool = False
    stop_at_error: bool = False
    to: Literal["previous", "root"] = "previous"
    least: float = 0.8
    error_rate: float = 0.1
    most: int = 24

    def __post_init__(self) -> None:
        at_least(1, rollouts=self.rollouts, most=self.most)
        above(0, least=self.least)
        check_error_rate(self.error_rate)
        check(self.kind, stop_at_success=self.stop_at_success, eta=self.eta)
        for field in fields(self):
            taken = field.name == "method" or field.name in TAKES[self.method]
            if not taken and getattr(self, field.name) != field.default:
                raise InvalidSetting(
                    f"{field.name} has no meaning for the method {self.method}; it takes "
                    f"{', '.join(TAKES[self.method])}"
                )


TAKES: dict[Method, tuple[str, ...]] = {
    "mc": ("rollouts", "kind", "eta", "stop_at_success", "stop_at_error"),
    "relative": ("rollouts", "to", "least"),
    "first-error": ("rollouts", "stop_at_success"),
    "sequential": ("error_rate", "most"),
}
"""The settings of each method."""


def leaves_open(settings: MethodSettings) -> bool:
    """Whether the method leaves steps after the first wrong one without a label."""
    return settings.method in ("first-error", "sequential") or settings.stop_at_error


def estimator(settings: MethodSettings) -> MakeEstimator:
    """What starts the estimator of one trajectory."""
    if settings.method == "mc":
        return lambda t: monte_carlo(
            t,
            n_rollouts=settings.rollouts,
            kind=settings.kind,
            stop_at_success=settings.stop_at_success,
            stop_at_error=settings.stop_at_error,
            eta=settings.eta,
        )
    if settings.method == "relative":
        return lambda t: relative(
            t, n_rollouts=settings.rollouts, to=settings.to, least=settings.least
        )
    if settings.method == "first-error":
        return lambda t: first_error(
            t, n_rollouts=settings.rollouts, stop_at_success=settings.stop_at_success
        )
    return lambda t: sequential(t, error_rate=settings.error_rate, most=settings.most)
