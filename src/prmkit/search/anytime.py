"""What a search would have answered had it been stopped earlier, from its trace.

A search has an answer at every moment: the choice among the whole solutions that are there and
scored. So one run tells of all smaller budgets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prmkit.policies.sampling import Judge, Outcome
from prmkit.records import Semantics
from prmkit.search.choice import choose
from prmkit.search.replay import Recorded, scores_so_far
from prmkit.search.requests import Pool
from prmkit.search.settings import SearchSettings
from prmkit.search.tree import Node

Floats = npt.NDArray[np.float64]


def settings_of(search: Recorded) -> SearchSettings:
    """The settings that a search ran with."""
    given = search.about["settings"]
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return SearchSettings(**kept)


class Moment(NamedTuple):
    """The state of a search when its answer may have changed.

    Attributes:
        tokens: of policy and scorer, spent up to here.
        seconds: since it began.
        correct: whether the answer that it would give is right.
        oracle: whether any whole solution is right.
    """

    tokens: int
    seconds: float
    correct: bool
    oracle: bool


def moments(
    search: Recorded,
    settings: SearchSettings,
    judge: Judge,
    group: Callable[[Sequence[str | None]], list[int | None]],
) -> list[Moment]:
    """The moments of a search, in order; the last is its end, with the choice that it made.

    Args:
        search: from `prmkit.search.replay.recorded`.
        settings: how to choose.
        judge: the answer of a solution, and whether it is right.
        group: classes of equal answers.
    """
    outcomes: dict[tuple[int, ...], Outcome] = {}
    semantics: Semantics = search.about.get("semantics") or "correctness"

    def value(node: Node) -> float:
        found = node.value(settings.aggregation, semantics)
        return float("-inf") if found is None else found

    def answers(nodes: Sequence[Node]) -> list[int | None]:
        return group([outcomes[node.path].answer for node in nodes])

    found: list[Moment] = []
    for tokens, seconds, nodes in scores_so_far(search):
        for node in nodes:
            if node.path not in outcomes:
                outcomes[node.path] = search.outcome(node, judge)
        chosen = choose(Pool(tuple(nodes)), settings.choice, value, answers, semantics)
        correct = chosen.node is not None and bool(outcomes[chosen.node.path].correct)
        oracle = any(bool(outcomes[node.path].correct) for node in nodes)
        found.append(Moment(tokens, seconds, correct, oracle))
    if search.end is not None:
        oracle = found[-1].oracle if found else False
        total = search.cost.tokens
        right = bool(search.end["correct"])
        found.append(Moment(total, float(search.end["t"]), right, oracle))
    return found


def at(moments: Sequence[Moment], points: Sequence[float], of: str, what: str) -> Floats:
    """[len(points)] whether the answer was right at each amount spent; 0 before the first.

    Args:
        moments: of one search.
        points: amounts, rising.
        of: ``tokens`` or ``seconds``.
        what: ``correct`` or ``oracle``.
    """
    order = sorted(moments, key=lambda moment: float(getattr(moment, of)))
    spent = np.array([getattr(moment, of) for moment in order], dtype=np.float64)
    right = np.array([0.0, *(float(getattr(moment, what)) for moment in order)])
    # Events of one call come at once: the last of them counts.
    found: Floats = right[np.searchsorted(spent, np.asarray(points, dtype=np.float64), "right")]
    return found
