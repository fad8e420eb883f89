"""Monte Carlo tree search over steps, with values from the scorer, with rollouts or without.

Selection is PUCT (Silver et al. 2017, arXiv:1712.01815, methods) with a uniform prior:
Q(child) + c * sqrt(N(node)) / (K * (1 + N(child))). A child that was not visited has the value of
its own score. What is finished is visited once: its value cannot change, so visits go where
something is still to be found.
"""

from __future__ import annotations

import math

from prmkit.search.requests import Pool, Scene, Search, Steps, best, expand, note, usable
from prmkit.search.tree import Node
from prmkit.settings import at_least

WORST = 0.0
"""The value of what could not be scored."""


class _Place:
    """What is known of a node.

    Attributes:
        node: the node.
        own: its own value, by the scorer.
        visits: evaluations at or below it.
        total: the sum of their values.
        waiting: evaluations under way.
        children: those that can be gone on from or end a solution; None before it was expanded.
        closed: nothing below it is left to be expanded.
    """

    def __init__(self, node: Node, own: float, parent: _Place | None = None):
        self.node, self.own, self.parent = node, own, parent
        self.visits, self.total, self.waiting = 0, 0.0, 0
        self.children: list[_Place] | None = None
        self.closed = node.is_finished

    @property
    def value(self) -> float:
        """The mean of what was found below it; before that, its own score."""
        return self.total / self.visits if self.visits else self.own

    def line(self) -> list[_Place]:
        """From here up to the root."""
        place: _Place | None = self
        found = []
        while place is not None:
            found.append(place)
            place = place.parent
        return found

    def note(self, value: float) -> None:
        """One more evaluation."""
        for place in self.line():
            place.visits += 1
            place.total += value

    def close(self) -> None:
        """Nothing is to be found below it, nor above it where all is closed."""
        for place in self.line():
            if place is self or all(child.closed for child in place.children or ()):
                place.closed = True


def mcts(
    scene: Scene,
    *,
    n: int = 32,
    width: int = 4,
    exploration: float = 1.0,
    rollouts: int = 0,
    at_once: int = 1,
    max_depth: int = 40,
) -> Search:
    """Expand n nodes, each the one that PUCT leads to.

    Without rollouts a node is worth what the scorer says of its steps. With rollouts it is worth
    the mean of what the scorer says of whole solutions drawn from it, and those are candidates.

    Args:
        scene: the run.
        n: nodes that are expanded, at most.
        width: steps drawn from each.
        exploration: c of PUCT.
        rollouts: solutions drawn from each node that is expanded.
        at_once: nodes that are expanded together; while they are, they count as visited with
            nothing found (virtual loss).
        max_depth: nodes so deep are drawn to their ends instead.
    """
    at_least(1, n=n, width=width, at_once=at_once, max_depth=max_depth)
    at_least(0, exploration=exploration, rollouts=rollouts)
    root = _Place(scene.root, WORST)
    done: list[Node] = []
    spent = 0
    while spent < n and not root.closed:
        leaves: list[_Place] = []
        while len(leaves) < min(at_once, n - spent):
            leaf = _selected(root, exploration)
            if leaf is None:
                break
            leaves.append(leaf)
            for place in leaf.line():
                place.waiting += 1
        spent += len(leaves)
        yield from _expanded(scene, leaves, width, rollouts, max_depth, done)
        yield from note(
            "visit",
            paths=[list(leaf.node.path) for leaf in leaves],
            values=[round(leaf.value, 6) for leaf in leaves],
        )
    if not done:
        node = _most_visited(root)
        if node.is_open:
            done += usable((yield from expand([node], 1, whole=True, score=True)))
    return Pool(tuple(done), chosen=best(scene, done))


def _selected(root: _Place, exploration: float) -> _Place | None:
    """The node to be expanded next; None where all are closed or under way."""
    place = root
    while place.children is not None:
        open_ones = [c for c in place.children if not c.closed and not _busy(c)]
        if not open_ones:
            return None
        width = len(place.children)
        root_of_visits = math.sqrt(place.visits + place.waiting)

        def puct(child: _Place, width: int = width, visits: float = root_of_visits) -> float:
            n = child.visits + child.waiting
            # Nothing found, for those under way.
            q = (child.value * max(child.visits, 1)) / max(n, 1)
            return q + exploration * visits / (width * (1 + n))

        place = max(open_ones, key=puct)
    return None if place.waiting else place


def _busy(place: _Place) -> bool:
    """Whether every open end below it is under way."""
    if place.children is None:
        return place.waiting > 0
    return all(child.closed or _busy(child) for child in place.children)


def _expanded(
    scene: Scene,
    leaves: list[_Place],
    width: int,
    rollouts: int,
    max_depth: int,
    done: list[Node],
) -> Steps[None]:
    """Children of each leaf, rollouts from it, and its value carried up."""
    shallow = [leaf for leaf in leaves if len(leaf.node.path) < max_depth]
    deep = [leaf for leaf in leaves if len(leaf.node.path) >= max_depth]
    ends: dict[int, list[Node]] = {}
    if deep:
        drawn = yield from expand([x.node for x in deep], width, whole=True, score=True)
        ends |= {id(x): usable([found]) for x, found in zip(deep, drawn, strict=True)}
    if shallow and rollouts:
        drawn = yield from expand([x.node for x in shallow], rollouts, whole=True, score=True)
        ends |= {id(x): usable([found]) for x, found in zip(shallow, drawn, strict=True)}
    if shallow:
        drawn = yield from expand([x.node for x in shallow], width, score=True)
        for leaf, found in zip(shallow, drawn, strict=True):
            # The same step again is the same place.
            apart = {(child.text, child.finish): child for child in reversed(usable([found]))}
            children = sorted(apart.values(), key=lambda child: child.number)
            leaf.children = [_Place(child, _worth(scene, child), leaf) for child in children]
    for leaf in leaves:
        for place in leaf.line():
            place.waiting -= 1
        finished = [node for node in ends.get(id(leaf), []) if node.is_finished]
        done += finished
        for node in finished:
            leaf.note(_worth(scene, node))
        own = leaf.own
        if leaf.node is scene.root:
            # Of the problem itself the scorer says nothing.
            below = [child.own for child in leaf.children or ()]
            own = sum(below) / len(below) if below else WORST
        if not finished:
            leaf.note(own)
        for child in leaf.children or ():
            if child.node.is_finished:
                done.append(child.node)
                child.note(child.own)
        if not leaf.children or all(child.closed for child in leaf.children):
            leaf.close()


def _worth(scene: Scene, node: Node) -> float:
    value = scene.value(node)
    return value if math.isfinite(value) else WORST


def _most_visited(root: _Place) -> Node:
    place = root
    while place.children:
        place = max(place.children, key=lambda child: (child.visits, child.value))
    return place.node
