"""What a PRM's scores are made of, beside whether they are right.

    outcome_like     the share of solutions whose lowest score is the last step's, against what
                     chance would give: a PRM that looks at the end alone has it near 1
    length           do longer solutions score higher or lower? rank correlations
    drift            do scores of right steps rise or fall along a solution?
    repeats          steps that say again what an earlier one said: how many, and their scores
    aggregation      which way to one number ranks solutions best, each against the best

Reference: the first after Zhang et al. 2025, arXiv:2501.07301, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prmkit.aggregate import AGGREGATIONS, Aggregation
from prmkit.evaluation.cases import Protocol
from prmkit.evaluation.common import solution_truth
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.pool_table import aggregated
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
from prmkit.records import StepScores

POSITIONS = 10
Placed = tuple[Floats, Floats, Ints]
"""Of steps: their place in [0, 1], their score, their group."""


class ScoredCases(NamedTuple):
    """The cases that have scores.

    Attributes:
        numbers: of the cases.
        scores: [S] arrays, one of each.
        groups: [n] the group of each.
    """

    numbers: list[int]
    scores: list[Floats]
    groups: Ints


def scored_cases(judged: Judged) -> ScoredCases:
    """The cases with at least one step that has a score."""
    keep = [
        i
        for i, j in enumerate(judged.judgements)
        if isinstance(j.scores, StepScores) and j.scores.values
    ]
    scores = [np.asarray(_values(judged, i), dtype=np.float64) for i in keep]
    return ScoredCases(keep, scores, judged.groups[np.array(keep, dtype=np.int64)])


def _values(judged: Judged, i: int) -> tuple[float, ...]:
    given = judged.judgements[i].scores
    assert isinstance(given, StepScores)
    return given.values


class Diagnosis(NamedTuple):
    """What one judge's scores are made of.

    Attributes:
        figures: by name, but for the choice of an aggregation.
        drift: tenths of the way: from, to, mean score of right steps, how many; where there are
            any.
    """

    figures: dict[str, Statistic]
    drift: list[tuple[float, float, float, int]]


def diagnose(judged: Judged, protocol: Protocol) -> Diagnosis:
    """Look at the scores of a judge; there is nothing to see where it gives none."""
    scored = scored_cases(judged)
    if not scored.numbers:
        return Diagnosis({}, [])
    placed = positions(judged, scored)
    figures = {
        **_outcome_like(scored, judged.n_groups),
        **_length(judged, scored, protocol.aggregation),
        **_drift(placed, judged.n_groups),
        **_repeats(judged, scored),
    }
    return Diagnosis(figures, _drift_table(placed))


def _outcome_like(scored: ScoredCases, n_groups: int) -> dict[str, Statistic]:
    shares, chance, at = [], [], []
    for values, group in zip(scored.scores, scored.groups, strict=True):
        if len(values) > 1:
            lowest = values == values.min()
            shares.append(float(lowest[-1]) / lowest.sum())
            chance.append(1 / len(values))
            at.append(int(group))
    if not at:
        return {}
    groups = np.array(at, dtype=np.int64)
    return {
        "outcome_like/lowest_is_last": mean(shares, groups, n_groups),
        "outcome_like/by_chance": mean(chance, groups, n_groups),
    }


def ranks(values: Sequence[float] | Floats) -> Floats:
    """[n] ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return shared


def correlation(a: Floats, b: Floats, groups: Ints, n_groups: int) -> Sums:
    """Pearson's correlation of [n] pairs; of ranks, it is Spearman's (ranks of all the data)."""
    x, y = a - a.mean(), b - b.mean()
    sums = summed([np.ones(len(x)), x, y, x * x, y * y, x * y], groups, n_groups)

    def combine(s: Floats) -> Floats:
        n, sx, sy, sxx, syy, sxy = s.T
        with np.errstate(invalid="ignore", divide="ignore"):
            below = np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
            r: Floats = np.where(below > 0, (n * sxy - sx * sy) / below, np.nan)
        return r

    return Sums(sums, combine, len(x))


def _length(judged: Judged, scored: ScoredCases, how: Aggregation) -> dict[str, Statistic]:
    kept = judged.where(scored.numbers).scores
    overall = aggregated([[s] for s in kept], [how], 1)[how][:, 0]
    steps = np.array([len(values) for values in scored.scores], dtype=np.float64)
    texts = [judged.cases[i].record.trajectory.text for i in scored.numbers]
    characters = np.array([len(text) for text in texts], dtype=np.float64)
    right = np.array([solution_truth(judged.cases[i]) is True for i in scored.numbers])
    figures: dict[str, Statistic] = {}
    for name, lengths in (("steps", steps), ("characters", characters)):
        for suffix, keep in (("", np.ones(len(steps), dtype=np.bool_)), ("_of_right", right)):
            if keep.sum() > 2 and len(set(lengths[keep].tolist())) > 1:
                figures[f"length/{name}{suffix}"] = correlation(
                    ranks(overall[keep]), ranks(lengths[keep]), scored.groups[keep], judged.n_groups
                )
    return figures


def _drift(placed: Placed, n_groups: int) -> dict[str, Statistic]:
    """The slope of scores of right steps over their place, from 0 (first) to 1 (last)."""
    place, score, at = placed
    if len(place) < 3:
        return {}
    sums = summed([np.ones(len(place)), place, score, place**2, place * score], at, n_groups)

    def slope(s: Floats) -> Floats:
        n, sx, sy, sxx, sxy = s.T
        with np.errstate(invalid="ignore", divide="ignore"):
            below = n * sxx - sx**2
            result: Floats = np.where(below > 0, (n * sxy - sx * sy) / below, np.nan)
        return result

    return {"drift/slope": Sums(sums, slope, len(place))}


def positions(judged: Judged, scored: ScoredCases) -> Placed:
    """Of right steps of solutions of two or more: place in [0, 1], score, group.

    Right are those labelled so; where a benchmark has no labels, the steps of right solutions.
    """
    places, scores, at = [], [], []
    for i, values, group in zip(scored.numbers, scored.scores, scored.groups, strict=True):
        case, last = judged.cases[i], len(values) - 1
        if not last:
            continue
        labels = case.record.labels
        if labels is not None:
            keep = np.array([label is not None and label > 0 for label in labels.values])
        else:
            keep = np.full(len(values), solution_truth(case) is True)
        place = np.flatnonzero(keep) / last
        places.append(place)
        scores.append(values[keep])
        at.append(np.full(len(place), group))
    if not places:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    return np.concatenate(places), np.concatenate(scores), np.concatenate(at)


def _drift_table(placed: Placed) -> list[tuple[float, float, float, int]]:
    place, score, _ = placed
    which = np.minimum((place * POSITIONS).astype(np.int64), POSITIONS - 1)
    table = []
    for k in range(POSITIONS):
        inside = which == k
        if inside.any():
            ends = (k / POSITIONS, (k + 1) / POSITIONS)
            table.append((*ends, float(score[inside].mean()), int(inside.sum())))
    return table


def _repeats(judged: Judged, scored: ScoredCases) -> dict[str, Statistic]:
    """Steps that say what an earlier step of the solution says, white space and case aside."""
    repeated: list[bool] = []
    for i in scored.numbers:
        said = [
            " ".join(s.text.split()).casefold() for s in judged.cases[i].record.trajectory.steps
        ]
        if len(set(said)) == len(said):
            repeated += [False] * len(said)
        else:
            repeated += [bool(text) and text in said[:k] for k, text in enumerate(said)]
    score = np.concatenate(scored.scores)
    groups = np.repeat(scored.groups, [len(values) for values in scored.scores])
    figures: dict[str, Statistic] = {"repeats/share": mean(repeated, groups, judged.n_groups)}
    flags = np.array(repeated)
    if flags.any() and not flags.all():
        sums = summed([flags, ~flags, flags * score, ~flags * score], groups, judged.n_groups)

        def gap(s: Floats) -> Floats:
            n, others, total, rest = s.T
            with np.errstate(invalid="ignore", divide="ignore"):
                result: Floats = total / n - rest / others
            return result

        figures["repeats/score_gap"] = Sums(sums, gap, int(flags.sum()))
    return figures


class WayOfAggregating(NamedTuple):
    """How well one aggregation ranks.

    Attributes:
        how: the aggregation.
        figure: its figure.
        to_best: how far it is from the best one, paired.
    """

    how: Aggregation
    figure: Estimate
    to_best: Estimate


def best_aggregation(
    figures: dict[str, Statistic], pattern: str, bootstrap: Bootstrap
) -> list[WayOfAggregating]:
    """Aggregations from the best to the worst by a family of figures, each against the best.

    Args:
        figures: of one judge.
        pattern: the names of the figures before the aggregation, such as ``best_of_32/``.
        bootstrap: weights.
    """
    ways = {how: figures[pattern + how] for how in AGGREGATIONS if pattern + how in figures}
    values = {how: bootstrap.value(statistic) for how, statistic in ways.items()}
    order = sorted((h for h in ways if values[h] is not None), key=lambda h: -(values[h] or 0.0))
    table = []
    for how in order:
        gap, _ = bootstrap.difference(ways[how], ways[order[0]])
        table.append(WayOfAggregating(how, bootstrap.estimate(ways[how]), gap))
    return table
