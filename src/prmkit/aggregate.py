"""Step scores to one number for the whole solution.

Which way is best depends on the model: on GSM8K samples, Qwen2.5-Math-PRM does best with the
mean or the minimum, Skywork's with the last step. So the way is always named, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from prmkit.errors import InvalidRecord, NothingToMeasure, UnknownName
from prmkit.records import StepScores

Aggregation = Literal["min", "product", "mean", "sum", "last", "max", "softmin"]

SOFTMIN_TEMPERATURE = 0.1
"""The temperature of PURE, arXiv:2504.15275."""


def softmin(values: Sequence[float], temperature: float = SOFTMIN_TEMPERATURE) -> float:
    """Sum of v_i weighted by softmax(-v_i / T): near the minimum, but every step counts.

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275, the transformed process reward.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}; it must be above 0")
    lowest = min(values)
    weights = [math.exp((lowest - value) / temperature) for value in values]
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


AGGREGATIONS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "mean": lambda values: math.fsum(values) / len(values),
    "sum": math.fsum,
    "last": lambda values: values[-1],
    "max": max,
    "softmin": softmin,
}
"""Every way, by name."""


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
    return float(AGGREGATIONS[how](scores.values))
