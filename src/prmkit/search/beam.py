"""Step beam search, and subtrees that search side by side.

References: Snell et al. 2024, arXiv:2408.03314, section 5.1, for beam search and lookahead;
Beeching et al. 2024 (Hugging Face, search-and-learn) for DVTS.
"""

from __future__ import annotations

from collections.abc import Sequence

from prmkit.errors import InvalidSetting
from prmkit.search.requests import (
    Pool,
    Scene,
    Search,
    Steps,
    best,
    expand,
    note,
    score,
    together,
    usable,
)
from prmkit.search.tree import Node
from prmkit.settings import at_least


def beam_search(
    scene: Scene,
    *,
    n: int = 16,
    width: int = 4,
    max_steps: int = 40,
    lookahead: int = 0,
    distinct: bool = True,
) -> Search:
    """Draw n steps a level, and go on from the best n / width of them.

    A solution that ends leaves the beam and stays a candidate; the beam it occupied is taken by
    the next best. At the first level all n steps come from the root.

    Args:
        scene: the run.
        n: steps a level; a multiple of `width`.
        width: steps drawn from each beam.
        max_steps: levels at most; then the beams are drawn to their ends.
        lookahead: steps that are drawn greedily beyond each step before it is judged; the judged
            text holds them, the beam does not.
        distinct: of beams with the same text, keep one.

    Raises:
        InvalidSetting: if n is no multiple of the width.
    """
    _check(n, width, max_steps, lookahead)
    beams, done = [scene.root], list[Node]()
    for _ in range(max_steps):
        counts = spread(n, len(beams))
        children = usable((yield from expand(beams, counts, score=not lookahead)))
        done += [child for child in children if child.is_finished]
        values = yield from _looked_ahead(scene, children, lookahead)
        alive = [child for child in children if child.is_open]
        beams = ranked(alive, values, distinct)[: n // width]
        yield from note("keep", paths=[list(node.path) for node in beams])
        if not beams or len(done) >= n:
            break
    else:
        done += usable((yield from expand(beams, 1, whole=True, score=True)))
    if lookahead:
        yield from score(done)
    return Pool(tuple(done), chosen=best(scene, done))


def dvts(
    scene: Scene, *, n: int = 16, width: int = 4, max_steps: int = 40, lookahead: int = 0
) -> Search:
    """Search n / width subtrees greedily, each by the best of `width` steps, side by side.

    Args:
        scene: the run.
        n: steps a level, in all subtrees; a multiple of `width`.
        width: steps drawn from each node.
        max_steps: levels at most; then each subtree is drawn to its end.
        lookahead: as of `beam_search`.

    Raises:
        InvalidSetting: if n is no multiple of the width.
    """
    _check(n, width, max_steps, lookahead)
    found = yield from together(
        [_subtree(scene, i * width, width, max_steps, lookahead) for i in range(n // width)]
    )
    done = [node for of_subtree in found for node in of_subtree]
    if lookahead:
        yield from score(done)
    return Pool(tuple(done), chosen=best(scene, done))


def _subtree(
    scene: Scene, first: int, width: int, max_steps: int, lookahead: int
) -> Steps[list[Node]]:
    """One subtree of `dvts`; its children of the root are numbered from `first`."""
    node, done = scene.root, list[Node]()
    for _ in range(max_steps):
        numbers = [first] if node is scene.root else None
        drawn = yield from expand([node], width, first=numbers, score=not lookahead)
        children = usable(drawn)
        done += [child for child in children if child.is_finished]
        values = yield from _looked_ahead(scene, children, lookahead)
        if not children:
            return done
        at = max(range(len(children)), key=lambda i: values[children[i].path])
        node = children[at]
        if node.is_finished:
            return done
    return done + usable((yield from expand([node], 1, whole=True, score=True)))


def _check(n: int, width: int, max_steps: int, lookahead: int) -> None:
    at_least(1, n=n, width=width, max_steps=max_steps)
    at_least(0, lookahead=lookahead)
    if n % width:
        raise InvalidSetting(
            f"n is {n} and width {width}: n steps a level come from n / width beams, so n must be "
            "a multiple of the width"
        )


def spread(n: int, over: int) -> list[int]:
    """N in `over` parts that differ by 1 at most, the larger ones first."""
    return [n // over + (i < n % over) for i in range(over)]


def ranked(
    nodes: Sequence[Node], values: dict[tuple[int, ...], float], distinct: bool = False
) -> list[Node]:
    """Nodes by value, the best first, of equal ones the first.

    Args:
        nodes: what is ranked.
        values: by path.
        distinct: of those with the same text the first stands for all, with the best value. Which
            of them is scored best is decided by the last bits of sums, that other batches change.
    """
    if not distinct:
        return sorted(nodes, key=lambda node: -values[node.path])
    alike: dict[str, list[Node]] = {}
    for node in nodes:
        alike.setdefault(node.solution(), []).append(node)
    best_first = sorted(alike.values(), key=lambda own: -max(values[n.path] for n in own))
    return [own[0] for own in best_first]


def _looked_ahead(
    scene: Scene, nodes: Sequence[Node], steps: int
) -> Steps[dict[tuple[int, ...], float]]:
    """The value of each node, or of the text `steps` greedy steps beyond it."""
    ends = {node.path: node for node in nodes}
    for _ in range(steps):
        open_ones = [path for path, end in ends.items() if end.is_open]
        if not open_ones:
            break
        drawn = yield from expand([ends[path] for path in open_ones], 1, temperature=0.0)
        for path, (ahead,) in zip(open_ones, drawn, strict=True):
            # What could not be drawn is judged as far as it came.
            if ahead.is_open or ahead.is_finished:
                ends[path] = ahead
    if steps:
        yield from score(list(ends.values()))
    return {path: scene.value(end) for path, end in ends.items()}
