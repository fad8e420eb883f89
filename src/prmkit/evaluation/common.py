"""Figures of scores that make sense for every benchmark: ranking and calibration.

A pooled AUC rewards merely knowing which problems are hard; so each is also given within a problem
(over pairs of its solutions) and, of steps, after one prefix (over pairs of steps that go on from
the same steps), wherever there are such pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.evaluation.calibration import calibration_sums
from prmkit.evaluation.cases import Case, Protocol, is_right
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.pool_table import aggregated, usable
from prmkit.evaluation.ranking import wins
from prmkit.evaluation.statistics import (
    Bools,
    Floats,
    Ints,
    Ranking,
    Statistic,
    Sums,
    ratio,
    summed,
)
from prmkit.records import Scored, StepScores, Unscored


class LabelledSteps(NamedTuple):
    """Scores of the labelled steps of all scored cases, one after the other.

    Attributes:
        scores: [n].
        right: [n].
        groups: [n] the group of its case.
        prefixes: [n] equal where the question and the steps before are.
    """

    scores: Floats
    right: Bools
    groups: Ints
    prefixes: Sequence[Hashable]


def labelled_steps(judged: Judged) -> LabelledSteps:
    """The steps whose truth is known; a neutral rating is right."""
    scores, right, groups, prefixes = [], [], [], []
    for group, case, judgement in zip(judged.groups, judged.cases, judged.judgements, strict=True):
        given, labels = judgement.scores, case.record.labels
        if not isinstance(given, StepScores) or labels is None:
            continue
        worst = -1 if labels.kind == "human" else 0
        # Without texts, steps of different cases have no prefix in common.
        bare = case.record.meta.get("labels_only") is True
        start = case.id if bare else case.record.trajectory.problem.text
        before = hashlib.sha256(start.encode())
        for score, label, step in zip(
            given.values, labels.values, case.record.trajectory.steps, strict=True
        ):
            if label is not None:
                scores.append(score)
                right.append(label > worst)
                groups.append(int(group))
                prefixes.append(before.digest())
            before.update(b"\0" + step.text.encode())
    return LabelledSteps(
        np.array(scores, dtype=np.float64),
        np.array(right, dtype=np.bool_),
        np.array(groups, dtype=np.int64),
        prefixes,
    )


def score_figures(judged: Judged, protocol: Protocol) -> dict[str, Statistic]:
    """AUCs, average precisions and calibration of one judge's scores; none where it gives none."""
    if not any(isinstance(j.scores, StepScores) and j.scores.values for j in judged.judgements):
        return {}
    steps = labelled_steps(judged)
    figures: dict[str, Statistic] = {}
    if len(set(steps.right.tolist())) == 2:
        figures["steps/roc_auc"] = Ranking(steps.scores, steps.right, steps.groups)
        figures["steps/pr_auc_right"] = Ranking(steps.scores, steps.right, steps.groups, "pr")
        figures["steps/pr_auc_wrong"] = Ranking(-steps.scores, ~steps.right, steps.groups, "pr")
        within = within_sums(
            steps.scores, steps.right, steps.prefixes, steps.groups, judged.n_groups
        )
        if within.n:
            figures["steps/within_prefix_auc"] = within
    figures |= _solution_figures(judged, protocol)
    if len(steps.scores) and 0 <= steps.scores.min() <= steps.scores.max() <= 1:
        figures |= calibration_figures(steps, judged.n_groups)
    return figures


def within_sums(
    scores: Floats, right: Bools, within: Sequence[Hashable], groups: Ints, n_groups: int
) -> Sums:
    """The AUC over pairs that share a key; `Sums.n` is the number of pairs."""
    members: dict[Hashable, list[int]] = {}
    for index, key in enumerate(within):
        members.setdefault(key, []).append(index)
    won, pairs, at = [], [], []
    for where in members.values():
        if len(where) > 1:
            w, n = wins(scores[where], right[where])
            if n:
                won.append(w)
                pairs.append(n)
                at.append(int(groups[where[0]]))
    sums = summed([won, pairs], np.array(at, dtype=np.int64), n_groups)
    return Sums(sums, ratio, int(np.sum(pairs)))


def solution_truth(case: Case) -> bool | None:
    """Whether a solution is right: of all its steps where they are labelled, else its answer."""
    if case.record.labels is not None or "solution_correct" in case.record.meta:
        return is_right(case)
    return case.record.trajectory.correct


def _solution_figures(judged: Judged, protocol: Protocol) -> dict[str, Statistic]:
    """AUCs of whole solutions; by every aggregation where those of a problem can be compared."""
    truth = [solution_truth(case) for case in judged.cases]
    scored: list[Scored] = [j.scores or Unscored(reason="no scores") for j in judged.judgements]
    keep = [
        i
        for i, (s, t) in enumerate(zip(scored, truth, strict=True))
        if isinstance(s, StepScores) and s.values and t is not None
    ]
    right = np.array([truth[i] for i in keep], dtype=np.bool_)
    if len(set(right.tolist())) < 2:
        return {}
    kept = [scored[i] for i in keep]
    problems = [judged.cases[i].record.trajectory.problem.id for i in keep]
    groups = judged.groups[np.array(keep, dtype=np.int64)]
    comparable = 2 * len(set(problems)) <= len(problems)
    ways: list[Aggregation] = usable(kept)
    if not comparable:
        ways = [how for how in ways if how == protocol.aggregation]
    tables = aggregated([[s] for s in kept], ways, 1)
    figures: dict[str, Statistic] = {}
    for how, table in tables.items():
        column = table[:, 0]
        figures[f"solutions/roc_auc/{how}"] = Ranking(column, right, groups)
        within = within_sums(column, right, problems, groups, judged.n_groups)
        if within.n:
            figures[f"solutions/within_problem_auc/{how}"] = within
    return figures


def calibration_figures(steps: LabelledSteps, n_groups: int) -> dict[str, Statistic]:
    """Expected calibration error and Brier score of steps, whose scores are in [0, 1]."""
    sums, expected, brier = calibration_sums(steps.scores, steps.right, steps.groups, n_groups)
    n = len(steps.scores)
    return {"steps/calibration_error": Sums(sums, expected, n), "steps/brier": Sums(sums, brier, n)}
