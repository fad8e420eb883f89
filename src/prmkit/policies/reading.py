"""Prefixes through a model, each token once: what was read before is found, the rest is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.policies.prefix_cache import Found, PrefixCache, n_shared

if TYPE_CHECKING:
    import torch

_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary positions whose angles do not depend on how long the text has become."""
_WIDER, _ALWAYS = 2, 32
"""A pass takes prefixes of at most so many times its shortest one's tokens, and so many more: to
fill up the others costs less than a pass of its own."""
_ROWS = 4096
"""Rows of logits that are held at the same time: there is one for each token of a text whose
likelihood is asked, and each is as wide as the vocabulary."""

Ids = tuple[int, ...]


class Read(NamedTuple):
    """What a model made of U prefixes; rows in an order of their own.

    Attributes:
        logits: [U, V] after their last tokens.
        cache: their keys and values, [U, K, P, D] in each layer.
        mask: [U, P] which of these are no padding.
        row: of each prefix.
        n_found: tokens of each prefix that were not computed.
    """

    logits: torch.Tensor
    cache: Any
    mask: torch.Tensor
    row: list[int]
    n_found: list[int]


def can_keep(model: Any) -> bool:
    """Whether the keys and values of a token depend on the tokens before it and nothing else.

    So it is with attention to all earlier positions, which are rotated by their number: where the
    other texts of a batch put their padding does not matter then.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    rotation = getattr(model.config, "rope_parameters", None) or {}
    return (
        bool(layers)
        and all(type(layer) is DynamicLayer for layer in layers)
        and rotation.get("rope_type") in _STATIC_ROPE
        and not getattr(model.config, "alibi", False)
        and not getattr(model, "_is_stateful", False)
    )


@contextmanager
def without_gradients(device: str) -> Iterator[None]:
    """No gradients; and on a GPU not cuDNN's attention, which seems to plan each new length anew.

    A text has a new length with each token. On an H200 with torch 2.11 attention took 12 ms a layer
    where a length was new and 1 ms where it was not; without cuDNN it has not been timed there.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    chosen = sdpa_kernel(kernels) if device.startswith("cuda") else nullcontext()
    with torch.inference_mode(), chosen:
        yield


class Reader:
    """Reads prefixes with one model.

    Args:
        model: a causal language model.
        device: where it is.
        max_kept: tokens whose keys and values are kept at most; see `PrefixCache`.
    """

    def __init__(self, model: Any, device: str, max_kept: int | None):
        self._model, self._device = model, device
        self._plain = can_keep(model)
        self._max_kept = max_kept
        self._kept = PrefixCache(max_kept)
        self.keeps = self._plain and max_kept != 0
        """Whether anything is kept."""
        self.computed = 0
        """Tokens that went through the model so far; what fills up a batch is not counted."""

    def forget(self) -> None:
        """Drop what is kept: the model has other weights now."""
        self._kept = PrefixCache(self._max_kept)

    def read(self, prefixes: Sequence[Ids]) -> Read:
        """Read prefixes that differ from one another; none is empty."""
        if not self._plain:
            return self._pass(prefixes, range(len(prefixes)), [Found(0, [], [])] * len(prefixes))
        parts: list[Read] = []
        done: list[int] = []
        for wave in self._waves(prefixes):
            found = {i: self._find(prefixes[i]) for i in wave}
            for group in _alike({i: len(prefixes[i]) - found[i].length for i in wave}):
                parts.append(self._pass(prefixes, group, [found[i] for i in group]))
                done += group
        return self._joined(parts, done)

    def follow(
        self, texts: Sequence[Ids], starts: Sequence[int], max_rows: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """What a model says along texts.

        Args:
            texts: that differ from one another or not; none is empty.
            starts: of each, the first token after which it is asked, counted from 1.
            max_rows: texts in a pass.

        Yields:
            The number of a text, and the logits [T, V] after its token `start`, the one behind
            it, and so on to its last; in an order of their own.
        """
        found = [
            self._find(text[:start]) if self._plain else Found(0, [], [])
            for text, start in zip(texts, starts, strict=True)
        ]
        lengths = {i: len(text) - found[i].length for i, text in enumerate(texts)}
        for group in _alike(lengths):
            n_asked = max(len(texts[i]) - starts[i] + 1 for i in group)
            rows = max(1, min(max_rows, _ROWS // n_asked))
            for at in range(0, len(group), rows):
                some = group[at : at + rows]
                logits = self._forward(texts, some, [found[i] for i in some], n_asked)[0]
                for row, i in enumerate(some):
                    yield i, logits[row, starts[i] - len(texts[i]) - 1 :]

    def keep(self, ids: Ids, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep what else was read; see `PrefixCache.add`."""
        self._kept.add(ids, start, keys, values)

    def _find(self, prefix: Ids) -> Found:
        # The last token is read in any case: what comes after it is not kept.
        return self._kept.find(prefix[:-1]) if self.keeps else Found(0, [], [])

    def _waves(self, prefixes: Sequence[Ids]) -> list[list[int]]:
        """First one of those that share much that is not kept; then the others, which find it."""
        if not self.keeps:
            return [[*range(len(prefixes))]]
        kin: list[list[int]] = []
        for i in sorted(range(len(prefixes)), key=prefixes.__getitem__):
            n_found = self._find(prefixes[i]).length
            shared = n_shared(prefixes[kin[-1][-1]], prefixes[i]) if kin else 0
            if 2 * (shared - n_found) >= len(prefixes[i]) - n_found:
                kin[-1].append(i)
            else:
                kin.append([i])
        first = [max(some, key=lambda i: len(prefixes[i])) for some in kin]
        rest = set(range(len(prefixes))).difference(first)
        return [first, sorted(rest)] if rest else [first]

    def _pass(self, prefixes: Sequence[Ids], group: Sequence[int], found: Sequence[Found]) -> Read:
        """Read some prefixes in one pass, from where they were found on."""
        logits, cache, mask = self._forward(prefixes, group, found, 1)
        lengths = [some.length for some in found]
        return Read(logits[:, -1], cache, mask, [*range(len(group))], lengths)

    def _forward(
        self, prefixes: Sequence[Ids], group: Sequence[int], found: Sequence[Found], n_logits: int
    ) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """The same, padded on the left: logits [U, T, V] of the last tokens, cache and mask."""
        import torch
        from transformers import DynamicCache

        news = [prefixes[i][some.length :] for i, some in zip(group, found, strict=True)]
        before, width = max(some.length for some in found), max(map(len, news))
        tokens = torch.zeros(len(news), width, dtype=torch.long)
        mask = torch.zeros(len(news), before + width, dtype=torch.long)
        for row, (new, some) in enumerate(zip(news, found, strict=True)):
            tokens[row, width - len(new) :] = torch.tensor(new)
            mask[row, before - some.length : before] = 1
            mask[row, before + width - len(new) :] = 1
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        cache = DynamicCache(config=self._model.config)
        if before:
            _fill(cache, _side_by_side([some.keys for some in found], before),
                  _side_by_side([some.values for some in found], before))  # fmt: skip
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, before:],
            cache=cache,
            use_cache=True,
            logits_to_keep=n_logits,
        )
        self.computed += sum(map(len, news))
        if self.keeps:
            for row, (i, some) in enumerate(zip(group, found, strict=True)):
                part = slice(before + width - len(news[row]), None)
                self.keep(prefixes[i], some.length, *row_of(cache.layers, row, part))
        return out.logits, cache, mask

    def _joined(self, parts: Sequence[Read], done: Sequence[int]) -> Read:
        """Several passes as one; `done` are the prefixes in the order in which they were read."""
        import torch
        from torch.nn.functional import pad
        from transformers import DynamicCache

        row, n_found = [0] * len(done), [0] * len(done)
        lengths = [n for part in parts for n in part.n_found]
        for at, (i, n) in enumerate(zip(done, lengths, strict=True)):
            row[i], n_found[i] = at, n
        if len(parts) == 1:
            return parts[0]._replace(row=row, n_found=n_found)
        width = max(part.mask.shape[1] for part in parts)
        missing = [width - part.mask.shape[1] for part in parts]

        def wide(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat([pad(t, (0, 0, n, 0)) for t, n in zip(tensors, missing, strict=True)])

        cache = DynamicCache(config=self._model.config)
        n_layers = len(cache.layers)
        _fill(
            cache,
            [wide([part.cache.layers[at].keys for part in parts]) for at in range(n_layers)],
            [wide([part.cache.layers[at].values for part in parts]) for at in range(n_layers)],
        )
        mask = torch.cat([pad(p.mask, (n, 0)) for p, n in zip(parts, missing, strict=True)])
        return Read(torch.cat([part.logits for part in parts]), cache, mask, row, n_found)


def _alike(lengths: dict[int, int]) -> list[list[int]]:
    """Prefixes of about as many tokens to read, together."""
    groups: list[list[int]] = []
    for i in sorted(lengths, key=lengths.__getitem__):
        if not groups or lengths[i] > _WIDER * lengths[groups[-1][0]] + _ALWAYS:
            groups.append([])
        groups[-1].append(i)
    return groups


def _side_by_side(rows: Sequence[Sequence[torch.Tensor]], width: int) -> torch.Tensor:
    """Tensors [L, K, T, D], several after one another in each of R rows, as [L, R, K, width, D]."""
    import torch

    some = next(parts[0] for parts in rows if parts)
    n_layers, heads, _, size = some.shape
    table = some.new_zeros(n_layers, len(rows), heads, width, size)
    for row, parts in enumerate(rows):
        if parts:
            whole = torch.cat(list(parts), dim=2)
            table[:, row, :, width - whole.shape[2] :] = whole
    return table


def _fill(cache: Any, keys: Sequence[torch.Tensor] | torch.Tensor, values: Any) -> None:
    """Put keys and values, [U, K, P, D] of each layer, into an empty cache."""
    for layer, some, others in zip(cache.layers, keys, values, strict=True):
        layer.lazy_initialization(some, others)
        layer.keys, layer.values = some, others


def row_of(layers: Sequence[Any], row: int, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a part of one row's tokens, [L, K, T, D], copied."""
    import torch

    return (
        torch.stack([layer.keys[row, :, part] for layer in layers]),
        torch.stack([layer.values[row, :, part] for layer in layers]),
    )
