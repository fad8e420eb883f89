"""Are right ones scored above wrong ones?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prmkit.errors import NothingToMeasure


def wins(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Pairs of a right and a wrong one in which the right one is above (ties half), of how many."""
    n_right = int(labels.sum())
    n_pairs = n_right * (len(labels) - n_right)
    if not n_pairs:
        return 0.0, 0
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Mean rank of each group of ties, 1-based: Mann and Whitney's U needs nothing else.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float(ranks[labels].sum() - n_right * (n_right + 1) / 2), n_pairs


def _arrays(
    scores: Sequence[float], labels: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores with {len(labels)} labels; one label per score")
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"score {int(np.argmin(np.isfinite(values)))} is not a finite number")
    return values, np.asarray(labels, dtype=np.bool_)


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The chance that a right one is scored above a wrong one; ties count half.

    Over problems of mixed difficulty this rewards merely knowing which problems are hard: see
    `within_group_auc`.

    Raises:
        NothingToMeasure: if all are right, or all are wrong.
    """
    won, pairs = wins(*_arrays(scores, labels))
    if not pairs:
        raise NothingToMeasure(
            f"an AUC needs right and wrong ones; all of the {len(labels)} are alike"
        )
    return won / pairs


def pr_auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Average precision: the mean, over right ones, of the share of right ones at or above each.

    Equal scores count as one place. Precision is over all items, so the figure depends on how
    many are right: where that is the larger part it says little.

    Raises:
        NothingToMeasure: if none is right.
    """
    values, right = _arrays(scores, labels)
    if not right.any():
        raise NothingToMeasure(f"average precision needs right ones; none of {len(labels)} is")
    _, place, counts = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=right)
    precision = np.cumsum(hits) / np.cumsum(counts)
    return float((hits * precision).sum() / hits.sum())


class WithinGroups(NamedTuple):
    """An AUC over pairs inside of groups.

    Attributes:
        auc: the share of pairs in which the right one is above.
        n_pairs: how many pairs there are.
        n_groups: how many groups have a pair.
    """

    auc: float
    n_pairs: int
    n_groups: int


def within_group_auc(
    scores: Sequence[float], labels: Sequence[bool], groups: Sequence[Hashable]
) -> WithinGroups:
    """The AUC over pairs of the same group, such as two solutions of one problem.

    A model that only knows which problems are hard gets 0.5 here, however high its `roc_auc`.

    Args:
        scores: one per item.
        labels: whether the item is right.
        groups: which group each item is of.

    Raises:
        NothingToMeasure: if no group holds a right and a wrong one.
    """
    values, right = _arrays(scores, labels)
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} scores with {len(groups)} groups; one group per score")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    parts = [wins(values[where], right[where]) for where in members.values()]
    n_pairs = sum(pairs for _, pairs in parts)
    if not n_pairs:
        raise NothingToMeasure(
            f"none of the {len(members)} groups holds both a right and a wrong one"
        )
    won = sum(w for w, _ in parts)
    return WithinGroups(won / n_pairs, n_pairs, sum(pairs > 0 for _, pairs in parts))
