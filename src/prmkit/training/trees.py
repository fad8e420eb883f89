"""Sequences that share beginnings, laid out so that what they share is computed once.

Solutions of one problem share its question, and alternatives of one step share all that comes
before it. A causal model's numbers at a token depend on the tokens up to it alone; so a set of
sequences is a tree, each of whose nodes is a stretch of tokens, and one pass over the nodes gives
the numbers of all sequences. A sequence that shares nothing is a tree of one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Node(NamedTuple):
    """A stretch of tokens.

    Attributes:
        ids: its token ids, at least one.
        parent: the number of the node before it, which is smaller than its own; -1 of a beginning.
        start: how many tokens come before it in its sequences.
    """

    ids: list[int]
    parent: int
    start: int


class Forest(NamedTuple):
    """Sequences as nodes.

    Attributes:
        nodes: parents before children.
        places: of each sequence, for each of its positions that were asked for, the index of that
            token among the tokens of all nodes, one node after the other.
    """

    nodes: list[Node]
    places: list[list[int]]

    @property
    def n_tokens(self) -> int:
        """Tokens that a pass computes."""
        return sum(len(node.ids) for node in self.nodes)

    def chain(self, number: int) -> list[int]:
        """A node with all before it, from the beginning."""
        chain = [number]
        while (parent := self.nodes[chain[-1]].parent) >= 0:
            chain.append(parent)
        return chain[::-1]


def plant(
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    *,
    share: bool = True,
) -> Forest:
    """Lay sequences out as a forest.

    Args:
        sequences: token ids of each, at least one.
        positions: of each, the positions whose places are wanted.
        share: whether what they share is one node; else each is a node of its own.
    """
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i])) if share else []
    nodes: list[Node] = []
    ends: dict[int, list[int]] = {}
    if share:
        _grow(sequences, order, 0, -1, nodes, ends)
    else:
        for i, ids in enumerate(sequences):
            nodes.append(Node(list(ids), -1, 0))
            ends[i] = [i]
    offsets = [0]
    for node in nodes:
        offsets.append(offsets[-1] + len(node.ids))
    places = []
    for i, wanted in enumerate(positions):
        # Nodes of a sequence lie behind one another: the last that begins at or before it has it.
        found = []
        for position in wanted:
            number = next(n for n in reversed(ends[i]) if nodes[n].start <= position)
            found.append(offsets[number] + position - nodes[number].start)
        places.append(found)
    return Forest(nodes, places)


def _grow(
    sequences: Sequence[Sequence[int]],
    order: Sequence[int],
    start: int,
    parent: int,
    nodes: list[Node],
    ends: dict[int, list[int]],
) -> None:
    """The nodes of sequences that are alike up to `start`, which are neighbours in `order`.

    Not recursive: a solution may have more steps than Python has frames.
    """
    waiting: list[tuple[Sequence[int], int, int, list[int]]] = [(order, start, parent, [])]
    while waiting:
        group, at, before, path = waiting.pop()
        open_ones = [i for i in group if len(sequences[i]) > at]
        for i in group:
            if len(sequences[i]) <= at:
                ends[i] = path
        children: list[list[int]] = []
        for i in open_ones:
            if children and sequences[children[-1][0]][at] == sequences[i][at]:
                children[-1].append(i)
            else:
                children.append([i])
        # The last is popped first: children keep their order among the nodes only by chance, and
        # need not; parents come before them in any case.
        for child in reversed(children):
            end = _common(sequences[child[0]], sequences[child[-1]], at)
            number = len(nodes)
            nodes.append(Node(list(sequences[child[0]][at:end]), before, at))
            waiting.append((child, end, number, [*path, number]))


def _common(first: Sequence[int], last: Sequence[int], at: int) -> int:
    """How far the first and the last of sorted sequences are alike, and with them all between."""
    end, most = at, min(len(first), len(last))
    while end < most and first[end] == last[end]:
        end += 1
    return end
