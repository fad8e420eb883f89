"""Prefixes whose keys and values are kept, so that a search pays for new tokens alone.

Each node holds the cache of its own tokens and knows its parent; branches share what they have in
common. When more tokens are kept than allowed, the longest unused caches are dropped, and made
again when they are needed: slower, never different.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prmkit.scorers.backends.packed import Cache, Segment, run

if TYPE_CHECKING:
    import torch

    from prmkit.scorers.backends.hf import HFBackend


class Node:
    """The end of a prefix.

    Attributes:
        parent: the node before it, or None at the beginning.
        ids: token ids between the two.
        length: tokens up to here, all of them.
        last: [H] hidden state of the last token up to here.
    """

    __slots__ = ("cache", "ids", "last", "length", "parent")

    def __init__(self, parent: Node | None, ids: Sequence[int]):
        self.parent = parent
        self.ids = tuple(ids)
        self.length: int = len(self.ids) + (parent.length if parent else 0)
        self.cache: Cache | None = None
        self.last: torch.Tensor | None = None

    def path(self) -> list[Node]:
        """From the beginning to here; nodes without a token of their own are left out."""
        node: Node | None = self
        path = []
        while node is not None:
            if node.ids:
                path.append(node)
            node = node.parent
        return path[::-1]


class PrefixTree:
    """Prefixes of one model.

    Args:
        backend: the model.
        max_kept: tokens whose keys and values are kept at most.
    """

    def __init__(self, backend: HFBackend, max_kept: int = 262_144):
        self.backend = backend
        self._max_kept = max_kept
        self._kept: OrderedDict[int, Node] = OrderedDict()
        self._n_kept = 0
        self.computed = 0
        """Tokens that went through the model so far."""

    def grow(
        self, parents: Sequence[Node | None], ids: Sequence[Sequence[int]]
    ) -> tuple[list[Node], list[torch.Tensor]]:
        """Nodes after `parents`, and the [T, H] hidden states of their own tokens.

        Args:
            parents: where each goes on; None to begin.
            ids: the new token ids of each; none where a family writes an empty step as nothing.
        """
        nodes = [Node(parent, own) for parent, own in zip(parents, ids, strict=True)]
        computed = iter(self._run([node for node in nodes if node.ids]))
        hidden = []
        for node in nodes:
            if node.ids:
                own = next(computed)
                # A copy: a view would hold the hidden states of the whole pass in memory.
                node.last = own[-1].clone()
            else:
                node.last = node.parent.last if node.parent else None
                own = node.last[None] if node.last is not None else self._nothing()
            hidden.append(own)
        return nodes, hidden

    def _nothing(self) -> torch.Tensor:
        """Of a problem without a token: no hidden state."""
        import torch

        return torch.empty(0, self.backend.body.config.hidden_size)

    def behind(
        self, nodes: Sequence[Node], n: Sequence[int], ids: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """The last hidden states of `ids` put after the first `n` tokens of nodes; not kept."""
        found: list[torch.Tensor] = []
        at = 0
        while at < len(nodes):
            segments: list[Segment] = []
            while at < len(nodes) and (
                not segments or sum(len(s.ids) for s in segments) < self.backend.max_tokens
            ):
                node = nodes[at]
                whole = self._joined(node)
                length = node.length - len(node.ids) + min(n[at], len(node.ids))
                segments.append(Segment(ids[at], whole.cut(length) if whole and length else None))
                at += 1
            ran = run(self.backend.body, segments)
            self.computed += sum(len(s.ids) for s in segments)
            found += [
                ran.hidden[start + len(s.ids) - 1]
                for start, s in zip(ran.starts, segments, strict=True)
            ]
        return found

    def _run(self, nodes: Sequence[Node]) -> list[torch.Tensor]:
        """Compute nodes, in passes of limited size, and keep their caches."""
        hidden: list[torch.Tensor] = []
        joined: dict[int, Cache | None] = {}
        at = 0
        while at < len(nodes):
            end, spent = at, 0
            while end < len(nodes) and (
                end == at or spent + len(nodes[end].ids) <= self.backend.max_tokens
            ):
                spent += len(nodes[end].ids)
                end += 1
            group = nodes[at:end]
            for node in group:
                if id(node.parent) not in joined:
                    joined[id(node.parent)] = self._joined(node.parent)
            segments = [Segment(node.ids, joined[id(node.parent)]) for node in group]
            ran = run(self.backend.body, segments, keep=True)
            self.computed += spent
            for node, start, cache in zip(group, ran.starts, ran.caches, strict=True):
                self._keep(node, cache)
                hidden.append(ran.hidden[start : start + len(node.ids)])
            at = end
        return hidden

    def _joined(self, node: Node | None) -> Cache | None:
        """The cache of the whole prefix; what was dropped is computed again."""
        if node is None:
            return None
        parts: list[Cache] = []
        for part in node.path():
            if part.cache is None:
                before = Cache.joined(parts) if parts else None
                ran = run(self.backend.body, [Segment(part.ids, before)], keep=True)
                self.computed += len(part.ids)
                self._keep(part, ran.caches[0])
                parts.append(ran.caches[0])
            else:
                self._kept.move_to_end(id(part))
                parts.append(part.cache)
        return Cache.joined(parts) if parts else None

    def _keep(self, node: Node, cache: Cache) -> None:
        node.cache = cache
        self._kept[id(node)] = node
        self._n_kept += len(node.ids)
        while self._n_kept > self._max_kept and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            oldest.cache = None
            self._n_kept -= len(oldest.ids)
