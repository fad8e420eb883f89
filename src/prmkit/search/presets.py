"""Searches as other libraries run them, where that is not a matter of options alone."""

from __future__ import annotations

from prmkit.errors import InvalidSetting
from prmkit.search.beam import ranked
from prmkit.search.requests import Pool, Scene, Search, best, expand, note, usable
from prmkit.search.tree import Node
from prmkit.settings import at_least


def sal_beam(
    scene: Scene, *, n: int = 4, width: int = 4, max_steps: int = 40, lookahead: int = 0
) -> Search:
    """The beam search of search-and-learn.

    Each iteration the beams that are left are copied, in turn, until there are n; each copy draws
    one step; the best n / width of those that did not end go on. It ends when n solutions have
    ended, and those that ended first are the candidates. Text that is drawn ahead is paid for and
    not looked at, as there (our own `beam_search` scores it).

    Args:
        scene: the run.
        n: beams; a multiple of `width`.
        width: beams that are drawn from each that is kept.
        max_steps: iterations; the last one draws to the end.
        lookahead: steps that are drawn ahead.

    Raises:
        InvalidSetting: if n is no multiple of the width.
    """
    at_least(1, n=n, width=width, max_steps=max_steps)
    at_least(0, lookahead=lookahead)
    if n % width:
        raise InvalidSetting(f"n is {n} and width {width}; n must be a multiple of the width")
    beams, done = [scene.root], list[Node]()
    for i in range(max_steps):
        counts = [n // len(beams) + (k < n % len(beams)) for k in range(len(beams))]
        last = i == max_steps - 1
        children = usable((yield from expand(beams, counts, whole=last, score=True)))
        ahead = [child for child in children if child.is_open]
        for _ in range(lookahead):
            if ahead:
                further = yield from expand(ahead, 1, temperature=0.0)
                ahead = [child for child in usable(further) if child.is_open]
        done += [child for child in children if child.is_finished]
        if len(done) >= n:
            break
        values = {child.path: scene.value(child) for child in children}
        beams = ranked([c for c in children if c.is_open], values)[: n // width]
        yield from note("keep", paths=[list(node.path) for node in beams])
        if not beams:
            break
    done = done[:n]
    return Pool(tuple(done), chosen=best(scene, done))
