"""Whole solutions, one beside the other."""

from __future__ import annotations

from prmkit.search.requests import Pool, Scene, Search, best, expand, votes_count
from prmkit.settings import at_least


def greedy(scene: Scene) -> Search:
    """The likeliest text, token by token: what all else is measured against."""
    ((only,),) = yield from expand([scene.root], 1, whole=True, temperature=0.0)
    return Pool((only,))


def best_of_n(scene: Scene, *, n: int = 16) -> Search:
    """Draw n solutions, score them, and take the best (arXiv:2110.14168, section 3.2).

    With the choice ``weighted`` it is the weighted best-of-N of arXiv:2305.20050 and 2408.03314.

    Args:
        scene: the run.
        n: solutions.
    """
    at_least(1, n=n)
    (drawn,) = yield from expand([scene.root], n, whole=True, score=True)
    return Pool(tuple(drawn), chosen=best(scene, drawn))


def majority(scene: Scene, *, n: int = 16) -> Search:
    """Draw n solutions and take the answer that most of them give (arXiv:2203.11171).

    Nothing is scored.

    Args:
        scene: the run.
        n: solutions.
    """
    at_least(1, n=n)
    votes_count(scene)
    (drawn,) = yield from expand([scene.root], n, whole=True)
    return Pool(tuple(drawn), weights=(1.0,) * len(drawn))
