"""Does picking by score beat the first answer, and the vote?

Each estimator is for one problem with n samples, and asks what is to be expected of N of them,
drawn without putting back. A mean over problems is the caller's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from prmkit.errors import NothingToMeasure


def _check(n_samples: int, n: int) -> None:
    if not n_samples:
        raise NothingToMeasure("picking was asked for, but the problem has no sample")
    if not 1 <= n <= n_samples:
        raise ValueError(f"N is {n}; with {n_samples} samples it must be from 1 to {n_samples}")


def pass_at_n(correct: Sequence[bool], n: int) -> float:
    """The chance that one of N samples is right: 1 - C(n-c, N) / C(n, N).

    Reference: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    _check(len(correct), n)
    return 1 - comb(len(correct) - sum(map(bool, correct)), n) / comb(len(correct), n)


def best_of_n(scores: Sequence[float], correct: Sequence[bool], n: int) -> float:
    """The chance that the best scored of N samples is right; exact, ties shared evenly.

    Sorted from the best, a group of equal scores on ranks a..b holds the pick with probability
    [C(n-a+1, N) - C(n-b, N)] / C(n, N), and is right with its mean correctness.

    Args:
        scores: one per sample, higher is better; an unscored sample is never picked before a
            scored one: give it ``-inf``.
        correct: whether each is right.
        n: N.
    """
    _check(len(scores), n)
    if len(scores) != len(correct):
        raise ValueError(f"{len(scores)} scores with {len(correct)} outcomes; one per sample")
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"score {int(np.argmax(np.isnan(values)))} is not a number")
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=np.asarray(correct, dtype=np.float64)) / sizes
    ends = np.cumsum(sizes)
    total = len(values)
    ways = sum(
        (comb(total - int(end - size), n) - comb(total - int(end), n)) * float(mean)
        for end, size, mean in zip(ends, sizes, means, strict=True)
    )
    return ways / comb(total, n)


@dataclass(frozen=True, kw_only=True)
class VoteSettings:
    """How votes over N of n samples are estimated; with N = n and N = 1 they are exact.

    Attributes:
        draws: subsets of N that are drawn.
        seed: what they are drawn from.
    """

    draws: int = 200
    seed: int = 0


def majority_at_n(
    answers: Sequence[Hashable | None],
    correct: Sequence[bool],
    n: int,
    settings: VoteSettings | None = None,
) -> float:
    """The chance that the most frequent answer of N samples is right.

    Answers that tie share the choice evenly. A sample without an answer does not vote.

    Args:
        answers: in a canonical form, so that equal answers are equal objects; None for none.
        correct: whether each sample is right.
        n: N.
        settings: how subsets are drawn where 1 < N < n.
    """
    return weighted_vote_at_n(answers, [1.0] * len(answers), correct, n, settings)


def weighted_vote_at_n(
    answers: Sequence[Hashable | None],
    weights: Sequence[float],
    correct: Sequence[bool],
    n: int,
    settings: VoteSettings | None = None,
) -> float:
    """The chance that the answer with the largest sum of weights among N samples is right.

    Args:
        answers: in a canonical form, so that equal answers are equal objects; None for none.
        weights: of each vote, 0 or more; an unscored sample has weight 0.
        correct: whether each sample is right.
        n: N.
        settings: how subsets are drawn where 1 < N < n.

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
    votes, right = _votes(answers, values, np.asarray(correct, dtype=np.float64))
    if not votes.shape[1]:
        return 0.0
    settings = settings or VoteSettings()
    subsets = _subsets(len(answers), n, settings)
    tally = votes[subsets].sum(axis=1)
    taken = (votes[subsets] > 0).any(axis=1)
    best = tally.max(axis=1, keepdims=True)
    # Sums of equal weights in another order differ in the last bits.
    tied = taken & np.isclose(tally, best, rtol=1e-12, atol=0)
    share = tied / np.maximum(tied.sum(axis=1, keepdims=True), 1)
    return float((share * right).sum(axis=1).mean())


def _votes(
    answers: Sequence[Hashable | None],
    weights: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """[n, G] weight that each sample gives each answer, and [G] mean correctness of answers."""
    numbers: dict[Hashable, int] = {}
    which = [-1 if a is None else numbers.setdefault(a, len(numbers)) for a in answers]
    votes = np.zeros((len(answers), len(numbers)))
    right = np.zeros(len(numbers))
    for index, group in enumerate(which):
        if group >= 0:
            votes[index, group] = weights[index]
            right[group] += correct[index]
    return votes, right / np.bincount([w for w in which if w >= 0], minlength=len(numbers))


def _subsets(n_samples: int, n: int, settings: VoteSettings) -> npt.NDArray[np.int64]:
    """[draws, N] indices of samples; all subsets where that is no work."""
    if n == n_samples:
        return np.arange(n_samples)[None]
    if n == 1:
        return np.arange(n_samples)[:, None]
    rng = np.random.default_rng(settings.seed)
    return rng.random((settings.draws, n_samples)).argsort(axis=1)[:, :n]
