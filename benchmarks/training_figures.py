"""What `training.py` measures of scores: figures by problem, with intervals over problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.embedded.judge import true_labels
from prmkit.embedded.world import Split
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    aggregated,
    pick_table,
    samples_of,
    shown_numbers,
    without_scores,
)
from prmkit.evaluation.ranking import wins
from prmkit.evaluation.statistics import Bootstrap, Estimate, Floats, Sums, ratio
from prmkit.records import Record, Scored, StepLabels, StepScores, Trajectory

PICKS = PickSettings(answers="text")


class Pool(NamedTuple):
    """Samples of fresh problems.

    Attributes:
        groups: of each problem.
        samples: the same as arrays.
        truth: of each problem's samples.
        majority: [P, n] the share of votes over n samples that are right.
        oracle: [P, n] pass@n.
    """

    groups: list[tuple[Trajectory, ...]]
    samples: Samples
    truth: list[list[StepLabels]]
    majority: Floats
    oracle: Floats

    @classmethod
    def of(cls, groups: list[tuple[Trajectory, ...]]) -> Pool:
        """From samples."""
        samples = samples_of([[Record(trajectory=t) for t in group] for group in groups], "text")
        oracle, majority = without_scores(samples, PICKS)
        return cls(groups, samples, [[true_labels(t) for t in g] for g in groups], majority, oracle)


class Run(NamedTuple):
    """One model's figures in one split, each by problem.

    Attributes:
        best: [P, n] best-of-N.
        weighted: [P, n] the vote weighted by scores.
        pairs: by what is ranked within a problem, [P, 2] pairs won, and pairs.
        lowest: of each problem, of each sample, the lowest score up to each line.
    """

    best: Floats
    weighted: Floats
    pairs: dict[str, Floats]
    lowest: list[list[Floats]]


def measured(scored: list[list[Scored]], pool: Pool, how: Aggregation) -> Run:
    """How well samples are picked, and steps and solutions told apart."""
    table = pick_table(pool.samples, scored, PICKS, [how])
    overall = aggregated(scored, [how], pool.samples.correct.shape[1])[how]
    of_steps = []
    for group, truth in zip(scored, pool.truth, strict=True):
        values = [v for s in group if isinstance(s, StepScores) for v in s.values]
        right = [
            v == 1
            for s, labels in zip(group, truth, strict=True)
            if isinstance(s, StepScores)
            for v in labels.values
        ]
        of_steps.append(wins(np.array(values), np.array(right)))
    of_solutions = [wins(*one) for one in zip(overall, pool.samples.correct, strict=True)]
    lowest = [
        [np.minimum.accumulate(s.values if isinstance(s, StepScores) else [np.inf]) for s in group]
        for group in scored
    ]
    pairs = {"steps": np.array(of_steps, float), "solutions": np.array(of_solutions, float)}
    return Run(table.best[how], table.weighted[how], pairs, lowest)


def first_errors(run: Run, pool: Pool, thresholds: Sequence[float]) -> Floats:
    """[T, P, 4] by threshold and problem, what `f1` is made of.

    That is: wrong solutions whose first error is found, wrong ones, right solutions in which no
    line is called wrong, right ones.
    """
    found = np.zeros((len(thresholds), len(pool.groups), 4))
    # The lowest score so far falls: the first one below a threshold is found by bisection.
    rising = -np.asarray(thresholds)
    for p, (group, truth) in enumerate(zip(run.lowest, pool.truth, strict=True)):
        for lowest, labels in zip(group, truth, strict=True):
            place = np.searchsorted(-lowest, rising, side="right")
            first = labels.first_error
            at = 2 if first is None else 0
            found[:, p, at] += place == (len(lowest) if first is None else first)
            found[:, p, at + 1] += 1
    return found


def f1(sums: Floats) -> Floats:
    """[B, 4] sums as of `first_errors` to ProcessBench's F1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong, right = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
        both: Floats = np.nan_to_num(2 * wrong * right / (wrong + right))
    return both


def fitted_first_errors(runs: dict[Split, Run], pools: dict[Split, Pool]) -> dict[Split, Floats]:
    """[P, 4] as of `first_errors`, at thresholds of other problems.

    Scores of different kinds have no threshold in common. Each half of the test problems has the
    one that is best for the other half; problems out of domain that which is best for all of test.
    """
    scores = np.concatenate([v for group in runs["test"].lowest for v in group])
    grid = np.unique(np.quantile(scores[np.isfinite(scores)], np.linspace(0.01, 0.99, 99)))
    test = first_errors(runs["test"], pools["test"], grid)
    halves = np.arange(test.shape[1]) % 2 == 0
    fitted = np.empty(test.shape[1:])
    for half in (halves, ~halves):
        fitted[half] = test[f1(test[:, ~half].sum(axis=1)).argmax()][half]
    best = grid[f1(test.sum(axis=1)).argmax()]
    found: dict[Split, Floats] = {"test": fitted}
    return found | {
        split: first_errors(runs[split], pools[split], [best])[0]
        for split in pools
        if split != "test"
    }


class Row(NamedTuple):
    """A way in one split: its runs, and their first errors [P, 4], by seed."""

    runs: list[Run]
    firsts: list[Floats]


Figure = Callable[[Row, int], Sums]
"""Of the first so many seeds, the mean."""


def over_seeds(parts: Sequence[Floats], combine: Callable[[Floats], Floats]) -> Sums:
    """The mean over seeds of what is combined from [P, K] sums of each."""
    k = parts[0].shape[1]

    def mean(sums: Floats) -> Floats:
        each = [combine(sums[:, at : at + k]) for at in range(0, sums.shape[1], k)]
        return np.mean(each, axis=0)  # type: ignore[no-any-return]

    return Sums(np.concatenate(parts, axis=1), mean, len(parts[0]))


def of_curve(name: str, n: int) -> Figure:
    def figure(row: Row, seeds: int) -> Sums:
        columns = [getattr(run, name)[:, n - 1] for run in row.runs[:seeds]]
        ones = np.ones(len(columns[0]))
        return over_seeds([np.stack([c, ones], axis=1) for c in columns], ratio)

    return figure


def figures_of(numbers: Sequence[int]) -> dict[str, Figure]:
    """What is compared, by name."""
    found: dict[str, Figure] = {}
    for name in ("best", "weighted"):
        found |= {f"{name} of {n}": of_curve(name, n) for n in numbers}
    for what in ("solutions", "steps"):
        found[f"auc of {what} within a problem"] = lambda row, seeds, what=what: over_seeds(
            [run.pairs[what] for run in row.runs[:seeds]], ratio
        )
    found["f1 of first errors"] = lambda row, seeds: over_seeds(row.firsts[:seeds], f1)
    return found


def told(row: Row, pool: Pool, bootstrap: Bootstrap) -> dict[str, Any]:
    """One way's figures in one split: value, and ends of its interval."""
    numbers = shown_numbers(pool.majority.shape[1])
    n_seeds = len(row.runs)
    shown: dict[str, Any] = {"seeds": n_seeds}
    for name, figure in figures_of(numbers).items():
        shown[name] = interval(bootstrap.estimate(figure(row, n_seeds)))
    votes = Row([Run(pool.majority, pool.majority, {}, [])], [])
    shown["minus majority"] = {
        f"{name} of {n}": interval(
            bootstrap.difference(of_curve(name, n)(row, n_seeds), of_curve(name, n)(votes, 1))[0]
        )
        for name in ("best", "weighted")
        for n in numbers
    }
    shown["by seed"] = {
        name: [
            bootstrap.value(figure(Row([run], [first]), 1)) for run, first in zip(*row, strict=True)
        ]
        for name, figure in figures_of(numbers).items()
        if not name.startswith("weighted")
    }
    return shown


def interval(estimate: Estimate) -> list[float | None]:
    return [estimate.value, estimate.low, estimate.high]


def gaps(a: Row, b: Row, pool: Pool, bootstrap: Bootstrap) -> dict[str, Any]:
    """The first minus the second, over the seeds that both have."""
    seeds = min(len(a.runs), len(b.runs))
    return {"seeds": seeds} | {
        name: interval(bootstrap.difference(figure(a, seeds), figure(b, seeds))[0])
        for name, figure in figures_of(shown_numbers(pool.majority.shape[1])).items()
    }
