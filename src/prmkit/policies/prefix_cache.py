"""Keys and values of tokens that a model has read, in a tree: what texts have in common, once.

A node holds a stretch of tokens; texts that part within a stretch split it. When more tokens are
kept than allowed, the stretches at the tree's ends that nobody asked for longest go first; who
asks for them again reads them again: slower, never different.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

MAX_KEPT = 131_072
"""Tokens that are kept at most, where nothing else is said,"""
MAX_BYTES = 2**31
"""and bytes that they may take then."""


class Found(NamedTuple):
    """The beginning of a text that is kept.

    Attributes:
        length: its tokens.
        keys: tensors [L, K, T, D], one after the other along T: L layers, K heads.
        values: the same.
    """

    length: int
    keys: list[torch.Tensor]
    values: list[torch.Tensor]


class _Node:
    """A stretch of tokens, after its parent's."""

    __slots__ = ("children", "ids", "keys", "parent", "values")

    def __init__(
        self, parent: _Node, ids: tuple[int, ...], keys: torch.Tensor, values: torch.Tensor
    ):
        self.parent, self.ids = parent, ids
        self.keys, self.values = keys, values
        self.children: dict[int, _Node] = {}


class _Root(_Node):
    """Before the first token."""

    def __init__(self) -> None:
        self.children = {}


class PrefixCache:
    """Keys and values of the texts that one model has read.

    Several threads may use it. Pickling leaves its content behind.

    Args:
        max_kept: tokens that are kept at most; 0 keeps none, and by default it is what fits into
            `MAX_BYTES`, at most `MAX_KEPT`.
    """

    def __init__(self, max_kept: int | None = None):
        self._given = self._max_kept = max_kept
        self._root = _Root()
        # Who is used is moved to the end, and after him those before him in the text: so the
        # first is always at an end of the tree, and there the one not used for longest.
        self._kept: OrderedDict[_Node, None] = OrderedDict()
        self._n_kept = 0
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[type[PrefixCache], tuple[int | None]]:
        return type(self), (self._given,)

    def __len__(self) -> int:
        """Tokens that are kept."""
        return self._n_kept

    def find(self, ids: Sequence[int]) -> Found:
        """The longest beginning of a text that is kept."""
        with self._turn:
            path, length = self._walk(tuple(ids))
            self._use(path)
            return Found(
                length,
                [node.keys[:, :, :n] for node, n in path],
                [node.values[:, :, :n] for node, n in path],
            )

    def add(self, ids: Sequence[int], start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep a text.

        Where its first tokens are no longer kept, neither is the rest.

        Args:
            ids: all of its tokens.
            start: how many tokens come before the ones given.
            keys: [L, K, T, D] of the tokens from `start` on; nobody else may write to them.
            values: the same.
        """
        whole = tuple(ids)
        with self._turn:
            if self._max_kept is None:
                size = (keys.nbytes + values.nbytes) // keys.shape[2]
                self._max_kept = min(MAX_KEPT, MAX_BYTES // size)
            path, length = self._walk(whole)
            if start <= length < len(whole):
                if path and path[-1][1] < len(path[-1][0].ids):
                    path[-1] = self._split(*path[-1])
                if length > start:
                    # A copy: a view would hold the whole in memory.
                    keys = keys[:, :, length - start :].clone()
                    values = values[:, :, length - start :].clone()
                parent = path[-1][0] if path else self._root
                node = _Node(parent, whole[length:], keys, values)
                parent.children[node.ids[0]] = node
                self._kept[node] = None
                self._n_kept += len(node.ids)
            self._use(path)
            while self._n_kept > self._max_kept:
                oldest, _ = self._kept.popitem(last=False)
                del oldest.parent.children[oldest.ids[0]]
                self._n_kept -= len(oldest.ids)

    def _walk(self, ids: tuple[int, ...]) -> tuple[list[tuple[_Node, int]], int]:
        """The nodes along a text, with how many of their tokens it has; and these together."""
        node: _Node = self._root
        path: list[tuple[_Node, int]] = []
        length = 0
        while length < len(ids) and ids[length] in node.children:
            node = node.children[ids[length]]
            n = n_shared(node.ids, ids[length : length + len(node.ids)])
            path.append((node, n))
            length += n
            if n < len(node.ids):
                break
        return path, length

    def _split(self, node: _Node, n: int) -> tuple[_Node, int]:
        """A node of the first `n` tokens of another, put before it."""
        before = _Node(
            node.parent, node.ids[:n], node.keys[:, :, :n].clone(), node.values[:, :, :n].clone()
        )
        node.parent.children[before.ids[0]] = before
        node.parent, node.ids = before, node.ids[n:]
        node.keys, node.values = node.keys[:, :, n:].clone(), node.values[:, :, n:].clone()
        before.children[node.ids[0]] = node
        self._kept[before] = None
        return before, n

    def _use(self, path: Sequence[tuple[_Node, int]]) -> None:
        for node, _ in reversed(path):
            self._kept.move_to_end(node)


def n_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """With how many equal tokens two texts begin."""
    n = min(len(left), len(right))
    if left[:n] == right[:n]:
        return n
    return next(i for i in range(n) if left[i] != right[i])
