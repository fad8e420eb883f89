"""How sure is a difference?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prmkit.errors import NothingToMeasure


class Interval(NamedTuple):
    """A mean with an interval around it.

    Attributes:
        mean: of the data.
        low: lower end.
        high: upper end.
    """

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a - b over items, with a percentile bootstrap interval.

    The items are drawn again with both of their values together, so what an item's difficulty
    does to both falls out.

    Args:
        a: one value per item, such as best-of-N of each problem.
        b: the other method's value of the same items.
        level: of the interval.
        resamples: how often the items are drawn again.
        seed: what they are drawn from.

    Raises:
        NothingToMeasure: if there is no item.

    Reference: Efron and Tibshirani 1993, chapter 13.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}; a pair per item is needed")
    if not len(a):
        raise NothingToMeasure("a difference was asked for, but there is no item")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must be between 0 and 1")
    gaps = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 4_000_000 // len(gaps))
    for at in range(0, resamples, block):
        size = min(block, resamples - at)
        means[at : at + size] = gaps[rng.integers(len(gaps), size=(size, len(gaps)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gaps.mean()), float(low), float(high))
