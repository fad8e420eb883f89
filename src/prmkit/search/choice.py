"""The final answer of a search: a vote of its candidates, or the best of them.

A weighted vote gives every candidate the weight of its score and every answer the sum of its
candidates' weights (arXiv:2305.20050, arXiv:2408.03314); answers are one where they are
mathematically equal. What is no whole solution has no vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prmkit.aggregate import vote_weights
from prmkit.records import Semantics
from prmkit.search.requests import Pool
from prmkit.search.settings import Choice
from prmkit.search.tree import Node


class Chosen(NamedTuple):
    """What was chosen.

    Attributes:
        node: the solution; None where no candidate is one.
        candidates: the whole solutions that were there to choose from.
        weights: of their votes.
        share: of all votes, those for the answer; None where nothing voted.
    """

    node: Node | None
    candidates: tuple[Node, ...]
    weights: tuple[float, ...]
    share: float | None


def choose(
    pool: Pool,
    how: Choice,
    value: Callable[[Node], float],
    answers: Callable[[Sequence[Node]], list[int | None]],
    semantics: Semantics,
) -> Chosen:
    """Choose one candidate.

    Args:
        pool: what a search ended with.
        how: ``weighted``: by the votes' weights, of the algorithm or of the scores, and by
            majority where there are none; ``majority``: one candidate, one vote; ``best``: the
            best candidate, without a vote; ``algorithm``: as the algorithm says, by weight where
            it says nothing. Of equal ones, the first.
        value: of a node, minus infinity where it has none.
        answers: classes of equal answers; candidates without one have no vote.
        semantics: of the scores.
    """
    keep = [i for i, node in enumerate(pool.nodes) if node.is_finished]
    nodes = [pool.nodes[i] for i in keep]
    if not nodes:
        return Chosen(None, (), (), None)
    values = np.array([value(node) for node in nodes])
    if how == "majority":
        weights = np.ones(len(nodes))
    elif pool.weights is not None:
        weights = np.array([pool.weights[i] for i in keep])
    elif np.isfinite(values).any():
        weights = vote_weights(values, semantics in ("correctness", "value"))
    else:
        weights = np.ones(len(nodes))
    shown = tuple(weights.tolist())
    if how == "algorithm" and pool.chosen is not None:
        return Chosen(pool.chosen, tuple(nodes), shown, None)
    classes = answers(nodes)
    voters = [i for i, own in enumerate(classes) if own is not None]
    total = float(weights[voters].sum()) if voters else 0.0
    if how == "best" or not voters:
        at = int(values.argmax())
    else:
        if total <= 0:
            # Every vote weighs nothing, so each counts alike.
            weights = np.ones(len(nodes))
            total = float(len(voters))
        tally: dict[int, float] = {}
        for i in voters:
            own = classes[i]
            assert own is not None
            tally[own] = tally.get(own, 0.0) + float(weights[i])
        winner = max(tally, key=lambda own: tally[own])
        at = max((i for i in voters if classes[i] == winner), key=lambda i: (values[i], -i))
    own = classes[at]
    mine = float(sum(weights[i] for i in voters if classes[i] == own)) if own is not None else 0.0
    return Chosen(nodes[at], tuple(nodes), shown, mine / total if total > 0 else None)
