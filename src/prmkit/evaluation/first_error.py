"""Does a model find the first wrong step?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prmkit.errors import NothingToMeasure
from prmkit.records import StepScores, Unscored


def predicted_first_error(scores: Sequence[float], threshold: float = 0.5) -> int | None:
    """The 0-based index of the first step scored below `threshold`, or None.

    ProcessBench (arXiv:2412.06559) writes -1 where this gives None.
    """
    return next((i for i, score in enumerate(scores) if score < threshold), None)


class FirstErrorScore(NamedTuple):
    """How well first errors are found.

    Attributes:
        accuracy_wrong: share of wrong solutions whose first wrong step is found exactly; None
            where there is no wrong solution.
        accuracy_right: share of right solutions in which no step is called wrong; None where
            there is no right solution.
        f1: the harmonic mean of the two; 0 where it is not defined.
        n_wrong: wrong solutions that were scored.
        n_right: right solutions that were scored.
        n_unscored: solutions left out, since they have no scores.
    """

    accuracy_wrong: float | None
    accuracy_right: float | None
    f1: float
    n_wrong: int
    n_right: int
    n_unscored: int


def processbench_f1(
    scored: Sequence[StepScores | Unscored],
    first_errors: Sequence[int | None],
    threshold: float = 0.5,
) -> FirstErrorScore:
    """ProcessBench's F1: the harmonic mean of two accuracies.

        F1 = 2 · acc_wrong · acc_right / (acc_wrong + acc_right)

    It is not the F1 of a classifier of steps. Steps after the first wrong one play no part.

    Args:
        scored: one per solution.
        first_errors: the true 0-based first wrong step of each, None for a right solution.
        threshold: a step with a lower score is called wrong.

    Raises:
        NothingToMeasure: if no solution is scored.

    Reference: Zheng et al. 2024, ProcessBench, arXiv:2412.06559, section 4.1.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for scores, truth in zip(scored, first_errors, strict=True):
        if isinstance(scores, StepScores):
            found = predicted_first_error(scores.values, threshold)
            hits[truth is not None].append(found == truth)
    wrong, right = hits[True], hits[False]
    if not wrong and not right:
        raise NothingToMeasure(
            f"first errors were to be compared, but none of the {len(scored)} solutions is scored"
        )
    accuracy_wrong = sum(wrong) / len(wrong) if wrong else None
    accuracy_right = sum(right) / len(right) if right else None
    return FirstErrorScore(
        accuracy_wrong,
        accuracy_right,
        harmonic_mean(accuracy_wrong, accuracy_right),
        len(wrong),
        len(right),
        len(scored) - len(wrong) - len(right),
    )


def harmonic_mean(a: float | None, b: float | None) -> float:
    """Of two accuracies; 0 where one is missing or both are 0."""
    return 2 * a * b / (a + b) if a and b else 0.0
