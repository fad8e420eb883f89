"""The estimators by name, with the settings that each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, TypeVar

from prmkit.errors import InvalidSetting
from prmkit.labelling.critiques import with_verdicts
from prmkit.labelling.first_error import check_error_rate, first_error, sequential
from prmkit.labelling.in_process import record_of
from prmkit.labelling.judge import judge
from prmkit.labelling.monte_carlo import check, monte_carlo, relative
from prmkit.labelling.omega import OmegaSettings, omega
from prmkit.labelling.rollouts import Estimator, MakeEstimator, Rollout, Task
from prmkit.labelling.self_consistency import self_consistency
from prmkit.records import Record, Trajectory
from prmkit.settings import above, at_least
from prmkit.splitting import splitter

Method = Literal[
    "mc",
    "relative",
    "first-error",
    "sequential",
    "omega",
    "judge",
    "self-consistency",
    "temporal",
    "counted",
]
RECORDED: tuple[Method, ...] = ("temporal", "counted")
"""Those that label the turns of recorded episodes by their outcomes, without any rollout."""


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """How steps are labelled.

    Attributes:
        method: mc (rollouts of every prefix), relative (to the value before), first-error (binary
            search for the first wrong step), sequential (a test with a stated error rate; the
            cheapest), omega (OmegaPRM's tree of each problem), judge (critiques by a chat model),
            self-consistency (mc, with the majority's answer as reference); or, of agents' episodes
            and their outcomes alone, temporal (differences of a model's promises) or counted (the
            mean outcome of those that did the same in the same situation).
        rollouts: of mc, relative, first-error, omega and self-consistency: completions from each
            prefix.
        kind: of mc and self-consistency: hard (1 if any completion is right) or soft (the share
            that is).
        eta: of their soft labels: above 0, a log-mean-exp with this factor instead of the mean
            (ER-PRM).
        stop_at_success: of mc, first-error and self-consistency: no more completions of a prefix
            once one is right; the labels stay the same.
        stop_at_error: of mc and self-consistency: no more prefixes after the first step labelled 0.
        to: of relative: what a prefix's value is compared with, previous or root.
        least: of relative: the smallest ratio of a right step.
        error_rate: of sequential: how likely the first wrong step may be another one.
        most: of sequential: rollouts of a solution's prefixes at most.
        votes: of judge: critiques of a solution; of self-consistency: completions of the problem.
        keep_critiques: of judge: write its critiques and their verdicts into the records' meta, as
            prm train --kind generative learns from them.
        searches: of omega: wrong rollouts that are searched, of each problem at most.
        split: of omega: how completions become steps (blank_line, line, number, sentence, thought,
            marker:TEXT).
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
    votes: int = 8
    keep_critiques: bool = False
    searches: int = 100
    split: str = "line"

    def __post_init__(self) -> None:
        at_least(1, rollouts=self.rollouts, most=self.most, votes=self.votes)
        at_least(1, searches=self.searches)
        above(0, least=self.least)
        check_error_rate(self.error_rate)
        check(self.kind, stop_at_success=self.stop_at_success, eta=self.eta)
        splitter(self.split)
        for field in fields(self):
            taken = field.name == "method" or field.name in TAKES[self.method]
            if not taken and getattr(self, field.name) != field.default:
                raise InvalidSetting(
                    f"{field.name} has no meaning for the method {self.method}; it takes "
                    f"{', '.join(TAKES[self.method]) or 'none of these'}"
                )


_MC = ("rollouts", "kind", "eta", "stop_at_success", "stop_at_error")
TAKES: dict[Method, tuple[str, ...]] = {
    "mc": _MC,
    "relative": ("rollouts", "to", "least"),
    "first-error": ("rollouts", "stop_at_success"),
    "sequential": ("error_rate", "most"),
    "omega": ("rollouts", "searches", "split"),
    "judge": ("votes", "keep_critiques"),
    "self-consistency": ("votes", *_MC),
    "temporal": (),
    "counted": (),
}
"""The settings of each method."""


def leaves_open(settings: MethodSettings) -> bool:
    """Whether the method leaves steps without a label where nothing went wrong."""
    searches = settings.method in ("first-error", "sequential", "omega", "judge")
    return searches or settings.stop_at_error


def estimator(settings: MethodSettings) -> MakeEstimator:
    """What starts the estimator of one trajectory, of a method that labels trajectories alone."""
    if settings.method in ("mc", "self-consistency"):
        return partial(
            monte_carlo,
            n_rollouts=settings.rollouts,
            kind=settings.kind,
            stop_at_success=settings.stop_at_success,
            stop_at_error=settings.stop_at_error,
            eta=settings.eta,
        )
    if settings.method == "relative":
        return partial(relative, n_rollouts=settings.rollouts, to=settings.to, least=settings.least)
    if settings.method == "first-error":
        return partial(
            first_error, n_rollouts=settings.rollouts, stop_at_success=settings.stop_at_success
        )
    if settings.method == "judge":
        return partial(judge, votes=settings.votes)
    if settings.method == "sequential":
        return partial(sequential, error_rate=settings.error_rate, most=settings.most)
    if settings.method in RECORDED:
        raise InvalidSetting(
            f"{settings.method} needs no estimator; see `prmkit.labelling.promise_progress`"
        )
    raise InvalidSetting(f"{settings.method} labels problems, not trajectories; use `task`")


def task(
    settings: MethodSettings, omega_settings: OmegaSettings | None = None
) -> Callable[[Record], Task[list[Record]]]:
    """What starts the work on one record: it returns the records that come of it.

    One of each trajectory, with labels; of omega, one of each labelled step of the problem's tree.

    Raises:
        InvalidSetting: if a method is given settings of omega's tree and is another one.
    """
    if settings.method == "omega":
        return partial(_tree, settings, omega_settings or OmegaSettings())
    if omega_settings not in (None, OmegaSettings()):
        raise InvalidSetting(
            "alpha, beta, length and c_puct have no meaning for the method "
            f"{settings.method}; they are omega's"
        )
    if settings.method == "self-consistency":
        return partial(_consistent, settings)
    if settings.keep_critiques:
        return partial(_judged, settings)
    return partial(_labelled, estimator(settings))


Made = TypeVar("Made")


def _noting(
    made: Task[Made], record: Record, drawn: list[Rollout] | None = None
) -> Generator[Any, Any, tuple[Made, Record]]:
    """Run a task; what it returns, and the record with how many of its rollouts failed, and why.

    Args:
        made: the task.
        record: of it.
        drawn: gets its rollouts.
    """
    drawn = [] if drawn is None else drawn
    try:
        wishes = next(made)
        while True:
            replies = yield wishes
            drawn += [one for outcomes in replies for one in outcomes]
            wishes = made.send(replies)
    except StopIteration as done:
        reasons = [one.error for one in drawn if one.error]
        if reasons:
            told = {"n": len(reasons), "reason": reasons[0]}
            record = record.replace(meta={**record.meta, "failed_rollouts": told})
        return done.value, record


def _labelled(make: Callable[[Trajectory], Estimator], record: Record) -> Task[list[Record]]:
    found, record = yield from _noting(make(record.trajectory), record)
    return [record_of(record, found)]


def _judged(settings: MethodSettings, record: Record) -> Task[list[Record]]:
    drawn: list[Rollout] = []
    made = estimator(settings)(record.trajectory)
    found, record = yield from _noting(made, record, drawn)
    return [record_of(with_verdicts(record, drawn), found)]


def _consistent(settings: MethodSettings, record: Record) -> Task[list[Record]]:
    made = self_consistency(record.trajectory, estimator(settings), votes=settings.votes)
    (labels, answer, share), record = yield from _noting(made, record)
    told = {"answer": answer, "share": share}
    meta = {**record.meta, "self_consistency": told}
    return [record_of(record.replace(meta=meta), labels)]


def _tree(settings: MethodSettings, how: OmegaSettings, record: Record) -> Task[list[Record]]:
    made = omega(
        record.trajectory.problem,
        splitter(settings.split),
        n_rollouts=settings.rollouts,
        searches=settings.searches,
        settings=how,
    )
    tree, noted = yield from _noting(made, record)
    told = noted.meta.get("failed_rollouts")
    examples = tree.examples()
    # Of the whole tree; its first record says it.
    return (
        [examples[0].replace(meta={"failed_rollouts": told}), *examples[1:]]
        if told and examples
        else examples
    )
