"""Do people who rate the same steps agree, and more than by chance?

Ratings are -1, 0 and 1, and None where a step is not rated. Who stopped at a step says nothing of
those behind it, so every figure is over steps that both of a pair rated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from prmkit.evaluation.agreement import cohens_kappa
from prmkit.evaluation.figures import share
from prmkit.evaluation.statistics import (
    Bootstrap,
    Estimate,
    Floats,
    Ints,
    Statistic,
    Sums,
    mean,
    summed,
)

Rated = Mapping[str, Sequence[float | None]]
"""Of one solution: each annotator's rating of each step."""


class AnnotatorAgreement(NamedTuple):
    """How annotators agree.

    Attributes:
        annotators: of each, how many ``solutions`` and ``steps`` he rated, and his ``wrong``,
            ``neutral`` and ``right`` ones.
        pairs: the figures of each two annotators who rated the same step: the share of steps
            rated the same, Cohen's kappa of the three ratings and of wrong or not, and the share
            of solutions with the same first wrong step.
        pooled: the same over all pairs, and Krippendorff's alpha.
    """

    annotators: dict[str, dict[str, int]]
    pairs: dict[tuple[str, str], dict[str, Estimate]]
    pooled: dict[str, Estimate]

    def metrics(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "annotators": self.annotators,
            "pairs": [
                {"annotators": list(pair), **_told(figures)} for pair, figures in self.pairs.items()
            ],
            "pooled": _told(self.pooled),
        }


def _told(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate._asdict() for name, estimate in figures.items()}


def annotator_agreement(
    solutions: Sequence[Rated],
    problems: Sequence[Hashable],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> AnnotatorAgreement:
    """How the annotators of solutions agree; intervals are by a bootstrap over problems.

    Args:
        solutions: what each annotator says of each.
        problems: of each solution, the problem; those of one problem are drawn together.
        resamples: of the bootstrap; 0 for figures without intervals.
        seed: what they are drawn from.

    Returns:
        The figures; no pair and nothing pooled where no step has two ratings.
    """
    numbers: dict[Hashable, int] = {}
    pairs: dict[tuple[str, str], _Pair] = {}
    units: list[list[float]] = []
    at: list[int] = []
    for rated, problem in zip(solutions, problems, strict=True):
        steps = [[v for v in of if v is not None] for of in zip(*rated.values(), strict=True)]
        shared = [of_step for of_step in steps if len(of_step) > 1]
        if not shared:
            continue
        group = numbers.setdefault(problem, len(numbers))
        units += shared
        at += [group] * len(shared)
        for a, b in itertools.combinations(sorted(rated), 2):
            pairs.setdefault((a, b), _Pair([], [], [], [], [])).add(group, rated[a], rated[b])
    common = {names: pair for names, pair in sorted(pairs.items()) if pair.a}
    told = _counts(solutions)
    if not common:
        return AnnotatorAgreement(told, {}, {})
    bootstrap = Bootstrap(len(numbers), resamples, seed)
    statistics = {names: pair.statistics() for names, pair in common.items()}
    pooled: dict[str, Statistic] = _pooled(list(statistics.values()))
    groups = np.array(at, dtype=np.int64)
    for level in ("nominal", "ordinal"):
        pooled[f"steps/alpha_{level}"] = krippendorffs_alpha(units, groups, len(numbers), level)
    return AnnotatorAgreement(
        told,
        {
            names: {name: bootstrap.estimate(s) for name, s in figures.items()}
            for names, figures in statistics.items()
        },
        {name: bootstrap.estimate(s) for name, s in pooled.items()},
    )


def _counts(solutions: Sequence[Rated]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for rated in solutions:
        for name, ratings in rated.items():
            given = Counter(v for v in ratings if v is not None)
            counts.setdefault(name, Counter()).update(
                solutions=bool(given),
                steps=given.total(),
                wrong=given[-1],
                neutral=given[0],
                right=given[1],
            )
    return {name: dict(counts[name]) for name in sorted(counts)}


class _Some(NamedTuple):
    """A figure of some of the groups: most pairs of annotators share few problems."""

    groups: Ints
    of: Sums

    @property
    def n(self) -> int:
        return self.of.n

    def __call__(self, weights: Floats) -> Floats:
        return self.of(weights[:, self.groups])


class _Pair(NamedTuple):
    """What two annotators say of the steps that both rated, and of first wrong steps.

    Attributes:
        a: of each common step, the first one's rating.
        b: the second one's.
        at: its group.
        found: of each solution of which both tell the first wrong step, whether it is the same.
        found_at: its group.
    """

    a: list[float]
    b: list[float]
    at: list[int]
    found: list[bool]
    found_at: list[int]

    def add(self, group: int, a: Sequence[float | None], b: Sequence[float | None]) -> None:
        """One more solution."""
        for x, y in zip(a, b, strict=True):
            if x is not None and y is not None:
                self.a.append(x)
                self.b.append(y)
                self.at.append(group)
        first, second = _right_steps(a), _right_steps(b)
        if len(a) and first is not None and second is not None:
            self.found.append(first == second)
            self.found_at.append(group)

    def statistics(self) -> dict[str, _Some]:
        """The figures of `AnnotatorAgreement.pairs`."""
        a, b = np.array(self.a, dtype=np.int64), np.array(self.b, dtype=np.int64)
        groups, at = np.unique(np.array(self.at, dtype=np.int64), return_inverse=True)
        n = len(groups)
        figures = {
            "steps/same": mean(a == b, at, n),
            "steps/kappa": cohens_kappa(a, b, at, n),
            "steps/kappa_wrong": cohens_kappa(
                (a == -1).astype(np.int64), (b == -1).astype(np.int64), at, n
            ),
        }
        found = {name: _Some(groups, of) for name, of in figures.items()}
        if self.found:
            groups, at = np.unique(np.array(self.found_at, dtype=np.int64), return_inverse=True)
            found["first_error/same"] = _Some(groups, mean(self.found, at, len(groups)))
        return found


def _right_steps(ratings: Sequence[float | None]) -> int | None:
    """How many steps stand before the first wrong one; None where one of them is not rated."""
    for index, rating in enumerate(ratings):
        if rating is None:
            return None
        if rating == -1:
            return index
    return len(ratings)


class _Pooled:
    """Observed agreement against that by chance, both summed over pairs."""

    def __init__(self, pairs: Sequence[_Some], kappa: bool):
        self._pairs, self._kappa = pairs, kappa
        self.n = sum(pair.n for pair in pairs)

    def __call__(self, weights: Floats) -> Floats:
        """See `Statistic`."""
        seen, chance, count = np.zeros((3, len(weights)))
        for groups, of in self._pairs:
            s = weights[:, groups] @ of.sums
            seen += s[:, 0]
            count += s[:, -1]
            if self._kappa:
                k = (s.shape[1] - 2) // 2
                both = (s[:, 1 : k + 1] * s[:, k + 1 : 2 * k + 1]).sum(axis=1)
                chance += np.nan_to_num(share(both, s[:, -1]))
        if not self._kappa:
            return share(seen, count)
        with np.errstate(invalid="ignore", divide="ignore"):
            kappa: Floats = np.where(
                (count > 0) & (chance >= count), 1.0, (seen - chance) / (count - chance)
            )
        return kappa


def _pooled(pairs: Sequence[Mapping[str, _Some]]) -> dict[str, Statistic]:
    """The figures of pairs over all of them, each pair as often as it has common steps.

    Reference: De Vries et al. 2008, "Using pooled kappa to summarize interrater agreement across
    many items", Field Methods 20(3), eq. 5; there all have as many items.
    """
    names = dict.fromkeys(name for figures in pairs for name in figures)
    return {name: _Pooled([f[name] for f in pairs if name in f], "kappa" in name) for name in names}


def krippendorffs_alpha(
    units: Sequence[Sequence[float]],
    groups: Ints,
    n_groups: int,
    level: Literal["nominal", "ordinal"] = "nominal",
) -> Sums:
    """Agreement of any number of raters beyond chance, where not all rate everything.

        α = 1 − D_observed / D_expected

    over pairs of ratings of the same unit, and of any two ratings. Not defined where all ratings
    are the same.

    Args:
        units: of each of n units, its ratings; those with less than two do not count.
        groups: [n].
        n_groups: of them.
        level: ``nominal`` (ratings are the same or not) or ``ordinal`` (they are as far apart as
            there are ratings between them).

    Reference: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections C and D.
    """
    values = sorted({v for unit in units for v in unit})
    k = len(values)
    place = {v: i for i, v in enumerate(values)}
    pairs = np.zeros((len(units), k * k))
    for row, unit in zip(pairs, units, strict=True):
        counts = np.bincount([place[v] for v in unit], minlength=k).astype(np.float64)
        if len(unit) > 1:
            row[:] = ((np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)).ravel()

    def combine(s: Floats) -> Floats:
        seen = s.reshape(len(s), k, k)
        n_of = seen.sum(axis=2)
        n = n_of.sum(axis=1)
        apart = _distances(n_of, level)
        observed = share((seen * apart).sum(axis=(1, 2)), n)
        by_chance = (n_of[:, :, None] * n_of[:, None, :] * apart).sum(axis=(1, 2))
        expected = share(by_chance, n * (n - 1))
        return 1 - share(observed, expected)

    sums = summed(list(pairs.T), groups, n_groups) if k else np.zeros((n_groups, 0))
    return Sums(sums, combine, sum(len(unit) for unit in units if len(unit) > 1))


def _distances(n_of: Floats, level: Literal["nominal", "ordinal"]) -> Floats:
    """[B, K, K] squared distances of values that occur [B, K] often."""
    k = n_of.shape[1]
    if level == "nominal":
        return np.broadcast_to(1 - np.eye(k), (len(n_of), k, k))
    middle = np.cumsum(n_of, axis=1) - n_of / 2
    squares: Floats = (middle[:, :, None] - middle[:, None, :]) ** 2
    return squares
