"""Best-of-N of scored samples: every number of samples, every aggregation, every judge.

The table is made of arrays: P problems with n samples, each sample with its answer's number and
whether it is right, and one row of scores per way of aggregating.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from prmkit.aggregate import Aggregation, aggregate_flat, vote_weights
from prmkit.answers import Checker
from prmkit.errors import NothingToMeasure
from prmkit.evaluation.best_of_n import (
    Bools,
    Draws,
    Floats,
    Ints,
    best_of_n_curves,
    in_file_order,
    numbered,
    pass_curves,
    picks_along,
    shuffles,
    vote_curves,
    votes_along,
)
from prmkit.records import Record, Scored, StepScores

Sampling = Literal["expected", "first", "shuffled"]
Answers = Literal["equivalent", "text"]


@dataclass(frozen=True, kw_only=True)
class PickSettings:
    """How N of the samples are taken, and which answers are one.

    Attributes:
        sampling: ``expected`` over all subsets of N, exact but for votes; ``first``, the first N
            in the order of the file; ``shuffled``, the mean over shuffles whose first N are
            taken, of which those without a score or an answer are dropped after that, as
            PRM800K's evaluation does with 400 of them.
        answers: ``equivalent`` answers are one, or only those with the same ``text``.
        draws: how many subsets are drawn where some are, and who wins among equals.
    """

    sampling: Sampling = "expected"
    answers: Answers = "equivalent"
    draws: Draws = field(default_factory=Draws)


class Samples(NamedTuple):
    """The samples of P problems, as arrays.

    Attributes:
        problems: their ids.
        correct: [P, n].
        groups: [P, n] the number of the answer; -1 for none.
        there: [P, n] whether there is such a sample; problems may have fewer than others.
    """

    problems: list[str]
    correct: Bools
    groups: Ints
    there: Bools


def samples_of(pools: Sequence[Sequence[Record]], answers: Answers = "equivalent") -> Samples:
    """The samples of each problem, answers grouped.

    Raises:
        NothingToMeasure: if there is no sample, or it is not known which are right.
    """
    n = max((len(pool) for pool in pools), default=0)
    if not n:
        raise NothingToMeasure("there is no sample to measure")
    correct = np.zeros((len(pools), n), dtype=np.bool_)
    groups = np.full((len(pools), n), -1, dtype=np.int64)
    there = np.zeros((len(pools), n), dtype=np.bool_)
    with Checker() as checker:
        for p, pool in enumerate(pools):
            for i, record in enumerate(pool):
                if record.trajectory.correct is None:
                    raise NothingToMeasure(
                        "it is not known whether the solutions of problem "
                        f"{record.trajectory.problem.id!r} are right; compare their answers with "
                        "the reference first"
                    )
                correct[p, i] = record.trajectory.correct
            given = [record.trajectory.answer for record in pool]
            found = checker.group(given) if answers == "equivalent" else numbered(given).tolist()
            groups[p, : len(pool)] = [-1 if g is None else g for g in found]
            there[p, : len(pool)] = True
    return Samples([pool[0].trajectory.problem.id for pool in pools], correct, groups, there)


def usable(scored: Sequence[Scored]) -> list[Aggregation]:
    """The aggregations that make sense for scores: products are of numbers in [0, 1] alone."""
    values = [v for s in scored if isinstance(s, StepScores) for v in s.values]
    odd = any(
        s.semantics in ("advantage", "log_ratio") for s in scored if isinstance(s, StepScores)
    )
    inside = not odd and (not values or 0 <= min(values) <= max(values) <= 1)
    every: tuple[Aggregation, ...] = get_args(Aggregation)
    return [how for how in every if how != "product" or inside]


def aggregated(
    pools: Sequence[Sequence[Scored]], ways: Sequence[Aggregation], n: int
) -> dict[Aggregation, Floats]:
    """[P, n] scores of solutions by aggregation; ``-inf`` where there is none."""
    where, lengths, parts = [], [], []
    for p, pool in enumerate(pools):
        for i, scored in enumerate(pool):
            if isinstance(scored, StepScores) and scored.values:
                where.append(p * n + i)
                lengths.append(len(scored.values))
                parts.append(scored.values)
    flat = np.fromiter((v for part in parts for v in part), dtype=np.float64)
    result = {}
    for how in ways:
        table = np.full(len(pools) * n, -np.inf)
        table[where] = aggregate_flat(flat, np.array(lengths, dtype=np.int64), how)
        result[how] = table.reshape(len(pools), n)
    return result


class PickTable(NamedTuple):
    """For each problem and each N from 1 to n, the chance of a right answer; each [P, n].

    Attributes:
        best: the best scored sample, by aggregation.
        weighted: the vote weighted by scores, by aggregation.
    """

    best: dict[Aggregation, Floats]
    weighted: dict[Aggregation, Floats]


def without_scores(samples: Samples, settings: PickSettings) -> tuple[Floats, Floats]:
    """pass@N and majority@N of each problem and each N; each [P, n]."""
    votes = samples.there.astype(np.float64)[None]
    if settings.sampling == "expected":
        majority = vote_curves(samples.groups, votes, samples.correct, settings.draws)[0]
        return pass_curves(samples.correct), majority
    oracle, majority = np.zeros(samples.correct.shape), np.zeros(samples.correct.shape)
    for p, orders in enumerate(_orders(samples, settings)):
        right = samples.correct[p][orders]
        oracle[p] = np.maximum.accumulate(right, axis=1).mean(axis=0)
        majority[p] = votes_along(
            samples.groups[p], votes[:, p], samples.correct[p], orders, settings.draws.ties
        )[0].mean(axis=0)
    return oracle, majority


def pick_table(
    samples: Samples,
    scored: Sequence[Sequence[Scored]],
    settings: PickSettings,
    ways: Sequence[Aggregation] | None = None,
) -> PickTable:
    """Best-of-N and weighted votes by one judge's scores.

    Args:
        samples: of P problems.
        scored: the judge's scores of each.
        settings: how N of them are taken.
        ways: the aggregations; by default all that make sense.
    """
    flat = [s for pool in scored for s in pool]
    ways = usable(flat) if ways is None else ways
    n = samples.correct.shape[1]
    scores = aggregated(scored, ways, n)
    probabilities = all(
        s.semantics in ("correctness", "value") for s in flat if isinstance(s, StepScores)
    ) and all(table[np.isfinite(table)].min(initial=0.0) >= 0 for table in scores.values())
    stacked = np.stack([scores[how] for how in ways])
    weights = vote_weights(stacked, probabilities)
    if settings.sampling == "expected":
        best = best_of_n_curves(stacked, samples.correct, settings.draws.ties)
        weighted = vote_curves(samples.groups, weights, samples.correct, settings.draws)
    else:
        best, weighted = np.zeros(stacked.shape), np.zeros(stacked.shape)
        if settings.sampling == "shuffled":
            # Dropped after the draw: what has no answer cannot be picked.
            stacked = np.where(samples.groups >= 0, stacked, -np.inf)
        for p, orders in enumerate(_orders(samples, settings)):
            right = samples.correct[p] & samples.there[p]
            for k in range(len(ways)):
                usable_here = right & np.isfinite(stacked[k, p])
                picked = picks_along(stacked[k, p], usable_here, orders, settings.draws.ties)
                best[k, p] = picked.mean(axis=0)
            weighted[:, p] = votes_along(
                samples.groups[p], weights[:, p], right, orders, settings.draws.ties
            ).mean(axis=1)
    return PickTable(dict(zip(ways, best, strict=True)), dict(zip(ways, weighted, strict=True)))


def _orders(samples: Samples, settings: PickSettings) -> list[Ints]:
    n = samples.correct.shape[1]
    if settings.sampling == "first":
        return [in_file_order(n)] * len(samples.problems)
    return [shuffles(n, settings.draws, p) for p in range(len(samples.problems))]


def trial_spread(samples: Samples, scores: Floats, settings: PickSettings) -> tuple[Floats, Floats]:
    """Mean and standard deviation over shuffles of the share of problems answered rightly.

    Both [n], for every N: what PRM800K's evaluation reports.

    Args:
        samples: of P problems.
        scores: [P, n] of solutions; ``-inf`` for none.
        settings: with the number of shuffles.

    Reference: Lightman et al. 2023, arXiv:2305.20050, and prm800k's eval.
    """
    usable_scores = np.where(samples.groups >= 0, scores, -np.inf)
    total = np.zeros((settings.draws.draws, samples.correct.shape[1]))
    for p in range(len(samples.problems)):
        orders = shuffles(samples.correct.shape[1], settings.draws, p)
        right = samples.correct[p] & np.isfinite(usable_scores[p])
        total += picks_along(usable_scores[p], right, orders, settings.draws.ties)
    shares = total / len(samples.problems)
    return shares.mean(axis=0), shares.std(axis=0)


def by_difficulty(samples: Samples) -> dict[str, Ints]:
    """The numbers of the problems in each stratum of difficulty, by the share of right samples."""
    counts = np.maximum(samples.there.sum(axis=1), 1)
    rate = (samples.correct & samples.there).sum(axis=1) / counts
    strata: Mapping[str, Bools] = {
        "never": rate == 0,
        "rarely (below 1/4)": (rate > 0) & (rate < 0.25),
        "sometimes (1/4 to 3/4)": (rate >= 0.25) & (rate <= 0.75),
        "mostly (above 3/4)": (rate > 0.75) & (rate < 1),
        "always": rate == 1,
    }
    return {name: np.flatnonzero(inside) for name, inside in strata.items()}


def shown_numbers(n: int) -> list[int]:
    """1, 2, 4, … and all."""
    return sorted({2**k for k in range(int(math.log2(n)) + 1)} | {n})
