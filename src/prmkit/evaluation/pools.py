"""Scored samples of many problems, measured from every side at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.errors import NothingToMeasure
from prmkit.evaluation.best_of_n import (
    VoteSettings,
    best_of_n,
    majority_at_n,
    pass_at_n,
    weighted_vote_at_n,
)
from prmkit.evaluation.bootstrap import Interval, paired_bootstrap
from prmkit.evaluation.calibration import Calibration, calibration
from prmkit.evaluation.first_error import FirstErrorScore, processbench_f1
from prmkit.evaluation.ranking import WithinGroups, roc_auc, within_group_auc
from prmkit.records import Record, Scored, StepScores, Unscored

Pool = Sequence[Record]
"""The samples of one problem."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How scored samples are measured.

    Attributes:
        aggregation: step scores to one number.
        threshold: a step with a lower score is called wrong.
        votes: how votes over fewer samples than there are get estimated.
    """

    aggregation: Aggregation = "min"
    threshold: float = 0.5
    votes: VoteSettings = field(default_factory=VoteSettings)


class Curves(NamedTuple):
    """Share of problems answered rightly, by the number of samples; means over problems.

    Attributes:
        n: numbers of samples: 1, 2, 4, … and all.
        oracle: pass@N: any sample is right.
        best: best-of-N by the scores.
        weighted: the vote weighted by the scores.
        majority: the plain vote.
    """

    n: tuple[int, ...]
    oracle: tuple[float, ...]
    best: tuple[float, ...]
    weighted: tuple[float, ...]
    majority: tuple[float, ...]


class Measured(NamedTuple):
    """What scored samples of many problems come to.

    Attributes:
        curves: picking by scores against voting.
        margin: by how much the better of best-of-N and weighted vote beats the majority, with
            all samples: the paired difference over problems.
        first_error: how well first wrong steps are found; None without true labels.
        step_auc: of steps, pooled; None where labels are missing or all alike.
        solution_auc: of solutions, pooled; None where they are all alike.
        within_problem: of solutions, over pairs of one problem; None where there is no pair.
        calibration: of the steps' scores, where they are probabilities.
        n_problems: pools.
        n_samples: of each.
        n_unscored: solutions without scores, in all; never picked before others, no weight.
    """

    curves: Curves
    margin: Interval
    first_error: FirstErrorScore | None
    step_auc: float | None
    solution_auc: float | None
    within_problem: WithinGroups | None
    calibration: Calibration | None
    n_problems: int
    n_samples: int
    n_unscored: int

    def metrics(self) -> dict[str, Any]:
        """The main figures, rounded, by the names of ``metrics.json``."""
        n = self.n_samples
        figures: dict[str, float | int | None] = {
            f"best_of_{n}": self.curves.best[-1],
            f"weighted_vote_{n}": self.curves.weighted[-1],
            "margin_over_majority": self.margin.mean,
            "margin_low": self.margin.low,
            "margin_high": self.margin.high,
            "first_error_f1": self.first_error and self.first_error.f1,
            "first_error_accuracy_wrong": self.first_error and self.first_error.accuracy_wrong,
            "first_error_accuracy_right": self.first_error and self.first_error.accuracy_right,
            "step_auc": self.step_auc,
            "solution_auc": self.solution_auc,
            "within_problem_auc": self.within_problem and self.within_problem.auc,
            "calibration_error": self.calibration and self.calibration.expected_error,
            "brier": self.calibration and self.calibration.brier,
            "unscored": self.n_unscored,
        }
        return {k: round(v, 4) for k, v in figures.items() if v is not None}

    def policy_metrics(self) -> dict[str, float]:
        """What the samples are worth without scores."""
        return {
            "pass@1": round(self.curves.oracle[0], 4),
            f"pass@{self.n_samples}": round(self.curves.oracle[-1], 4),
            f"majority@{self.n_samples}": round(self.curves.majority[-1], 4),
        }


class _Columns(NamedTuple):
    """One problem's samples as columns."""

    picks: list[float]
    weights: list[float]
    answers: list[str | None]
    correct: list[bool]


def measure_pools(pools: Sequence[Pool], which: int, settings: PoolSettings) -> Measured:
    """Measure the scores number `which` of all samples.

    Args:
        pools: one per problem, each with as many samples; every sample's `correct` is known and
            its `answer` in a form in which equal answers are equal. Labels, where they are, are
            the truth.
        which: of `Record.scores`.
        settings: see `PoolSettings`.

    Raises:
        NothingToMeasure: if there is no pool, or pools differ in size.
    """
    sizes = {len(pool) for pool in pools}
    if not pools or sizes == {0}:
        raise NothingToMeasure("there is no sample to measure")
    if len(sizes) > 1:
        raise NothingToMeasure(
            f"problems have {min(sizes)} to {max(sizes)} samples; curves need as many of each"
        )
    columns = [_columns(pool, which, settings.aggregation) for pool in pools]
    curves, margin = _curves(columns, settings.votes)
    flat = [record for pool in pools for record in pool]
    scored = [record.scores[which] for record in flat]
    finite = [
        (pick, right, group)
        for group, column in enumerate(columns)
        for pick, right in zip(column.picks, column.correct, strict=True)
        if math.isfinite(pick)
    ]
    steps = _steps(flat, which)
    step_scores, step_right = [s for s, _ in steps], [right for _, right in steps]
    probabilities = all(
        s.semantics in ("correctness", "value") for s in scored if isinstance(s, StepScores)
    )
    return Measured(
        curves=curves,
        margin=margin,
        first_error=_first_error(flat, scored, settings.threshold),
        step_auc=_or_none(roc_auc, step_scores, step_right),
        solution_auc=_or_none(roc_auc, [p for p, _, _ in finite], [r for _, r, _ in finite]),
        within_problem=_or_none(within_group_auc, *zip(*finite, strict=True)) if finite else None,
        calibration=calibration(step_scores, step_right) if steps and probabilities else None,
        n_problems=len(pools),
        n_samples=sizes.pop(),
        n_unscored=sum(not math.isfinite(p) for c in columns for p in c.picks),
    )


def _columns(pool: Pool, which: int, how: Aggregation) -> _Columns:
    picks = [_pick(record.scores[which], how) for record in pool]
    missing = [r.trajectory.problem.id for r in pool if r.trajectory.correct is None]
    if missing:
        raise NothingToMeasure(
            f"it is not known whether the solutions of problem {missing[0]!r} are right; compare "
            "their answers with the reference first"
        )
    return _Columns(
        picks,
        _weights(pool, which, picks),
        [record.trajectory.answer for record in pool],
        [bool(record.trajectory.correct) for record in pool],
    )


def _pick(scored: Scored, how: Aggregation) -> float:
    if isinstance(scored, Unscored) or not scored.values:
        return -math.inf
    return aggregate_scores(scored, how)


def _weights(pool: Pool, which: int, picks: Sequence[float]) -> list[float]:
    """Weights of votes: scores that are probabilities as they are; others by exp(s - max s).

    For the sum of log-ratios that is the ratio of likelihoods itself.
    """
    probabilities = all(
        isinstance(scored, Unscored) or scored.semantics in ("correctness", "value")
        for scored in (record.scores[which] for record in pool)
    )
    if probabilities:
        return [max(pick, 0.0) if math.isfinite(pick) else 0.0 for pick in picks]
    highest = max(picks)
    return [math.exp(pick - highest) if math.isfinite(pick) else 0.0 for pick in picks]


def _curves(columns: Sequence[_Columns], votes: VoteSettings) -> tuple[Curves, Interval]:
    total = len(columns[0].picks)
    numbers = [n for n in (2**k for k in range(total.bit_length())) if n < total] + [total]
    by_method: dict[str, list[list[float]]] = {
        "oracle": [[pass_at_n(c.correct, n) for c in columns] for n in numbers],
        "best": [[best_of_n(c.picks, c.correct, n) for c in columns] for n in numbers],
        "weighted": [
            [weighted_vote_at_n(c.answers, c.weights, c.correct, n, votes) for c in columns]
            for n in numbers
        ],
        "majority": [
            [majority_at_n(c.answers, c.correct, n, votes) for c in columns] for n in numbers
        ],
    }
    means = {
        method: tuple(math.fsum(values) / len(values) for values in rows)
        for method, rows in by_method.items()
    }
    better = "best" if means["best"][-1] >= means["weighted"][-1] else "weighted"
    margin = paired_bootstrap(by_method[better][-1], by_method["majority"][-1], seed=votes.seed)
    return Curves(tuple(numbers), **means), margin


def _first_error(
    records: Sequence[Record], scored: Sequence[Scored], threshold: float
) -> FirstErrorScore | None:
    if any(record.labels is None for record in records):
        return None
    truth = [record.labels.first_error if record.labels else None for record in records]
    if all(isinstance(s, Unscored) for s in scored):
        return None
    return processbench_f1(scored, truth, threshold)


def _steps(records: Sequence[Record], which: int) -> list[tuple[float, bool]]:
    """Scores of labelled steps with whether each is right."""
    pairs = []
    for record in records:
        scored = record.scores[which]
        if record.labels is None or isinstance(scored, Unscored):
            continue
        for score, label in zip(scored.values, record.labels.values, strict=True):
            if label is not None:
                pairs.append((score, label > 0))
    return pairs


def _or_none(measure: Callable[..., Any], *columns: Sequence[Any]) -> Any:
    """None where there is nothing to compare, such as right solutions alone."""
    try:
        return measure(*columns)
    except NothingToMeasure:
        return None
