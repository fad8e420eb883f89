"""Does a score of 0.8 mean right four times of five?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prmkit.errors import NothingToMeasure


class Bin(NamedTuple):
    """Scores in one interval.

    Attributes:
        low: where it begins, inclusive.
        high: where it ends, exclusive but for the last.
        n: scores in it.
        mean_score: of them; None where there is none.
        share_right: of them; None where there is none.
    """

    low: float
    high: float
    n: int
    mean_score: float | None
    share_right: float | None


class Calibration(NamedTuple):
    """How far scores are from frequencies.

    Attributes:
        expected_error: the expected calibration error: the mean over scores of the distance
            between the mean score of their bin and the share of right ones in it.
        brier: the mean squared distance between a score and its outcome (Brier 1950).
        bins: of equal width.
    """

    expected_error: float
    brier: float
    bins: tuple[Bin, ...]


def calibration(scores: Sequence[float], labels: Sequence[bool], n_bins: int = 10) -> Calibration:
    """Measure the calibration of probabilities.

    Args:
        scores: probabilities in [0, 1].
        labels: whether each item is right.
        n_bins: bins of equal width.

    Raises:
        NothingToMeasure: if there is no score.

    Reference: Guo et al. 2017, arXiv:1706.04599, eq. 3 and 5.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores with {len(labels)} labels; one label per score")
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins!r}; at least 1 is needed")
    if not len(scores):
        raise NothingToMeasure("calibration was asked for, but there is no score")
    values = np.asarray(scores, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        bad = int(np.argmin((values >= 0) & (values <= 1)))
        raise ValueError(f"score {bad} is {scores[bad]!r}; calibration needs probabilities")
    right = np.asarray(labels, dtype=np.float64)
    which = np.minimum((values * n_bins).astype(int), n_bins - 1)
    bins, gaps = [], 0.0
    for index in range(n_bins):
        inside = which == index
        n = int(inside.sum())
        mean = float(values[inside].mean()) if n else None
        share = float(right[inside].mean()) if n else None
        bins.append(Bin(index / n_bins, (index + 1) / n_bins, n, mean, share))
        if mean is not None and share is not None:
            gaps += n * abs(mean - share)
    brier = float(((values - right) ** 2).mean())
    return Calibration(gaps / len(values), brier, tuple(bins))


Floats = npt.NDArray[np.float64]


def calibration_sums(
    scores: Floats,
    right: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    n_groups: int,
    n_bins: int = 10,
) -> tuple[Floats, Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """What `calibration` sums, by group of items, so that a bootstrap can weight the groups.

    Args:
        scores: [n] in [0, 1].
        right: [n].
        groups: [n] the group of each item, below G.
        n_groups: G.
        n_bins: bins of equal width.

    Returns:
        [G, 3 bins + 1] sums; and how [B, 3 bins + 1] weighted sums become the expected error and
        the Brier score.
    """
    which = np.minimum((scores * n_bins).astype(np.int64), n_bins - 1)
    cell = groups * n_bins + which
    size = n_groups * n_bins
    columns = [
        np.bincount(cell, weights=weights, minlength=size).reshape(n_groups, n_bins)
        for weights in (np.ones(len(scores)), scores, right.astype(np.float64))
    ]
    squares = np.bincount(groups, weights=(scores - right) ** 2, minlength=n_groups)
    sums = np.concatenate([*columns, squares[:, None]], axis=1)

    def expected(weighted: Floats) -> Floats:
        n, total, hits = np.split(weighted[:, :-1], 3, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            error: Floats = np.abs(total - hits).sum(axis=1) / n.sum(axis=1)
        return error

    def brier(weighted: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            score: Floats = weighted[:, -1] / weighted[:, :n_bins].sum(axis=1)
        return score

    return sums, expected, brier
