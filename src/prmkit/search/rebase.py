"""REBASE: a level's width is shared out among its nodes by a softmax of their scores.

Reference: Wu et al. 2024, arXiv:2408.00724, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prmkit.errors import InvalidSetting
from prmkit.search.requests import Pool, Scene, Search, best, expand, note, usable
from prmkit.search.tree import Node
from prmkit.settings import above, at_least

Sharing = Literal["largest_remainder", "ceiling"]


def rebase(
    scene: Scene,
    *,
    n: int = 16,
    max_steps: int = 40,
    balance: float = 0.2,
    sharing: Sharing = "largest_remainder",
) -> Search:
    """Draw n steps a level, shared out by the scores of the nodes they continue.

    A solution that ends takes one off the width, as in the paper.

    Args:
        scene: the run.
        n: steps of the first level.
        max_steps: levels at most; then what is open is drawn to its end.
        balance: temperature of the softmax; the lower, the more goes to the best.
        sharing: how the shares become whole numbers: so that they differ from the exact ones by
            less than 1 (largest_remainder), or rounded up from the best down, until the width is
            spent (ceiling), as the authors' code does.
    """
    at_least(1, n=n, max_steps=max_steps)
    above(0, balance=balance)
    if sharing not in ("largest_remainder", "ceiling"):
        raise InvalidSetting(f"sharing is {sharing!r}; it is largest_remainder or ceiling")
    nodes, counts, done = [scene.root], [n], list[Node]()
    for _ in range(max_steps):
        children = usable((yield from expand(nodes, counts, score=True)))
        done += [child for child in children if child.is_finished]
        alive = [child for child in children if child.is_open]
        width = n - len(done)
        if not alive or width <= 0:
            return Pool(tuple(done), chosen=best(scene, done))
        shares = shared(width, [scene.value(child) for child in alive], balance, sharing)
        nodes = [child for child, share in zip(alive, shares, strict=True) if share]
        counts = [share for share in shares if share]
        yield from note("share", paths=[list(x.path) for x in nodes], counts=counts)
    done += usable((yield from expand(nodes, counts, whole=True, score=True)))
    return Pool(tuple(done), chosen=best(scene, done))


def shared(width: int, values: Sequence[float], balance: float, sharing: Sharing) -> list[int]:
    """A width shared out by softmax(value / balance).

    Args:
        width: to be shared out; all of it is.
        values: [N]; minus infinity for a node without a score, which gets nothing unless all are.
        balance: the temperature.
        sharing: see `rebase`.

    Returns:
        [N] whole numbers that add up to the width.
    """
    scores = np.array(values, dtype=np.float64)
    if not np.isfinite(scores).any():
        scores = np.zeros(len(scores))
    weights = np.exp((scores - scores.max()) / balance)
    if sharing == "ceiling":
        return _rounded_up(width, weights)
    exact = width * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    # The largest remainders, of equal ones the first.
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: width - counts.sum()]] += 1
    return [int(c) for c in counts]


def _rounded_up(width: int, weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    """From the best down, each the ceiling of its share of what is left."""
    counts = [0] * len(weights)
    left, total = width, float(weights.sum())
    for i in np.argsort(-weights, kind="stable"):
        if left <= 0 or total <= 0:
            break
        counts[i] = min(left, math.ceil(left * weights[i] / total - 1e-12))
        left -= counts[i]
        total -= float(weights[i])
    return counts
