"""Resampling schemes of particle methods: weights to the numbers of those that go on.

Every scheme is unbiased: particle i goes on n * w_i times on average.

Reference: Douc, Cappé, Moulines 2005, "Comparison of resampling schemes for particle filtering".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scheme = Literal["systematic", "stratified", "residual", "multinomial"]


def normalised(log_weights: Floats) -> Floats:
    """[N] weights that add up to 1; all alike where every one is minus infinity."""
    highest = log_weights.max()
    if not np.isfinite(highest):
        return np.full(len(log_weights), 1 / len(log_weights))
    weights = np.exp(log_weights - highest)
    total: Floats = weights / weights.sum()
    return total


def effective_size(weights: Floats) -> float:
    """1 / sum of squares: N where all weigh alike, 1 where one has all the weight."""
    return float(1 / np.square(weights).sum())


def _inverted(weights: Floats, points: Floats) -> Ints:
    """The particle at each of some points of the cumulative weights."""
    cumulative = np.cumsum(weights)
    # Rounding must leave no point beyond the end, nor on a particle without weight.
    cumulative[np.flatnonzero(weights)[-1] :] = 1.0
    found: Ints = np.searchsorted(cumulative, points, side="right")
    return found


def multinomial(weights: Floats, n: int, rng: np.random.Generator) -> Ints:
    """N independent draws."""
    return _inverted(weights, np.sort(rng.random(n)))


def stratified(weights: Floats, n: int, rng: np.random.Generator) -> Ints:
    """One draw in each nth of the cumulative weights."""
    return _inverted(weights, (np.arange(n) + rng.random(n)) / n)


def systematic(weights: Floats, n: int, rng: np.random.Generator) -> Ints:
    """The same draw in each nth: every particle goes on floor(n w) or ceil(n w) times."""
    return _inverted(weights, (np.arange(n) + rng.random()) / n)


def residual(weights: Floats, n: int, rng: np.random.Generator) -> Ints:
    """Every particle floor(n w) times, and multinomial draws of what is left of the weights."""
    # A product that should be whole may come out a little below.
    sure = np.floor(n * weights + 1e-9).astype(np.int64)
    left = n - int(sure.sum())
    found = np.repeat(np.arange(len(weights)), sure)
    if left <= 0:
        return found[:n]
    rest = np.maximum(n * weights - sure, 0.0)
    drawn = _inverted(rest / rest.sum(), np.sort(rng.random(left)))
    return np.sort(np.concatenate([found, drawn]))


SCHEMES: dict[Scheme, Callable[[Floats, int, np.random.Generator], Ints]] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}
"""From N weights that add up to 1, n and a source of chance to n particles, in order."""
