"""Self-consistency that stops when the vote is settled.

Reference: Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860, section 3: sampling goes on
until the most frequent answer is, under a Beta posterior of the two most frequent ones, more
frequent than the second with enough probability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

from prmkit.errors import InvalidSetting
from prmkit.search.requests import Pool, Scene, Search, expand, votes_count
from prmkit.search.tree import Node
from prmkit.settings import at_least


def adaptive_self_consistency(
    scene: Scene, *, n: int = 16, at_once: int = 2, sure: float = 0.95
) -> Search:
    """Draw solutions until the vote is settled, n at most; nothing is scored.

    Args:
        scene: the run.
        n: solutions at most.
        at_once: solutions that are drawn before the vote is looked at again.
        sure: the probability that the leader stays the leader at which it is settled.
    """
    at_least(1, n=n, at_once=at_once)
    if not 0.5 < sure < 1:
        raise InvalidSetting(f"sure is {sure!r}; it must be above 0.5 and below 1")
    votes_count(scene)
    drawn: list[Node] = []
    while len(drawn) < n:
        (more,) = yield from expand([scene.root], min(at_once, n - len(drawn)), whole=True)
        drawn += more
        finished = [node for node in drawn if node.is_finished]
        if lead(scene.answers(finished)) >= sure:
            break
    return Pool(tuple(drawn), weights=(1.0,) * len(drawn))


def lead(answers: Sequence[int | None]) -> float:
    """How likely the most frequent answer is more frequent than the second, were more drawn.

    Args:
        answers: classes of equal answers; None, no answer, is no vote.

    Returns:
        P(p > 1/2) of p ~ Beta(first + 1, second + 1).
    """
    votes = Counter(answer for answer in answers if answer is not None).most_common(2)
    first, second = [n for _, n in votes] + [0] * (2 - len(votes))
    return beta_above_half(first, second)


def beta_above_half(a: int, b: int) -> float:
    """P(p > 1/2) of p ~ Beta(a + 1, b + 1): at most a heads in a + b + 1 throws of a fair coin."""
    n = a + b + 1
    return sum(comb(n, k) for k in range(a + 1)) / (1 << n)
