"""Nodes that nobody drew: places inside of others, and copies of what was written elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from prmkit.errors import SearchError
from prmkit.search.tree import Node


def cut_off(node: Node, n_steps: int, number: int) -> Node:
    """A sibling of a node that holds the first of its steps.

    Raises:
        SearchError: if these are none or all of them.
    """
    if not 1 <= n_steps < len(node.steps) or node.parent is None:
        raise SearchError(
            f"{node.path} has {len(node.steps)} steps of its own; an algorithm wanted the "
            f"first {n_steps}"
        )
    steps = node.steps[:n_steps]
    text = "".join(steps).removeprefix(node.parent.lead)
    return Node(node.problem, node.parent, number, text=text, steps=steps)


def joined(node: Node, rest: Sequence[Node], number: int) -> list[Node]:
    """Copies of nodes, one after the other, behind another node.

    A copy holds the blank pieces that led to what it copies, too. It costs nothing, and it is not
    scored.

    Args:
        node: an open one.
        rest: nodes that follow one another in the tree, but for blank ones between them.
        number: of the first copy; each of the others is an only child.

    Raises:
        SearchError: if nothing can follow the node.
    """
    if not node.is_open:
        raise SearchError(f"an algorithm goes on from {node.path}, which is {node.finish}")
    found = []
    for source in rest:
        parts = [source]
        while parts[0].parent is not None and parts[0].parent.lead:
            parts.insert(0, parts[0].parent)
        ids: tuple[int, ...] | None = ()
        for part in parts:
            ids = None if ids is None or part.ids is None else ids + part.ids
        node = Node(
            node.problem,
            node,
            number,
            text="".join(part.text for part in parts),
            steps=source.steps,
            ids=ids,
            finish=source.finish,
        )
        node.of = source
        number = 0
        found.append(node)
    for copy in found[:-1]:
        copy.n_children = 1
    return found
