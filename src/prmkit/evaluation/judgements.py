"""What a judge says of a solution: scores, from which verdicts follow, or verdicts alone.

A PRM gives scores; a threshold makes them verdicts. Critics, and many published result files, hold
verdicts only: a label per step, the first wrong step, the agent to blame. Figures of ranking and
calibration need scores; all others need verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from prmkit.errors import FormatError
from prmkit.records import Semantics, StepScores, Unscored

RIGHT, NEUTRAL, WRONG = 1, 0, -1

Equal = Literal["right", "wrong", "neutral"]
Use = Literal["verdicts", "scores"]

NATURAL_THRESHOLD: dict[Semantics, float] = {
    "correctness": 0.5,
    "value": 0.5,
    "advantage": 0.0,
    "log_ratio": 0.0,
}
"""Where a score says neither right nor wrong."""


class Verdict(NamedTuple):
    """What is said of a solution.

    Attributes:
        steps: 1 (right), 0 (neutral) or -1 (wrong) of each step; None where nothing is said.
        right: whether all is right; None where that is not said.
        first_error: the first wrong step, 0-based; None where none is named. A critic may name a
            step that is not there.
        redundant: whether each step is redundant, where the judge says so; None at the threshold.
        agent: who is to blame, where the judge says so.
        reason: whether the reason given was accepted, where that was checked.
    """

    steps: tuple[int | None, ...]
    right: bool | None
    first_error: int | None
    redundant: tuple[bool | None, ...] | None = None
    agent: str | None = None
    reason: bool | None = None


class Judgement(NamedTuple):
    """What one judge says of one case.

    Attributes:
        scores: of the steps; None where the judge gives verdicts alone.
        verdict: as the judge gave it itself; None where it follows from the scores.
        redundancy: probabilities that each step is redundant, where the judge gives them.
    """

    scores: StepScores | Unscored | None
    verdict: Verdict | None = None
    redundancy: tuple[float, ...] | None = None

    @property
    def unscored(self) -> bool:
        """Whether the judge said nothing."""
        return isinstance(self.scores, Unscored) or (self.scores is None and self.verdict is None)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How scores become verdicts.

    Attributes:
        threshold: a step with a lower score is wrong; None for the natural one of the scores.
        equal: what a step is whose score is the threshold itself; None for the benchmark's way.
        redundancy: a step with a higher probability of being redundant is called so.
        use: the judge's own verdicts where it gave both, or its scores.
    """

    threshold: float | None = None
    equal: Equal | None = None
    redundancy: float = 0.15
    use: Use = "verdicts"


def decide(judgement: Judgement, rule: Rule, equal: Equal = "right") -> Verdict | None:
    """The verdict on a case, or None where it is not scored.

    Args:
        judgement: what the judge said.
        rule: how scores become verdicts.
        equal: the benchmark's way with a score that is the threshold itself.
    """
    if judgement.unscored:
        return None
    scores = judgement.scores
    if judgement.verdict is not None and (
        rule.use == "verdicts" or not isinstance(scores, StepScores)
    ):
        return judgement.verdict
    assert isinstance(scores, StepScores)
    natural = NATURAL_THRESHOLD[scores.semantics]
    threshold = natural if rule.threshold is None else rule.threshold
    at = {"right": RIGHT, "neutral": NEUTRAL, "wrong": WRONG}[rule.equal or equal]
    steps = tuple(
        WRONG if value < threshold else RIGHT if value > threshold else at
        for value in scores.values
    )
    given = judgement.redundancy
    redundant = (
        None
        if given is None
        else tuple(None if r == rule.redundancy else r > rule.redundancy for r in given)
    )
    return verdict_of_steps(steps, redundant)


def verdict_of_steps(
    steps: Sequence[int | None], redundant: tuple[bool | None, ...] | None = None
) -> Verdict:
    """The verdict that labels of steps amount to."""
    found = next((i for i, label in enumerate(steps) if label == WRONG), None)
    return Verdict(tuple(steps), found is None, found, redundant)


def verdict_of_index(first_error: int | None, n_steps: int) -> Verdict:
    """The verdict of a critic that names the first wrong step, or none; later steps are open."""
    if first_error is None:
        return Verdict((RIGHT,) * n_steps, True, None)
    steps = tuple(
        RIGHT if i < first_error else WRONG if i == first_error else None for i in range(n_steps)
    )
    return Verdict(steps, False, first_error)


def to_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as a JSON object; see `from_json`."""
    row: dict[str, Any] = {}
    if judgement.scores is not None:
        row["scored"] = judgement.scores.model_dump(mode="json")
    if judgement.verdict is not None:
        row["verdict"] = {k: v for k, v in judgement.verdict._asdict().items() if v is not None}
    if judgement.redundancy is not None:
        row["redundancy"] = list(judgement.redundancy)
    return row


def from_json(row: Mapping[str, Any]) -> Judgement:
    """What `to_json` was given.

    Raises:
        FormatError: if it is something else.
    """
    try:
        scored = row.get("scored")
        scores: StepScores | Unscored | None = None
        if scored is not None:
            kind: type[StepScores] | type[Unscored] = (
                Unscored if scored["type"] == "unscored" else StepScores
            )
            scores = kind.model_validate(scored)
        verdict = row.get("verdict")
        redundancy = row.get("redundancy")
        return Judgement(
            scores,
            None if verdict is None else _verdict(verdict),
            None if redundancy is None else tuple(map(float, redundancy)),
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise FormatError(f"this is no judgement of prmkit: {error}") from None


def _verdict(row: Mapping[str, Any]) -> Verdict:
    steps = tuple(None if s is None else int(s) for s in row["steps"])
    if any(s not in (WRONG, NEUTRAL, RIGHT, None) for s in steps):
        raise ValueError(f"the labels of steps are {row['steps']!r}; each is -1, 0, 1 or null")
    redundant = row.get("redundant")
    for key, kind in (("right", bool), ("first_error", int), ("agent", str), ("reason", bool)):
        if not isinstance(row.get(key), kind | None):
            raise ValueError(f"{key!r} is {row[key]!r}")
    return Verdict(
        steps,
        row.get("right"),
        row.get("first_error"),
        None if redundant is None else tuple(redundant),
        row.get("agent"),
        row.get("reason"),
    )
