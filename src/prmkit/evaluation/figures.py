"""Figures that several benchmarks share, from cases and what a judge says of them.

All of them leave out cases that are not scored; `Judged.strict` counts those as misses, for the
second set of figures that `with_strict` gives wherever there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prmkit.evaluation import classification
from prmkit.evaluation.cases import Case, Groups, Protocol, is_right
from prmkit.evaluation.judgements import NEUTRAL, RIGHT, WRONG, Equal, Judgement, Verdict, decide
from prmkit.evaluation.statistics import Floats, Ranking, Statistic, Sums, mean, summed
from prmkit.records import Scored, StepScores, Unscored

_CALLED_WRONG = (WRONG, NEUTRAL)
"""Labels of steps that are not above the threshold."""


def silent(case: Case) -> Verdict:
    """The verdict of a case that was not scored, where that counts as a miss."""
    return Verdict((None,) * len(case.record.trajectory.steps), None, None)


class Judged(NamedTuple):
    """Cases with what one judge says of them, one of each.

    Attributes:
        cases: N of them.
        judgements: N.
        verdicts: N; None where a case is not scored.
        groups: [N].
        n_groups: of the whole benchmark.
    """

    cases: Sequence[Case]
    judgements: Sequence[Judgement]
    verdicts: Sequence[Verdict | None]
    groups: Groups
    n_groups: int

    @classmethod
    def of(
        cls,
        cases: Sequence[Case],
        judgements: Sequence[Judgement],
        groups: Groups,
        protocol: Protocol,
        equal: Equal,
    ) -> Judged:
        """Verdicts by the rule of a protocol."""
        verdicts = [decide(j, protocol.rule, equal) for j in judgements]
        return cls(cases, judgements, verdicts, groups, int(groups.max(initial=-1)) + 1)

    def where(self, keep: Sequence[int]) -> Judged:
        """Some of the cases, in the given order."""
        return Judged(
            [self.cases[i] for i in keep],
            [self.judgements[i] for i in keep],
            [self.verdicts[i] for i in keep],
            self.groups[np.asarray(keep, dtype=np.int64)],
            self.n_groups,
        )

    def split(self, name: str) -> Judged:
        """The cases of a split."""
        return self.where([i for i, case in enumerate(self.cases) if case.split == name])

    def scored(self) -> Judged:
        """The cases that are scored."""
        return self.where([i for i, v in enumerate(self.verdicts) if v is not None])

    def strict(self) -> Judged:
        """All cases; a judge that said nothing is wrong."""
        pairs = zip(self.cases, self.verdicts, strict=True)
        return self._replace(verdicts=[silent(c) if v is None else v for c, v in pairs])

    @property
    def scores(self) -> list[Scored]:
        """N: what the judge says of the steps; not scored where it gives verdicts alone."""
        nothing = Unscored(reason="no scores")
        return [nothing if j.scores is None else j.scores for j in self.judgements]

    @property
    def n_unscored(self) -> int:
        """How many cases are not scored."""
        return sum(v is None for v in self.verdicts)

    def sums(self, columns: Sequence[Sequence[bool | float]]) -> Floats:
        """[G, K] sums by group of K columns, one entry per case."""
        return summed(columns, self.groups, self.n_groups)

    def mean(self, values: Sequence[bool | float]) -> Sums:
        """The mean of a value per case."""
        return mean(values, self.groups, self.n_groups)


def true_first_error(case: Case) -> int | None:
    """The first wrong step; None where none is wrong or known to be."""
    labels = case.record.labels
    return None if labels is None else labels.first_error


def hit(case: Case, verdict: Verdict) -> bool:
    """Whether the first wrong step is named exactly, or all is called right and is."""
    if is_right(case):
        return verdict.right is True and verdict.first_error is None
    truth = true_first_error(case)
    return truth is not None and verdict.first_error == truth


def first_error_statistics(judged: Judged) -> dict[str, Statistic]:
    """ProcessBench's two accuracies and their harmonic mean, of scored cases.

    Reference: Zheng et al. 2024, arXiv:2412.06559, section 4.1.
    """
    judged = judged.scored()
    right = [is_right(case) for case in judged.cases]
    hits = [hit(c, v) for c, v in zip(judged.cases, judged.verdicts, strict=True) if v]
    sums = judged.sums(
        [
            [h and not r for h, r in zip(hits, right, strict=True)],
            [not r for r in right],
            [h and r for h, r in zip(hits, right, strict=True)],
            right,
        ]
    )
    n_right = sum(right)
    both = 0 < n_right < len(hits)

    def f1(s: Floats) -> Floats:
        # A resample without one of the two classes that there are says nothing of their mean.
        lacking = (s[:, 1] == 0) | (s[:, 3] == 0)
        return np.where(lacking & both, np.nan, harmonic(s))

    return {
        "f1": Sums(sums, f1, len(hits)),
        "accuracy_wrong": Sums(sums, lambda s: share(s[:, 0], s[:, 1]), len(hits) - n_right),
        "accuracy_right": Sums(sums, lambda s: share(s[:, 2], s[:, 3]), n_right),
    }


def harmonic(sums: Floats) -> Floats:
    """The harmonic mean of hits over cases of both classes; 0 where it is not defined."""
    wrong, right = share(sums[:, 0], sums[:, 1]), share(sums[:, 2], sums[:, 3])
    both = np.nan_to_num(wrong) * np.nan_to_num(right)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1: Floats = np.where(both > 0, 2 * both / (wrong + right), 0.0)
    return f1


def share(hits: Floats, of: Floats) -> Floats:
    """Hits over how many there are; NaN over none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        part: Floats = np.where(of > 0, hits / of, np.nan)
    return part


def average(parts: Sequence[Sums]) -> Sums:
    """The plain mean of figures of different splits; not of their cases."""
    widths = np.cumsum([0, *(part.sums.shape[1] for part in parts)])

    def combine(sums: Floats) -> Floats:
        values = [
            part.combine(sums[:, a:b])
            for part, a, b in zip(parts, widths[:-1], widths[1:], strict=True)
        ]
        with np.errstate(invalid="ignore"):
            averaged: Floats = np.mean(values, axis=0)
        return averaged

    return Sums(np.concatenate([p.sums for p in parts], axis=1), combine, sum(p.n for p in parts))


def mr_statistics(judged: Judged) -> dict[str, Statistic]:
    """MCC of solutions, and accuracies of the first wrong step and of the reason, over wrong ones.

    A wrong solution of which it is not known where it goes wrong counts for the MCC alone.

    The reason needs a judge that gives one and somebody who accepts it; without any, neither its
    accuracy nor the whole score is given.

    Reference: Zeng et al. 2023, MR-GSM8K, arXiv:2312.17080, section 4.
    """
    judged = judged.scored()
    rows = []
    reasons = False
    for case, verdict in zip(judged.cases, judged.verdicts, strict=True):
        assert verdict is not None
        right = is_right(case)
        called_wrong = verdict.right is False
        placed = not right and true_first_error(case) is not None
        found = placed and called_wrong and hit(case, verdict)
        if case.record.meta.get("step_by_reason") and verdict.reason is not None:
            # Of programs the place is not asked for: who gives an accepted reason has found it.
            placed, found = not right, not right and called_wrong and verdict.reason
        reasons |= verdict.reason is not None
        rows.append(
            (
                right and verdict.right is True,
                not right and not called_wrong,
                not right and called_wrong,
                right and verdict.right is not True,
                found,
                found and verdict.reason is True,
                placed,
            )
        )
    sums = judged.sums(list(zip(*rows, strict=True)) if rows else [[]] * 7)
    n, n_wrong = len(rows), sum(not is_right(c) for c in judged.cases)
    n_placed = int(sums[:, 6].sum())

    def mcc(s: Floats) -> Floats:
        return classification.matthews(s[:, 0], s[:, 1], s[:, 2], s[:, 3])

    def step(s: Floats) -> Floats:
        return share(s[:, 4], s[:, 6])

    def reason(s: Floats) -> Floats:
        return share(s[:, 5], s[:, 6])

    figures: dict[str, Statistic] = {
        "mcc": Sums(sums, mcc, n),
        "step_accuracy": Sums(sums, step, n_placed),
        "true_positive_rate": Sums(sums, lambda s: share(s[:, 0], s[:, 0] + s[:, 3]), n - n_wrong),
        "true_negative_rate": Sums(sums, lambda s: share(s[:, 2], s[:, 1] + s[:, 2]), n_wrong),
    }
    if reasons:
        figures["reason_accuracy"] = Sums(sums, reason, n_placed)
        figures["mr_score"] = Sums(
            sums, lambda s: classification.mr_score(mcc(s), step(s), reason(s)), n
        )
    return figures


def validity_statistics(judged: Judged) -> dict[str, Statistic]:
    """ReasonEval's macro-F1 and AUC of solutions and of steps.

    A solution scores as its lowest step. Steps after the first wrong one do not count as steps. A
    solution whose score is the threshold itself is a miss whatever it is; a step is called wrong.

    Reference: Xia et al. 2024, arXiv:2404.05692, section 4; the official evaluator.
    """
    judged = judged.scored()
    solutions: list[tuple[bool, bool]] = []
    steps: list[tuple[int, bool, bool]] = []
    for group, case, verdict in zip(judged.groups, judged.cases, judged.verdicts, strict=True):
        assert verdict is not None
        right = is_right(case)
        said_right = verdict.right is True and NEUTRAL not in verdict.steps
        solutions.append((right, said_right if right else verdict.right is False))
        for truth, label in zip(_step_truth(case), verdict.steps, strict=False):
            if truth is not None:
                steps.append(
                    (int(group), truth, label == RIGHT if truth else label in _CALLED_WRONG)
                )
    at = np.array([group for group, _, _ in steps], dtype=np.int64)
    figures: dict[str, Statistic] = {
        "solution_macro_f1": _macro(solutions, judged.groups, judged.n_groups),
        "step_macro_f1": _macro([(t, h) for _, t, h in steps], at, judged.n_groups),
    }
    return {**figures, **validity_rankings(judged)}


def _macro(pairs: Sequence[tuple[bool, bool]], groups: Groups, n_groups: int) -> Sums:
    """Macro-F1 of pairs of truth and hit: what is no hit counts as called the other class."""
    columns = [
        [t and h for t, h in pairs],
        [not t and not h for t, h in pairs],
        [not t and h for t, h in pairs],
        [t and not h for t, h in pairs],
    ]
    sums = summed(columns, groups, n_groups)
    return Sums(sums, lambda s: classification.macro_f1(*s.T), len(pairs))


def _step_truth(case: Case) -> list[bool | None]:
    labels = case.record.labels
    if labels is None:
        return []
    worst = -1 if labels.kind == "human" else 0
    return [None if v is None else v > worst for v in labels.values]


def validity_rankings(judged: Judged) -> dict[str, Statistic]:
    """The AUCs of `validity_statistics`; none where a judge gives verdicts alone."""
    scores, solutions, right, at = [], [], [], []
    labels, groups = [], []
    for group, case, judgement in zip(judged.groups, judged.cases, judged.judgements, strict=True):
        given = judgement.scores
        if not isinstance(given, StepScores) or not given.values:
            continue
        solutions.append(min(given.values))
        right.append(is_right(case))
        at.append(group)
        for truth, score in zip(_step_truth(case), given.values, strict=False):
            if truth is not None:
                scores.append(score)
                labels.append(truth)
                groups.append(group)
    if not solutions:
        return {}
    return {
        "solution_auc": _ranking(solutions, right, at),
        "step_auc": _ranking(scores, labels, groups),
    }


def _ranking(scores: Sequence[float], labels: Sequence[bool], groups: Sequence[int]) -> Ranking:
    return Ranking(
        np.asarray(scores, dtype=np.float64),
        np.asarray(labels, dtype=np.bool_),
        np.asarray(groups, dtype=np.int64),
    )


def redundancy_statistics(judged: Judged) -> dict[str, Statistic]:
    """ReasonEval's macro-F1 and AUC of redundant steps, which human ratings call neutral.

    A judge without probabilities of redundancy is measured by its scores, as the official
    evaluator does with Math-Shepherd's; a solution is as redundant as its most redundant step.

    Reference: Xia et al. 2024, arXiv:2404.05692, section 4.
    """
    judged = judged.scored()
    solutions: list[tuple[bool, bool]] = []
    steps: list[tuple[int, bool, bool]] = []
    ranked: list[tuple[int, bool, float]] = []
    lowest: list[tuple[int, bool, float]] = []
    for i, (case, verdict) in enumerate(zip(judged.cases, judged.verdicts, strict=True)):
        assert verdict is not None
        assert case.record.labels is not None
        group, judgement = int(judged.groups[i]), judged.judgements[i]
        useful = [value == 1 for value in case.record.labels.values]
        fine = all(useful)
        called = _called_useful(verdict)
        said = _said_useful(judgement, verdict)
        solutions.append((fine, said is True if fine else said is False))
        for truth, call in zip(useful, called, strict=False):
            steps.append((group, truth, call == truth))
        goodness = _usefulness(judgement)
        if goodness:
            lowest.append((group, fine, min(goodness)))
            ranked += [(group, t, s) for t, s in zip(useful, goodness, strict=True)]
    at = np.array([group for group, _, _ in steps], dtype=np.int64)
    figures: dict[str, Statistic] = {
        "solution_macro_f1": _macro(solutions, judged.groups, judged.n_groups),
        "step_macro_f1": _macro([(t, h) for _, t, h in steps], at, judged.n_groups),
    }
    if ranked:
        for name, triples in (("solution_auc", lowest), ("step_auc", ranked)):
            figures[name] = _ranking(
                [s for _, _, s in triples], [t for _, t, _ in triples], [g for g, _, _ in triples]
            )
    return figures


def _called_useful(verdict: Verdict) -> list[bool]:
    """Whether each step is called useful; at the threshold itself it is not."""
    if verdict.redundant is not None:
        return [r is False for r in verdict.redundant]
    return [label == RIGHT for label in verdict.steps]


def _said_useful(judgement: Judgement, verdict: Verdict) -> bool | None:
    """Whether all of a solution is called useful; None where its worst step is at the threshold."""
    if judgement.verdict is not None and verdict == judgement.verdict:
        return verdict.right
    if verdict.redundant is not None:
        flags = verdict.redundant
        return False if True in flags else None if None in flags else True
    return False if WRONG in verdict.steps else None if NEUTRAL in verdict.steps else True


def _usefulness(judgement: Judgement) -> list[float]:
    if judgement.redundancy is not None:
        return [-r for r in judgement.redundancy]
    return list(judgement.scores.values) if isinstance(judgement.scores, StepScores) else []


def with_strict(
    judged: Judged, measure: Callable[[Judged], dict[str, Statistic]]
) -> dict[str, Statistic]:
    """Figures of the scored cases; and, where some are not, those that count them as misses."""
    figures = measure(judged)
    if judged.n_unscored:
        strict = measure(judged.strict())
        figures |= {
            f"unscored_as_miss/{name}": value
            for name, value in strict.items()
            if not name.endswith("auc")
        }
    return figures


def missing_as_wrong(
    judged: Judged, measure: Callable[[Judged], dict[str, Statistic]]
) -> dict[str, Statistic]:
    """Figures that count what is missing as wrong, of all cases and by split.

    Where any is missing, those of the scored cases alone are given too.
    """
    strict = judged.strict()
    figures = measure(strict)
    for split in dict.fromkeys(case.split for case in judged.cases):
        part = measure(strict.split(split))
        figures |= {f"{split}/{name}": value for name, value in part.items()}
    if judged.n_unscored:
        scored = measure(judged.scored())
        figures |= {f"scored_only/{name}": value for name, value in scored.items()}
    return figures
