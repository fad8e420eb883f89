"""Do two judges say the same, and does the second one add anything to the first?"""

from __future__ import annotations

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.evaluation.diagnostics import correlation, ranks
from prmkit.evaluation.figures import Judged, share
from prmkit.evaluation.pool_table import aggregated
from prmkit.evaluation.statistics import Floats, Ranking, Statistic, Sums, summed
from prmkit.records import StepScores


def agreement(a: Judged, b: Judged, how: Aggregation = "min") -> dict[str, Statistic]:
    """Figures of two judges of the same cases.

    ``steps/spearman``: rank correlation of the scores of steps. ``steps/kappa``: Cohen's kappa of
    their labels. ``first_error/same``: the share of cases with the same first wrong step.
    ``picks/same``: the share of problems of which both would pick the same solution.
    ``together/auc_gain``: how far the AUC of steps of their mean ranks is above the better one's;
    near 0, one of them is redundant.
    """
    both = [
        i
        for i, (v, w) in enumerate(zip(a.verdicts, b.verdicts, strict=True))
        if v is not None and w is not None
    ]
    a, b = a.where(both), b.where(both)
    figures: dict[str, Statistic] = {}
    if not both:
        return figures
    figures |= _labels(a, b)
    scored = [
        i
        for i, (x, y) in enumerate(zip(a.judgements, b.judgements, strict=True))
        if isinstance(x.scores, StepScores) and isinstance(y.scores, StepScores)
    ]
    if scored:
        figures |= _scores(a.where(scored), b.where(scored), how)
    return figures


def _labels(a: Judged, b: Judged) -> dict[str, Statistic]:
    same, first, second, at, found = [], [], [], [], []
    for group, v, w in zip(a.groups, a.verdicts, b.verdicts, strict=True):
        assert v is not None
        assert w is not None
        found.append(v.first_error == w.first_error and v.right == w.right)
        for x, y in zip(v.steps, w.steps, strict=False):
            if x is not None and y is not None:
                same.append(x == y)
                first.append(x)
                second.append(y)
                at.append(int(group))
    figures: dict[str, Statistic] = {"first_error/same": a.mean(found)}
    if same:
        figures["steps/kappa"] = cohens_kappa(
            np.array(first), np.array(second), np.array(at, dtype=np.int64), a.n_groups
        )
    return figures


def cohens_kappa(
    a: np.typing.NDArray[np.int64],
    b: np.typing.NDArray[np.int64],
    groups: np.typing.NDArray[np.int64],
    n_groups: int,
) -> Sums:
    """Agreement of two [n] labellings beyond chance; 1 where chance alone explains all of it.

    Reference: Cohen 1960, eq. 1.
    """
    classes = np.unique(np.concatenate([a, b]))
    columns = [a == b, *(a == c for c in classes), *(b == c for c in classes)]
    sums = summed([*columns, np.ones(len(a))], groups, n_groups)
    k = len(classes)

    def combine(s: Floats) -> Floats:
        n = s[:, -1]
        seen = share(s[:, 0], n)
        chance = share((s[:, 1 : k + 1] * s[:, k + 1 : 2 * k + 1]).sum(axis=1), n**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Of no item, as a resample may have, both shares are NaN, and so is this.
            kappa: Floats = np.where(chance == 1, 1.0, (seen - chance) / (1 - chance))
        return kappa

    return Sums(sums, combine, len(a))


class _Gain:
    """How far one ranking's AUC is above the better of two others, of the same items."""

    def __init__(self, together: Ranking, a: Ranking, b: Ranking):
        self._together, self._a, self._b = together, a, b
        self.n = together.n

    def __call__(self, weights: Floats) -> Floats:
        """See `Statistic`."""
        gain: Floats = self._together(weights) - np.fmax(self._a(weights), self._b(weights))
        return gain


def _scores(a: Judged, b: Judged, how: Aggregation) -> dict[str, Statistic]:
    x: list[float] = []
    y: list[float] = []
    at: list[int] = []
    truth: list[bool | None] = []
    for group, case, j, k in zip(a.groups, a.cases, a.judgements, b.judgements, strict=True):
        assert isinstance(j.scores, StepScores)
        assert isinstance(k.scores, StepScores)
        x += j.scores.values
        y += k.scores.values
        at += [int(group)] * len(j.scores.values)
        labels = case.record.labels
        worst = -1 if labels is not None and labels.kind == "human" else 0
        values = labels.values if labels is not None else (None,) * len(j.scores.values)
        truth += [None if v is None else v > worst for v in values]
    if len(x) < 3:
        return {}
    rx, ry, groups = ranks(x), ranks(y), np.array(at, dtype=np.int64)
    figures: dict[str, Statistic] = {"steps/spearman": correlation(rx, ry, groups, a.n_groups)}
    known = np.array([t is not None for t in truth])
    right = np.array([bool(t) for t in truth])[known]
    if len(set(right.tolist())) == 2:
        rankings = [Ranking(scores[known], right, groups[known]) for scores in (rx + ry, rx, ry)]
        figures["together/auc_gain"] = _Gain(*rankings)
    if len({c.record.trajectory.problem.id for c in a.cases}) < len(a.cases):
        figures["picks/same"] = _same_pick(a, b, how)
    return figures


def _same_pick(a: Judged, b: Judged, how: Aggregation) -> Sums:
    tables = []
    for judged in (a, b):
        tables.append(aggregated([[s] for s in judged.scores], [how], 1)[how][:, 0])
    members: dict[str, list[int]] = {}
    for i, case in enumerate(a.cases):
        members.setdefault(case.record.trajectory.problem.id, []).append(i)
    same, at = [], []
    for where in members.values():
        if len(where) > 1:
            tops = [set(np.flatnonzero(t[where] == t[where].max()).tolist()) for t in tables]
            # A pick among equals is by chance.
            same.append(len(tops[0] & tops[1]) / (len(tops[0]) * len(tops[1])))
            at.append(int(a.groups[where[0]]))
    groups = np.array(at, dtype=np.int64)
    sums = summed([same, np.ones(len(same))], groups, a.n_groups)
    return Sums(sums, lambda s: share(s[:, 0], s[:, 1]), len(same))
