"""Does picking by score beat the first answer, and the vote?

The curves are for P problems with n samples each and give what is to be expected of N of the
samples, for every N from 1 to n at once: ``[..., n]``, where entry N - 1 belongs to N. The
functions named ``…_at_n`` are the same for one problem and one N.

Where no closed form is known (votes), and where a protocol asks for it, subsets are drawn: `Draws`
says how many and from which seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prmkit.errors import NothingToMeasure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Ties = Literal["share", "first"]
"""Who wins among equals: all of them, each with its share; or the first that was seen."""

_SAME = 1e-12
"""Sums of votes that differ by less, relative to themselves, are equal: so do other orders."""
_BLOCK = 4_000_000


def _check(n_samples: int, n: int) -> None:
    if not n_samples:
        raise NothingToMeasure("picking was asked for, but the problem has no sample")
    if not 1 <= n <= n_samples:
        raise ValueError(f"N is {n}; with {n_samples} samples it must be from 1 to {n_samples}")


def chance_inside(n_samples: int) -> Floats:
    """[n + 1, n]: entry (m, N - 1) is C(m, N) / C(n, N): all N of n fall into m given ones."""
    m, i = np.arange(n_samples + 1)[:, None], np.arange(n_samples)[None]
    chances: Floats = np.cumprod(np.maximum(m - i, 0) / (n_samples - i), axis=1)
    return chances


def pass_curves(correct: Bools) -> Floats:
    """The chance that one of N samples is right: 1 - C(n-c, N) / C(n, N).

    Args:
        correct: [P, n].

    Returns:
        [P, n].

    Reference: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    wrong = correct.shape[1] - correct.sum(axis=1)
    curves: Floats = 1 - chance_inside(correct.shape[1])[wrong]
    return curves


def best_of_n_curves(scores: Floats, correct: Bools, ties: Ties = "share") -> Floats:
    """The chance that the best scored of N samples is right; exact.

    Sorted from the best, a group of equal scores on ranks a..b holds the pick with probability
    [C(n-a+1, N) - C(n-b, N)] / C(n, N), and is right with its mean correctness. Scores are equal
    where their floating-point numbers are.

    Args:
        scores: [..., P, n], higher is better; an unscored sample is ``-inf``, and is never picked
            before a scored one.
        correct: [P, n].
        ties: ``share``, or ``first``: of equals the one that comes first among the n.

    Returns:
        [..., P, n].
    """
    n = scores.shape[-1]
    order = np.argsort(-scores, axis=-1, kind="stable")
    values = np.take_along_axis(scores, order, axis=-1).reshape(-1, n)
    right = np.take_along_axis(np.broadcast_to(correct, scores.shape), order, axis=-1)
    right = right.reshape(-1, n).astype(np.float64)
    begins = np.ones(values.shape, dtype=np.bool_)
    if ties == "share":
        begins[:, 1:] = values[:, 1:] != values[:, :-1]
    row, start = np.nonzero(begins)
    end = np.append(start[1:], n)
    end[np.append(row[1:] != row[:-1], True)] = n
    before = np.concatenate([np.zeros((len(values), 1)), np.cumsum(right, axis=1)], axis=1)
    mean = (before[row, end] - before[row, start]) / (end - start)
    # Telescoping: each group adds its mean to the chance that all N fall behind its begin.
    share = np.zeros((len(values), n + 1))
    np.add.at(share, (row, n - start), mean)
    np.add.at(share, (row, n - end), -mean)
    curves: Floats = (share @ chance_inside(n)).reshape(scores.shape)
    return np.clip(curves, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How subsets of N of n samples are drawn.

    Attributes:
        draws: subsets of each problem, each a shuffle whose first N are taken, for every N.
        seed: what they are drawn from.
        ties: who wins among equals.
    """

    draws: int = 200
    seed: int = 0
    ties: Ties = "share"


def shuffles(n_samples: int, draws: Draws, problem: int = 0) -> Ints:
    """[draws, n] orders of the samples of a problem."""
    rng = np.random.default_rng([draws.seed, problem])
    return rng.random((draws.draws, n_samples)).argsort(axis=1)


def in_file_order(n_samples: int) -> Ints:
    """[1, n]: for the protocol of those who take the first N samples as they come."""
    return np.arange(n_samples)[None]


def picks_along(scores: Floats, correct: Bools, orders: Ints, ties: Ties = "first") -> Floats:
    """Whether the best scored of the first N of each order is right.

    Args:
        scores: [n] of one problem.
        correct: [n].
        orders: [D, n].
        ties: ``first``, of equals the first seen; or ``share``, their mean correctness.

    Returns:
        [D, n].
    """
    drawn = scores[orders]
    highest = np.maximum.accumulate(drawn, axis=1)
    rises = np.ones(drawn.shape, dtype=np.bool_)
    rises[:, 1:] = drawn[:, 1:] > highest[:, :-1]
    place = np.maximum.accumulate(np.where(rises, np.arange(drawn.shape[1]), 0), axis=1)
    right = correct[orders].astype(np.float64)
    if ties == "first":
        picked: Floats = np.take_along_axis(right, place, axis=1)
        return picked
    # Sums since the last rise, of those that are as high.
    as_high = drawn == highest
    sums = np.stack([np.cumsum(as_high * right, axis=1), np.cumsum(as_high, axis=1)])
    before = np.concatenate([np.zeros((2, len(drawn), 1)), sums], axis=2)
    hits, n = sums - np.take_along_axis(before, np.stack([place, place]), axis=2)
    shared: Floats = hits / n
    return shared


def votes_along(
    groups: Ints, weights: Floats, correct: Bools, orders: Ints, ties: Ties = "share"
) -> Floats:
    """Whether the answer with the largest sum of weights in the first N of each order is right.

    Args:
        groups: [n] which answer each sample of one problem gives; -1 for none, which has no vote.
        weights: [K, n] of each vote, 0 or more, in K ways.
        correct: [n].
        orders: [D, n].
        ties: who wins among equals.

    Returns:
        [K, D, n]; an answer is right with the mean correctness of its samples.
    """
    n, n_groups = len(groups), int(groups.max(initial=-1)) + 1
    result = np.zeros((len(weights), *orders.shape))
    if not n_groups:
        return result
    votes_for = np.zeros((n, n_groups))
    votes_for[np.arange(n)[groups >= 0], groups[groups >= 0]] = 1.0
    right = (correct @ votes_for) / votes_for.sum(axis=0)
    step = max(1, _BLOCK // (n * n_groups))
    for at in range(0, len(orders), step):
        some = orders[at : at + step]
        drawn = votes_for[some]
        seen = None
        if ties == "first":
            seen = np.where(drawn.any(axis=1), drawn.argmax(axis=1), n)
        for k, weight in enumerate(weights):
            tally = np.cumsum(drawn * weight[some][..., None], axis=1)
            result[k, at : at + step] = _won(tally, right, seen)
    return result


def _won(tally: Floats, right: Floats, seen: Ints | None) -> Floats:
    """[D, n] of [D, n, G] tallies: the correctness of the answer that has most."""
    best = tally.max(axis=2, keepdims=True)
    tied = (tally > 0) & (tally >= best * (1 - _SAME))
    if seen is not None:
        first = np.where(tied, seen[:, None], tally.shape[1] + 1)
        tied &= first == first.min(axis=2, keepdims=True)
    won: Floats = (tied @ right) / np.maximum(tied.sum(axis=2), 1)
    return won


def vote_curves(groups: Ints, weights: Floats, correct: Bools, draws: Draws) -> Floats:
    """The chance that the answer with the largest sum of weights among N samples is right.

    With N = 1 and N = n it is exact; between them it is a mean over draws. The draws of a problem
    are the same for all weights, so differences between them are paired.

    Args:
        groups: [P, n] see `votes_along`.
        weights: [K, P, n].
        correct: [P, n].
        draws: how subsets are drawn.

    Returns:
        [K, P, n].
    """
    curves = np.zeros(weights.shape)
    n = groups.shape[1]
    for p, (group, right) in enumerate(zip(groups, correct, strict=True)):
        of_problem = weights[:, p]
        if group[0] >= 0 and (group == group[0]).all() and (of_problem > 0).all():
            curves[:, p] = right.mean()
            continue
        orders = shuffles(n, draws, p)
        curves[:, p] = votes_along(group, of_problem, right, orders, draws.ties).mean(axis=1)
        if draws.ties == "first":
            whole = votes_along(group, of_problem, right, in_file_order(n), draws.ties)
            curves[:, p, -1] = whole[:, 0, -1]
        alone = votes_along(group, of_problem, right, np.arange(n)[:, None], draws.ties)
        curves[:, p, 0] = alone[:, :, 0].mean(axis=1)
    return curves


def pass_at_n(correct: Sequence[bool], n: int) -> float:
    """The chance that one of N samples is right; see `pass_curves`."""
    _check(len(correct), n)
    return float(pass_curves(np.asarray(correct, dtype=np.bool_)[None])[0, n - 1])


def best_of_n(scores: Sequence[float], correct: Sequence[bool], n: int) -> float:
    """The chance that the best scored of N samples is right; see `best_of_n_curves`.

    Args:
        scores: one per sample; an unscored sample is ``-inf``.
        correct: whether each is right.
        n: N.
    """
    _check(len(scores), n)
    if len(scores) != len(correct):
        raise ValueError(f"{len(scores)} scores with {len(correct)} outcomes; one per sample")
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"score {int(np.argmax(np.isnan(values)))} is not a number")
    right = np.asarray(correct, dtype=np.bool_)
    return float(best_of_n_curves(values[None], right[None])[0, n - 1])


def majority_at_n(
    answers: Sequence[Hashable | None],
    correct: Sequence[bool],
    n: int,
    draws: Draws | None = None,
) -> float:
    """The chance that the most frequent answer of N samples is right; see `vote_curves`.

    Args:
        answers: in a canonical form, so that equal answers are equal objects; None for none.
        correct: whether each sample is right.
        n: N.
        draws: how subsets are drawn where 1 < N < n.
    """
    return weighted_vote_at_n(answers, [1.0] * len(answers), correct, n, draws)


def weighted_vote_at_n(
    answers: Sequence[Hashable | None],
    weights: Sequence[float],
    correct: Sequence[bool],
    n: int,
    draws: Draws | None = None,
) -> float:
    """The chance that the answer with the largest sum of weights among N samples is right.

    Args:
        answers: in a canonical form, so that equal answers are equal objects; None for none.
        weights: of each vote, 0 or more; an unscored sample has weight 0.
        correct: whether each sample is right.
        n: N.
        draws: how subsets are drawn where 1 < N < n.

    Raises:
        ValueError: if a weight is negative: log-ratios need a map to weights first.
    """
    _check(len(answers), n)
    if not len(answers) == len(weights) == len(correct):
        raise ValueError(
            f"{len(answers)} answers, {len(weights)} weights and {len(correct)} outcomes; "
            "one of each per sample"
        )
    values = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        bad = int(np.argmin(np.isfinite(values) & (values >= 0)))
        raise ValueError(f"the weight of vote {bad} is {weights[bad]!r}; it must be 0 or more")
    right = np.asarray(correct, dtype=np.bool_)
    curves = vote_curves(numbered(answers)[None], values[None, None], right[None], draws or Draws())
    return float(curves[0, 0, n - 1])


def numbered(answers: Sequence[Hashable | None]) -> Ints:
    """[n] a number for each different answer, in the order of their coming; -1 for none."""
    numbers: dict[Hashable, int] = {}
    return np.array(
        [-1 if a is None else numbers.setdefault(a, len(numbers)) for a in answers], dtype=np.int64
    )
