"""Episodes of agents, chosen among by score: what is that worth at equal environment steps?

An agent that plays N episodes of a task and hands in the one with the best score has paid the
environment N times. So each figure is given for every N together with the steps that it cost, and
beside what the same steps buy without a reward model.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prmkit.errors import NothingToMeasure
from prmkit.evaluation.best_of_n import (
    Bools,
    Draws,
    Floats,
    best_of_n_curves,
    numbered,
    pass_curves,
    vote_curves,
)
from prmkit.evaluation.bootstrap import Interval, paired_bootstrap
from prmkit.labelling.promise_progress import progress
from prmkit.records import StepScores


class Played(NamedTuple):
    """What counts of an episode.

    Attributes:
        correct: whether it solved its task; None where that is not known, or it was no attempt.
        steps: of the environment.
        score: of the whole episode; None where it was not scored, and it is never chosen before
            others.
        answer: what it answered, equal where answers are; None where it gave none.
    """

    correct: bool | None
    steps: int
    score: float | None = None
    answer: Hashable | None = None


class AtN(NamedTuple):
    """What N episodes of a task are worth: means over tasks, with intervals.

    Attributes:
        n: N.
        environment_steps: that they take, of a task.
        best: the best scored one solved it; None where there are no scores.
        majority: the most frequent answer is right; None where answers do not count.
        solved_by_any: the best possible choice.
    """

    n: int
    environment_steps: float
    best: Interval | None
    majority: Interval | None
    solved_by_any: Interval


class EpisodeFigures(NamedTuple):
    """Episodes of many tasks.

    Attributes:
        n_tasks: all of whose episodes are known to have succeeded or failed; the others are left
            out.
        success: of a single episode.
        at: N = 1, 2, 4, … and all.
        over_single: best scored of all less a single episode, paired by task.
        over_majority: the same, less the majority's answer.
    """

    n_tasks: int
    success: Interval
    at: tuple[AtN, ...]
    over_single: Interval | None
    over_majority: Interval | None

    def metrics(self) -> dict[str, Any]:
        """All figures as JSON, rounded."""
        told: dict[str, Any] = {"success": _rounded(self.success)}
        for name, value in (
            ("best_minus_single", self.over_single),
            ("best_minus_majority", self.over_majority),
        ):
            if value is not None:
                told[name] = _rounded(value)
        told["at"] = [
            {
                "n": one.n,
                "environment_steps": round(one.environment_steps, 2),
                "single": _rounded(self.success),
                **{
                    name: _rounded(value)
                    for name in ("best", "majority", "solved_by_any")
                    if (value := getattr(one, name)) is not None
                },
            }
            for one in self.at
        ]
        return told


def measure_episodes(
    groups: Sequence[Sequence[Played]], *, votes: bool = False, draws: Draws | None = None
) -> EpisodeFigures:
    """Measure episodes; intervals draw the tasks again.

    Args:
        groups: the episodes of each task, as many of each. Those of a task some of whose episodes
            are not known to have succeeded or failed are left out.
        votes: whether answers count, so that a majority has a meaning.
        draws: how votes of fewer episodes than there are get estimated.

    Raises:
        NothingToMeasure: if no task is left, or they have not the same number of episodes.

    Reference: best-of-N by the score of the last step, Xi et al. 2025, arXiv:2511.08325.
    """
    judged = [g for g in groups if g and all(one.correct is not None for one in g)]
    if len({len(group) for group in judged}) != 1:
        raise NothingToMeasure(
            f"of {len(groups)} tasks, {len(judged)} have episodes that are all known to have "
            "succeeded or failed, and as many of each as the others; at least one is needed"
        )
    correct: Bools = np.array([[bool(one.correct) for one in g] for g in judged])
    steps = float(np.mean([[one.steps for one in group] for group in judged]))
    scores: Floats = np.array(
        [[-np.inf if one.score is None else one.score for one in g] for g in judged]
    )
    is_scored = bool(np.isfinite(scores).any())
    n = correct.shape[1]
    single: Floats = correct.mean(axis=1)
    reach, best = pass_curves(correct), best_of_n_curves(scores, correct)
    majority = None
    if votes:
        groups_of = np.array([numbered([one.answer for one in g]) for g in judged])
        ones = np.ones((1, *correct.shape))
        majority = vote_curves(groups_of, ones, correct, draws or Draws())[0]

    def at(k: int) -> AtN:
        return AtN(
            k,
            k * steps,
            _mean(best[:, k - 1]) if is_scored else None,
            None if majority is None else _mean(majority[:, k - 1]),
            _mean(reach[:, k - 1]),
        )

    numbers = sorted({*(2**i for i in range(n.bit_length())), n})
    return EpisodeFigures(
        n_tasks=len(judged),
        success=_mean(single),
        at=tuple(at(k) for k in numbers),
        over_single=_gap(best[:, -1], single) if is_scored else None,
        over_majority=_gap(best[:, -1], majority[:, -1])
        if is_scored and majority is not None
        else None,
    )


class Mistake(NamedTuple):
    """The turn at which a mistake is suspected.

    Attributes:
        turn: from 0.
        change: what it changed, below 0.
    """

    turn: int
    change: float


def changes(scores: StepScores) -> list[float]:
    """What each turn changed; where that is what scores say, the scores themselves."""
    if scores.semantics in ("value", "correctness"):
        return progress(scores.values)
    return list(scores.values)


def suspected_mistake(scores: StepScores) -> Mistake | None:
    """The turn with the largest fall, of equal ones the first; None where nothing falls.

    The first turn falls by nothing where scores are of states: nothing is known of before it.

    Reference: progress of Xi et al. 2025, arXiv:2511.08325, M_t less M_{t-1}.
    """
    found = changes(scores)
    turn = min(range(len(found)), key=lambda i: found[i], default=None)
    return None if turn is None or not found[turn] < 0 else Mistake(turn, found[turn])


def _mean(values: Floats) -> Interval:
    return _gap(values, np.zeros(len(values)))


def _gap(left: Floats, right: Floats) -> Interval:
    return paired_bootstrap(left.tolist(), right.tolist(), resamples=2_000)


def _rounded(interval: Interval) -> list[float]:
    return [round(value, 4) for value in interval]
