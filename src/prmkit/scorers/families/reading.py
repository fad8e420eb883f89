"""Numbers at a step's position to its score: the ways that several families share."""

from __future__ import annotations

import math
from collections.abc import Sequence

Numbers = Sequence[Sequence[float]]
"""[S, K]: K numbers at the position of each of S steps."""


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def first_of_two(numbers: Numbers) -> list[float]:
    """[S, 2] logits to the softmax share of the first: token pairs of "right" and "wrong"."""
    return [sigmoid(right - wrong) for right, wrong in numbers]


def second_of_two(numbers: Numbers) -> list[float]:
    """[S, 2] logits to the softmax share of the second: class 1 of a two-class head."""
    return [sigmoid(right - wrong) for wrong, right in numbers]


def sigmoid_of_one(numbers: Numbers) -> list[float]:
    """[S, 1] logits to probabilities."""
    return [sigmoid(logit) for (logit,) in numbers]


def as_it_is(numbers: Numbers) -> list[float]:
    """[S, 1] numbers as they are: raw logits, Q values."""
    return [value for (value,) in numbers]


def probability(numbers: Numbers) -> list[float]:
    """[S, 1] log-probabilities to probabilities."""
    return [min(math.exp(value), 1.0) for (value,) in numbers]


def softmax(logits: Sequence[float]) -> list[float]:
    """Shares of exp(logit), without overflow."""
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
