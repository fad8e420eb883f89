"""Search that spends where it is not sure, and stops when it is.

After each few solutions it asks how likely each answer is the right one, given what the scorer says
of the solutions and how they agree (`posterior`). Settled problems end there. Of the others, more
is drawn: whole solutions from the beginning, or, where a solution goes wrong late, only its end
again, from before the step where its score falls. Which of the two pays is found out as it goes:
whichever has made better solutions of the tokens it took is drawn next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prmkit.errors import InvalidSetting, SearchError
from prmkit.search.requests import Pool, Scene, Search, Steps, best, cut, expand, note, votes_count
from prmkit.search.tree import Node
from prmkit.settings import above, at_least

FAR = 0.999
"""No single score is believed further than this, or than 1 minus this."""


@dataclass
class _Way:
    """What a way of drawing solutions has brought.

    Attributes:
        drawn: solutions.
        worth: the sum of their scores.
        tokens: spent on them.
    """

    drawn: int = 0
    worth: float = 0.0
    tokens: int = 0

    def rate(self) -> float:
        """Worth for a token; a way that was not tried is worth trying."""
        return math.inf if not self.drawn else self.worth / max(self.tokens, 1)


def adaptive(
    scene: Scene,
    *,
    n: int = 16,
    start: int = 2,
    at_once: int = 2,
    sure: float = 0.95,
    trust: float = 1.0,
    agreement: float = 0.1,
    repair: float = 0.0,
) -> Search:
    """Draw solutions until the answer is settled, n at most, or as far as the budget goes.

    Args:
        scene: the run.
        n: solutions at most.
        start: solutions before the first look.
        at_once: solutions between looks.
        sure: the probability of an answer at which it is settled.
        trust: in the scorer: its log-odds are multiplied by it; 0 leaves the votes alone.
        agreement: how likely two wrong solutions agree on an answer.
        repair: a solution is drawn again from before the first step whose score is below this; 0
            for never. It saves tokens, and keeps mistakes that the scorer did not see.
    """
    at_least(1, n=n, start=start, at_once=at_once)
    at_least(0, trust=trust)
    above(0, agreement=agreement)
    for name, value in (("sure", sure), ("agreement", agreement), ("repair", repair)):
        if not 0 <= value < 1:
            raise InvalidSetting(f"{name} is {value!r}; it must be at least 0 and below 1")
    votes_count(scene)
    if repair and scene.acts:
        raise SearchError(
            "repair draws the end of a solution again, and an episode is drawn turn by turn; "
            "leave repair at 0"
        )
    fresh, again = _Way(), _Way()
    drawn: list[Node] = []
    cuts: dict[tuple[str, ...], Node] = {}
    beliefs: tuple[list[float], float] = ([], 1.0)
    while len(drawn) < n and (not drawn or max(beliefs[0], default=0.0) < sure):
        count = min(at_once if drawn else start, n - len(drawn))
        place = _to_repair(scene, drawn, repair)
        way = again if place is not None and again.rate() > fresh.rate() else fresh
        node = scene.root
        if place is not None and way is again:
            node = yield from _cut_once(cuts, *place)
        before = scene.spent().tokens
        (more,) = yield from expand([node], count, whole=True, score=True)
        way.drawn += count
        way.tokens += scene.spent().tokens - before
        way.worth += sum(_likely(scene, x) for x in more if x.is_finished)
        drawn += more
        finished = [x for x in drawn if x.is_finished]
        classes = scene.answers(finished)
        scores = [_likely(scene, x) for x in finished]
        beliefs = posterior(classes, scores, trust, agreement)
        yield from note(
            "belief",
            drawn=len(drawn),
            way="again" if way is again else "fresh",
            most=round(max(beliefs[0], default=0.0), 6),
            none=round(beliefs[1], 6),
        )
    # Beliefs tell when to stop; for the choice itself, votes by scores are more robust.
    finished = [x for x in drawn if x.is_finished]
    return Pool(tuple(finished), chosen=best(scene, finished))


def posterior(
    classes: Sequence[int | None], scores: Sequence[float], trust: float, agreement: float
) -> tuple[list[float], float]:
    """How likely each answer is the right one, and how likely none of them is.

    If an answer is right, its solutions are right and all others are wrong; the scorer says of
    each how likely that is, and wrong solutions agree with each other by chance:

        P(a) ~ prod over i in a of v_i, prod over others of (1 - v_i), prod over other answers b of
        agreement ** (n_b - 1)

    and the same for none, without an a. v_i is the score with its log-odds times `trust`.

    Args:
        classes: [N] of equal answers, from 0; None for a solution without one.
        scores: [N] in [0, 1].
        trust: see `adaptive`.
        agreement: in (0, 1).

    Returns:
        [classes] probabilities, and that of none; they add up to 1.
    """
    logs_right, logs_wrong = [], []
    for v in scores:
        v = min(max(v, 1 - FAR), FAR)
        odds = trust * math.log(v / (1 - v))
        logs_right.append(-math.log1p(math.exp(-odds)))
        logs_wrong.append(-math.log1p(math.exp(odds)))
    n_classes = max((c for c in classes if c is not None), default=-1) + 1
    counts = [sum(c == a for c in classes) for a in range(n_classes)]
    chance = [(n - 1) * math.log(agreement) for n in counts]
    nothing = sum(logs_wrong) + sum(chance)
    logs = [
        nothing
        - chance[a]
        + sum(r - w for c, r, w in zip(classes, logs_right, logs_wrong, strict=True) if c == a)
        for a in range(n_classes)
    ]
    highest = max([*logs, nothing])
    total = sum(math.exp(x - highest) for x in (*logs, nothing))
    return [math.exp(x - highest) / total for x in logs], math.exp(nothing - highest) / total


def _cut_once(cuts: dict[tuple[str, ...], Node], node: Node, kept: int) -> Steps[Node]:
    """The place after a solution's first steps; the same steps are the same place."""
    key = tuple(step for part in node.line()[:-1] for step in part.steps) + node.steps[:kept]
    if key not in cuts:
        cuts[key] = yield from cut(node, kept)
    return cuts[key]


def _likely(scene: Scene, node: Node) -> float:
    """How likely a solution is right, as the scorer says: 1/2 where it says nothing.

    Scores that are no probabilities are taken as log-odds.
    """
    value = scene.value(node)
    if not math.isfinite(value):
        return 0.5
    if scene.semantics in ("correctness", "value"):
        return min(max(value, 0.0), 1.0)
    return 1 / (1 + math.exp(-min(max(value, -30.0), 30.0)))


def _to_repair(scene: Scene, drawn: Sequence[Node], repair: float) -> tuple[Node, int] | None:
    """The solution whose good beginning is longest, and how many of its steps that is.

    Steps before the first one whose score is below `repair`; where none is, nothing is known to be
    wrong, and there is nothing to repair.
    """
    found: tuple[Node, int] | None = None
    for node in drawn:
        if not node.is_finished or node.scores is None or scene.semantics == "log_ratio":
            continue
        own = node.scores[-len(node.steps) :] if node.steps else ()
        first = next((i for i, value in enumerate(own) if value < repair), None)
        if first and (found is None or first > found[1]):
            found = node, first
    return found
