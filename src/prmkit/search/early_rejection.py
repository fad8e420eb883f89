"""Best-of-N whose hopeless solutions are not written to their ends.

References: Cheshmi et al. 2025, arXiv:2508.01969, who also look inside of steps, where here a step
is ended first; Sun et al. 2024, speculative rejection, arXiv:2410.20290.
"""

from __future__ import annotations

from prmkit.search.requests import Pool, Scene, Search, abort, best, expand, usable
from prmkit.search.tree import Node
from prmkit.settings import at_least


def early_rejection(
    scene: Scene, *, n: int = 16, below: float = 0.2, patience: int = 1, max_steps: int = 40
) -> Search:
    """Write n solutions step by step, and give up those whose score falls below a bound.

    The last one is never given up, so there is always an answer.

    Args:
        scene: the run.
        n: solutions.
        below: the aggregated score of its steps below which a solution is hopeless.
        patience: steps that each may have before it is judged.
        max_steps: steps at most; then the rest is drawn as a whole.
    """
    at_least(1, n=n, max_steps=max_steps, patience=patience)
    done: list[Node] = []
    (alive,) = yield from expand([scene.root], n, score=True)
    for depth in range(1, max_steps + 1):
        there = usable([alive])
        done += [node for node in there if node.is_finished]
        alive = [node for node in there if node.is_open]
        if depth >= patience:
            hopeless = [node for node in alive if scene.value(node) < below]
            if len(hopeless) == len(alive) and not done and alive:
                hopeless.remove(max(alive, key=scene.value))
            yield from abort(hopeless)
            alive = [node for node in alive if node.is_open]
        if not alive:
            return Pool(tuple(done), chosen=best(scene, done))
        whole = depth == max_steps
        drawn = yield from expand(alive, 1, whole=whole, score=True)
        alive = [child for of_node in drawn for child in of_node]
    done += [node for node in alive if node.is_finished]
    return Pool(tuple(done), chosen=best(scene, done))
