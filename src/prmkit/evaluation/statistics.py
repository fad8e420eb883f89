"""How sure is a figure? Figures as functions of how often each group of cases counts.

A benchmark has G groups: what was drawn together, such as the solutions of one problem. A
`Statistic` takes ``[B, G]`` weights (how often each group counts in each of B data sets) and gives
``[B]`` values, NaN where it is not defined. With weights of one it is the figure; with the weights
of a bootstrap its interval; with the same weights for two models, a paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prmkit.errors import NothingToMeasure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 4_000_000
_PAIRS = 20_000_000


class Statistic(Protocol):
    """A figure of weighted groups."""

    @property
    def n(self) -> int:
        """How many items it is a figure of."""

    def __call__(self, weights: Floats) -> Floats:
        """[B, G] weights to [B] values."""


class Sums(NamedTuple):
    """A figure that needs K sums over its items: a mean, an F1, a correlation.

    Attributes:
        sums: [G, K] of the items of each group.
        combine: [B, K] weighted sums to [B] values; NaN where not defined.
        n: items.
    """

    sums: Floats
    combine: Callable[[Floats], Floats]
    n: int

    def __call__(self, weights: Floats) -> Floats:
        """See `Statistic`."""
        return self.combine(weights @ self.sums)


def ratio(sums: Floats) -> Floats:
    """The first sum over the second: a mean, where the second counts the items."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Floats = np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)
    return shares


def summed(columns: Sequence[npt.ArrayLike], groups: Ints, n_groups: int) -> Floats:
    """[G, K] sums by group of K columns of [n] numbers."""
    return np.stack(
        [
            np.bincount(groups, weights=np.asarray(c, dtype=np.float64), minlength=n_groups)
            for c in columns
        ],
        axis=1,
    )


def mean(values: npt.ArrayLike, groups: Ints, n_groups: int) -> Sums:
    """The mean of [n] values."""
    array = np.asarray(values, dtype=np.float64)
    return Sums(summed([array, np.ones(len(array))], groups, n_groups), ratio, len(array))


class Ranking:
    """An area under a curve of [n] scores with labels; see `roc_auc` and `pr_auc`.

    Args:
        scores: [n].
        labels: [n] whether each is of the class that should be above.
        groups: [n].
        curve: ``roc`` or ``pr``.
    """

    def __init__(self, scores: Floats, labels: Bools, groups: Ints, curve: str = "roc"):
        # Whole pairs of groups are cheaper than items where there are few groups.
        n_groups = int(groups.max(initial=-1)) + 1
        self._pairs = (
            _pairs_won(scores, labels, groups, n_groups)
            if curve == "roc" and n_groups <= 1000 and 2000 < len(scores) <= _PAIRS // n_groups
            else None
        )
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._labels, self._groups = labels[order].astype(np.float64), groups[order]
        self._area = {"roc": _roc_area, "pr": _pr_area}[curve]
        self.n = len(scores)

    def __call__(self, weights: Floats) -> Floats:
        """See `Statistic`."""
        if not self.n:
            return np.full(len(weights), np.nan)
        if self._pairs is not None:
            won, right_of, wrong_of = self._pairs
            w = weights[:, : len(right_of)]
            pairs = (w @ right_of) * (w @ wrong_of)
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(pairs > 0, ((w @ won) * w).sum(axis=1) / pairs, np.nan)
        step = max(1, _BLOCK // self.n)
        parts = []
        for at in range(0, len(weights), step):
            w = weights[at : at + step, self._groups]
            right = np.add.reduceat(w * self._labels, self._starts, axis=1)
            wrong = np.add.reduceat(w * (1 - self._labels), self._starts, axis=1)
            parts.append(self._area(right, wrong))
        return np.concatenate(parts)


def _pairs_won(
    scores: Floats, labels: Bools, groups: Ints, n_groups: int
) -> tuple[Floats, Floats, Floats]:
    """[G, G] pairs won by right ones of one group against wrong ones of another; and [G] counts."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    order = np.argsort(inverse, kind="stable")
    # Rows are made for the rarer class; the other one is counted below each of them.
    rare_is_right = int(labels.sum()) * 2 <= len(labels)
    rare = labels if rare_is_right else ~labels
    below = np.zeros((len(scores) + 1, n_groups), dtype=np.float32)
    rows = np.flatnonzero(~rare[order])
    below[rows + 1, groups[order][rows]] = 1
    below = np.cumsum(below, axis=0, out=below)
    items = np.flatnonzero(rare)
    items = items[np.argsort(groups[items], kind="stable")]
    place = inverse[items]
    # Ties count half: the mean of those below and those not above.
    beaten = (below[ends[place] - counts[place]] + below[ends[place]]) / 2
    if not rare_is_right:
        beaten = below[-1] - beaten
    won = np.zeros((n_groups, n_groups))
    if len(items):
        present, starts = np.unique(groups[items], return_index=True)
        won[present] = np.add.reduceat(beaten.astype(np.float64), starts, axis=0)
    right = np.bincount(groups[labels], minlength=n_groups).astype(np.float64)
    return won, right, np.bincount(groups[~labels], minlength=n_groups).astype(np.float64)


def _roc_area(right: Floats, wrong: Floats) -> Floats:
    """[B] from [B, U] weights of both classes at each of U scores, from the highest."""
    below = wrong.sum(axis=1, keepdims=True) - np.cumsum(wrong, axis=1) + wrong / 2
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = np.where(pairs > 0, (right * below).sum(axis=1) / pairs, np.nan)
    return area


def _pr_area(right: Floats, wrong: Floats) -> Floats:
    """Average precision: at each score, the precision so far, weighted by the recall it adds."""
    found, all_found = np.cumsum(right, axis=1), right.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(found > 0, found / (found + np.cumsum(wrong, axis=1)), 0.0)
        area: Floats = np.where(all_found > 0, (right * precision).sum(axis=1) / all_found, np.nan)
    return area


class Estimate(NamedTuple):
    """A figure with how sure it is.

    Attributes:
        value: None where it is not defined, such as an accuracy over nothing.
        low: lower end of its interval.
        high: upper end.
        n: items it is a figure of.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


class Bootstrap:
    """Weights of a bootstrap over groups: the same for all figures, and for all models compared.

    Args:
        n_groups: G.
        resamples: B; 0 for figures without intervals.
        seed: what they are drawn from.
        level: of the intervals.

    Raises:
        NothingToMeasure: if there is no group.

    Reference: Efron and Tibshirani 1993, chapter 13; the percentile interval.
    """

    def __init__(self, n_groups: int, resamples: int = 1000, seed: int = 0, level: float = 0.95):
        if not n_groups:
            raise NothingToMeasure("there is no case to measure")
        rng = np.random.default_rng(seed)
        shares = np.full(n_groups, 1 / n_groups)
        self.weights: Floats = rng.multinomial(n_groups, shares, size=resamples).astype(np.float64)
        self._once = np.ones((1, n_groups))
        self._ends = [(1 - level) / 2, (1 + level) / 2]

    def value(self, statistic: Statistic) -> float | None:
        """The figure itself."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = float(statistic(self._once)[0])
        return value if np.isfinite(value) else None

    def estimate(self, statistic: Statistic) -> Estimate:
        """The figure with its interval; resamples in which it is not defined are left out."""
        return self._estimate(self.value(statistic), self.drawn(statistic), statistic.n)

    def drawn(self, statistic: Statistic) -> Floats:
        """[B] the figure in each resample."""
        with np.errstate(over="ignore", invalid="ignore"):
            return statistic(self.weights) if len(self.weights) else np.zeros(0)

    def _estimate(self, value: float | None, drawn: Floats, n: int) -> Estimate:
        drawn = drawn[np.isfinite(drawn)]
        if value is None or not len(drawn):
            return Estimate(value, None, None, n)
        low, high = np.quantile(drawn, self._ends)
        return Estimate(value, float(low), float(high), n)

    def difference(self, a: Statistic, b: Statistic) -> tuple[Estimate, float | None]:
        """A - b with its interval, and how often the bootstrap would tell them the other way.

        Returns:
            The difference; and a two-sided p-value: twice the smaller share of resamples on one
            side of zero, at most 1, and never below 1 / (B + 1).
        """
        va, vb = self.value(a), self.value(b)
        gap = None if va is None or vb is None else va - vb
        with np.errstate(invalid="ignore"):
            drawn = self.drawn(a) - self.drawn(b)
        estimate = self._estimate(gap, drawn, min(a.n, b.n))
        drawn = drawn[np.isfinite(drawn)]
        if gap is None or not len(drawn):
            return estimate, None
        side = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
        return estimate, float(min(1.0, 2 * side / (len(drawn) + 1)))
