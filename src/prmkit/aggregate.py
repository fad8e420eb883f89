"""Step scores to one number for the whole solution.

Which way is best depends on the model: on GSM8K samples, Qwen2.5-Math-PRM does best with the
mean or the minimum, Skywork's with the last step. So the way is always named, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from prmkit.errors import InvalidRecord, NothingToMeasure, UnknownName
from prmkit.records import StepScores

Aggregation = Literal["min", "product", "mean", "sum", "last", "max", "softmin"]

SOFTMIN_TEMPERATURE = 0.1
"""The temperature of PURE, arXiv:2504.15275."""

Floats = npt.NDArray[np.float64]


def softmin(values: Sequence[float], temperature: float = SOFTMIN_TEMPERATURE) -> float:
    """Sum of v_i weighted by softmax(-v_i / T): near the minimum, but every step counts.

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275, the transformed process reward.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}; it must be above 0")
    flat, starts = np.asarray(values, dtype=np.float64), np.zeros(1, dtype=np.int64)
    return float(_softmin(flat, starts, np.array([len(flat)]), temperature)[0])


def _softmin(
    flat: Floats,
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    temperature: float = SOFTMIN_TEMPERATURE,
) -> Floats:
    lowest = np.minimum.reduceat(flat, starts)
    weights = np.exp((np.repeat(lowest, lengths) - flat) / temperature)
    totals: Floats = np.add.reduceat(weights * flat, starts) / np.add.reduceat(weights, starts)
    return totals


AGGREGATIONS: dict[Aggregation, Callable[..., Floats]] = {
    "min": lambda flat, starts, lengths: np.minimum.reduceat(flat, starts),
    "product": lambda flat, starts, lengths: np.multiply.reduceat(flat, starts),
    "mean": lambda flat, starts, lengths: np.add.reduceat(flat, starts) / lengths,
    "sum": lambda flat, starts, lengths: np.add.reduceat(flat, starts),
    "last": lambda flat, starts, lengths: flat[starts + lengths - 1],
    "max": lambda flat, starts, lengths: np.maximum.reduceat(flat, starts),
    "softmin": _softmin,
}
"""Every way, by name: of scores one after the other, with begin and length of each solution."""


def aggregate_flat(flat: Floats, lengths: npt.NDArray[np.int64], how: Aggregation) -> Floats:
    """One number for each of many solutions.

    Args:
        flat: [sum of S] the scores of all solutions, one after the other.
        lengths: [N] the number of steps of each, 1 or more.
        how: see `aggregate_scores`, which also says where a way makes no sense.

    Returns:
        [N].
    """
    if how not in AGGREGATIONS:
        raise UnknownName("aggregation", how, get_args(Aggregation))
    if lengths.sum() != len(flat) or (lengths < 1).any():
        raise ValueError(f"{len(flat)} scores for solutions of {lengths.sum()} steps, 1 at least")
    if not len(lengths):
        return np.zeros(0)
    return AGGREGATIONS[how](flat, np.cumsum(lengths) - lengths, lengths)


def aggregate_scores(scores: StepScores, how: Aggregation) -> float:
    """One number for a solution, higher is better.

    Args:
        scores: of its S steps, S >= 1.
        how: ``min``, ``product``, ``mean``, ``sum``, ``last``, ``max`` or ``softmin``. The
            product is for probabilities and values in [0, 1] alone: of two negative numbers it
            would be a good score. The sum grows with the number of steps wherever scores are
            not below zero.

    Raises:
        UnknownName: if there is no such way.
        InvalidRecord: if the way makes no sense for these scores.
        NothingToMeasure: if there is no step.
    """
    if how not in AGGREGATIONS:
        raise UnknownName("aggregation", how, get_args(Aggregation))
    if not scores.values:
        raise NothingToMeasure(
            f"the {how} over the steps of a solution was asked for, but it has no step"
        )
    if how == "product":
        if scores.semantics in ("advantage", "log_ratio"):
            raise InvalidRecord(
                f"a product of {scores.semantics} scores has no meaning, since they may be "
                "negative; use sum, mean, min or last"
            )
        outside = next((v for v in scores.values if not 0 <= v <= 1), None)
        if outside is not None:
            raise InvalidRecord(
                f"a product needs scores in [0, 1], and one is {outside!r}; "
                "use mean, min, last or sum"
            )
    values = np.asarray(scores.values, dtype=np.float64)
    return float(aggregate_flat(values, np.array([len(values)]), how)[0])


def vote_weights(scores: Floats, probabilities: bool) -> Floats:
    """Weights of votes: scores that are probabilities as they are; others by exp(s - max s).

    For the sum of log-ratios that is the ratio of likelihoods itself. A sample without a score
    has no weight.
    """
    there = np.isfinite(scores)
    if probabilities:
        return np.where(there, np.maximum(scores, 0.0), 0.0)
    highest = np.max(np.where(there, scores, -np.inf), axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights: Floats = np.where(there, np.exp(scores - highest), 0.0)
    return weights
