"""Scored samples of many problems, measured from every side at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.errors import NothingToMeasure
from prmkit.evaluation.best_of_n import Draws
from prmkit.evaluation.bootstrap import Interval, paired_bootstrap
from prmkit.evaluation.calibration import Calibration, calibration
from prmkit.evaluation.first_error import FirstErrorScore, processbench_f1
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    aggregated,
    pick_table,
    samples_of,
    shown_numbers,
    without_scores,
)
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
    votes: Draws = field(default_factory=Draws)


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
    picks = PickSettings(answers="text", draws=settings.votes)
    samples = samples_of(pools, picks.answers)
    by_pool = [[record.scores[which] for record in pool] for pool in pools]
    flat = [record for pool in pools for record in pool]
    scored = [s for of_problem in by_pool for s in of_problem]
    _check(scored, settings.aggregation)
    curves, margin = _curves(samples, by_pool, picks, settings.aggregation)
    overall = aggregated(by_pool, [settings.aggregation], sizes.copy().pop())[settings.aggregation]
    there = np.isfinite(overall)
    group = np.broadcast_to(np.arange(len(pools))[:, None], overall.shape)
    finite = (overall[there].tolist(), samples.correct[there].tolist(), group[there].tolist())
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
        solution_auc=_or_none(roc_auc, *finite[:2]),
        within_problem=_or_none(within_group_auc, *finite),
        calibration=calibration(step_scores, step_right) if steps and probabilities else None,
        n_problems=len(pools),
        n_samples=sizes.pop(),
        n_unscored=int((~there).sum()),
    )


def _check(scored: Sequence[Scored], how: Aggregation) -> None:
    """Refuse an aggregation that makes no sense for these scores."""
    for one in scored:
        if isinstance(one, StepScores) and one.values:
            aggregate_scores(one, how)


def _curves(
    samples: Samples, scored: Sequence[Sequence[Scored]], picks: PickSettings, how: Aggregation
) -> tuple[Curves, Interval]:
    oracle, majority = without_scores(samples, picks)
    table = pick_table(samples, scored, picks, [how])
    by_method = {
        "oracle": oracle,
        "best": table.best[how],
        "weighted": table.weighted[how],
        "majority": majority,
    }
    numbers = shown_numbers(oracle.shape[1])
    means = {
        method: tuple(float(values[:, n - 1].mean()) for n in numbers)
        for method, values in by_method.items()
    }
    better = "best" if means["best"][-1] >= means["weighted"][-1] else "weighted"
    margin = paired_bootstrap(
        by_method[better][:, -1].tolist(), majority[:, -1].tolist(), seed=picks.draws.seed
    )
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
