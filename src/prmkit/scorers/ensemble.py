"""Several scorers as one: their mean, their minimum, or a combination that was fitted on labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prmkit.errors import InvalidRecord, NothingToMeasure
from prmkit.records import Semantics, StepScores, Trajectory, Unscored
from prmkit.scorers.base import Scorer
from prmkit.scorers.families.reading import sigmoid
from prmkit.scorers.logistic import fit_logistic


@dataclass(frozen=True)
class Combination:
    """A fitted combination of M scores: p = sigmoid(bias + Σ weight_m · score_m).

    Attributes:
        weights: [M].
        bias: what all scores zero give, as log-odds.
    """

    weights: tuple[float, ...]
    bias: float

    def __call__(self, scores: Sequence[float]) -> float:
        """The probability that a step with these M scores is right."""
        terms = [w * s for w, s in zip(self.weights, scores, strict=True)]
        return sigmoid(math.fsum([self.bias, *terms]))


def fit_combination(
    scores: Sequence[Sequence[float]], labels: Sequence[bool], *, ridge: float = 1e-3
) -> Combination:
    """Logistic regression of labels on scores.

    Args:
        scores: [N, M] scores of N steps by M scorers.
        labels: [N] whether each step is right.
        ridge: weight of the squared weights, which keeps them finite where scores separate.

    Raises:
        NothingToMeasure: if all labels are alike, or there is none.
    """
    right = np.asarray(labels, dtype=np.float64)
    if not len(right) or right.min() == right.max():
        raise NothingToMeasure(
            f"a combination needs right and wrong steps; all of the {len(right)} are alike"
        )
    inputs = np.asarray(scores, dtype=np.float64)
    columns = np.column_stack([inputs, np.ones(len(inputs))])
    found = fit_logistic(columns, right, np.append(np.full(inputs.shape[1], ridge), 0.0))
    return Combination(tuple(found[:-1]), found[-1])


class EnsembleScorer:
    """Scores steps by several scorers together.

    A trajectory that one of them does not score is not scored.

    Args:
        scorers: at least one.
        how: ``mean`` or ``min`` of their scores, which must mean the same, or a fitted
            `Combination`, whose result is a correctness whatever the scores mean.

    Raises:
        InvalidRecord: if scores that mean different things would be averaged.
    """

    def __init__(self, scorers: Sequence[Scorer], how: Literal["mean", "min"] | Combination):
        kinds = {scorer.semantics for scorer in scorers}
        if not scorers:
            raise InvalidRecord("an ensemble needs at least one scorer")
        if not isinstance(how, Combination) and len(kinds) > 1:
            raise InvalidRecord(
                f"the scores mean different things ({', '.join(sorted(kinds))}), so their {how} "
                "means nothing; fit a combination on labels (fit_combination)"
            )
        if isinstance(how, Combination) and len(how.weights) != len(scorers):
            raise InvalidRecord(f"{len(how.weights)} weights for {len(scorers)} scorers")
        self._scorers = tuple(scorers)
        self._how = how
        self.semantics: Semantics = (
            "correctness" if isinstance(how, Combination) else scorers[0].semantics
        )
        names = " + ".join(scorer.name for scorer in scorers)
        self.name = f"{how if isinstance(how, str) else 'combination'}({names})"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        by_scorer = [scorer.score(trajectories) for scorer in self._scorers]
        return [self._together(results) for results in zip(*by_scorer, strict=True)]

    def _together(self, results: Sequence[StepScores | Unscored]) -> StepScores | Unscored:
        columns: list[tuple[float, ...]] = []
        for scorer, result in zip(self._scorers, results, strict=True):
            if isinstance(result, Unscored):
                return Unscored(reason=f"{scorer.name}: {result.reason}", model=self.name)
            columns.append(result.values)
        ways: dict[str, Callable[[Sequence[float]], float]] = {
            "mean": lambda scores: math.fsum(scores) / len(scores),
            "min": min,
        }
        combine = self._how if isinstance(self._how, Combination) else ways[self._how]
        values = tuple(combine(of_step) for of_step in zip(*columns, strict=True))
        return StepScores(values=values, semantics=self.semantics, model=self.name)
