"""Many completions of few prefixes, token by token.

A prefix is read once. `Shared` also keeps it once: each layer's attention goes to the prefix's
keys and values for all of its completions together, and to each completion's own few. `Copied`
works for every causal model: keys and values are copied for each completion, and grow with it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

from prmkit.policies.reading import row_of

if TYPE_CHECKING:
    import torch

_ATTENTION = "prmkit_shared_prefix"
_SHARING = ("llama", "mistral", "qwen2", "qwen3")
"""Models whose attention is plain: softmax over all earlier positions, and nothing else."""


class Continuing(Protocol):
    """Completions that are being written."""

    def read(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The logits [R, V] after one more token [R] of each completion, at its position [R]."""

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the completions only; one that is named twice is two from here on."""

    def own(self, row: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [L, K, T, D] of the first `n` tokens that a completion was given."""


class Copied:
    """Keys and values of the prefix are copied for every completion.

    Args:
        model: which has read the prefixes.
        cache: their keys and values.
        mask: [U, P] which tokens of U prefixes are no padding.
        of_row: [R] the prefix of each completion.
    """

    def __init__(self, model: Any, cache: Any, mask: torch.Tensor, of_row: torch.Tensor):
        self._model, self._cache, self._mask = model, cache, mask
        self._before = mask.shape[1]
        self.keep(of_row)

    def read(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """See `Continuing`."""
        import torch

        new = self._mask.new_ones(len(tokens), 1)
        self._mask = torch.cat([self._mask, new], dim=1)
        out = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=positions[:, None],
            cache=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """See `Continuing`."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def own(self, row: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Continuing`."""
        return row_of(self._cache.layers, row, slice(self._before, self._before + n))


def can_share(model: Any) -> bool:
    """Whether `Shared` computes what the model does; if so, the model is made ready for it.

    In less than float32 the copies go on: there the model's own kernels are more exact.
    """
    import torch

    config = model.config
    plain = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    if (
        config.model_type not in _SHARING
        or config._attn_implementation != "sdpa"
        or not plain
        or getattr(config, "sliding_window", None) is not None
        or model.dtype != torch.float32
    ):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_ATTENTION, _attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    model.set_attn_implementation(_ATTENTION)
    return True


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    prefix: Shared | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """The model's own attention, but where there is a shared prefix."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if prefix is not None:
        return prefix.attend(module.layer_idx, query * scaling, key, value), None
    out, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **settings
    )
    return out, None


class Shared:
    """Keys and values of a prefix are kept once for all of its completions.

    Args:
        model: which has read the prefixes; see `can_share`.
        cache: their keys and values.
        mask: [U, P] which tokens of U prefixes are no padding.
        of_row: [R] the prefix of each completion.
        room: tokens of a completion at most.
    """

    def __init__(self, model: Any, cache: Any, mask: torch.Tensor, of_row: torch.Tensor, room: int):
        from transformers import Cache

        self._model = model
        self._keys = [layer.keys for layer in cache.layers]
        self._values = [layer.values for layer in cache.layers]
        padding = mask == 0
        self._padding = padding if bool(padding.any()) else None
        self._layers = [_own_layer()(room) for _ in cache.layers]
        self._own = Cache(layers=self._layers)
        self._of_row = of_row
        self._place()

    def read(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """See `Continuing`."""
        out = self._model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            cache=self._own,
            use_cache=True,
            prefix=self,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """See `Continuing`."""
        import torch

        for layer in self._layers:
            layer.keep(rows)
        self._of_row = self._of_row[rows]
        used, of_row = torch.unique(self._of_row, return_inverse=True)
        if 2 * len(used) <= len(self._keys[0]):
            self._keys = [keys[used] for keys in self._keys]
            self._values = [values[used] for values in self._values]
            self._padding = None if self._padding is None else self._padding[used]
            self._of_row = of_row
        self._place()

    def own(self, row: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Continuing`."""
        return row_of(self._layers, row, slice(0, n))

    def _place(self) -> None:
        """Where each completion stands in the table of prefixes by completions."""
        import torch

        n_prefixes = len(self._keys[0])
        counts = torch.bincount(self._of_row, minlength=n_prefixes)
        order = torch.argsort(self._of_row, stable=True)
        starts = counts.cumsum(0) - counts
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order), device=order.device) - starts[self._of_row[order]]
        self._width = int(counts.max())
        self._slot = self._of_row * self._width + number
        full = torch.arange(n_prefixes * self._width, device=order.device)
        self._is_full = torch.equal(self._slot, full)
        self._hidden = (
            None if self._padding is None else self._padding[self._of_row][:, None, None, :]
        )

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Attention of one new token of each completion.

        Args:
            layer: its number.
            query: [R, H, 1, D], scaled.
            key: [R, K, T, D] of the completions' own tokens.
            value: the same.

        Returns:
            [R, 1, H, D].
        """
        import torch

        n_rows, n_heads, _, size = query.shape
        query = query.reshape(n_rows, key.shape[1], -1, size)
        before = self._by_row(self._by_prefix(query) @ self._keys[layer].transpose(-1, -2))
        if self._hidden is not None:
            before = before.masked_fill(self._hidden, float("-inf"))
        logits = torch.cat([before, query @ key.transpose(-1, -2)], dim=-1)
        weights = torch.softmax(logits, dim=-1)
        n_before = before.shape[-1]
        out = self._by_row(self._by_prefix(weights[..., :n_before]) @ self._values[layer])
        out = out + weights[..., n_before:] @ value
        return out.reshape(n_rows, 1, n_heads, size)

    def _by_prefix(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, K, N, X] to [U, K, G * N, X]: the completions of a prefix side by side."""
        _, heads, n, size = rows.shape
        if not self._is_full:
            table = rows.new_zeros(len(self._keys[0]) * self._width, heads, n, size)
            table[self._slot] = rows
            rows = table
        rows = rows.reshape(-1, self._width, heads, n, size).transpose(1, 2)
        return rows.reshape(-1, heads, self._width * n, size)

    def _by_row(self, table: torch.Tensor) -> torch.Tensor:
        """The way back."""
        _, heads, _, size = table.shape
        table = table.reshape(len(table), heads, self._width, -1, size).transpose(1, 2)
        rows = table.reshape(-1, heads, table.shape[3], size)
        return rows if self._is_full else rows[self._slot]


@functools.cache
def _own_layer() -> Any:
    """A layer's keys and values of the completions themselves, in a buffer that is written on."""
    from transformers.cache_utils import DynamicLayer

    class Own(DynamicLayer):
        _layer_type = None

        def __init__(self, room: int) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.n, self.room = 0, room

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            rows, heads, new, size = key_states.shape
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self._keys = key_states.new_empty(rows, heads, 0, size)
                self._values = value_states.new_empty(rows, heads, 0, value_states.shape[-1])
            if self.n + new > self._keys.shape[2]:
                more = max(new, min(self.room, max(16, 2 * self.n)) - self.n)
                self._keys = _longer(self._keys, more)
                self._values = _longer(self._values, more)
            self._keys[:, :, self.n : self.n + new] = key_states
            self._values[:, :, self.n : self.n + new] = value_states
            self.n += new
            self.keys, self.values = self._keys[:, :, : self.n], self._values[:, :, : self.n]
            return self.keys, self.values

        def get_seq_length(self) -> int:
            return self.n

        def keep(self, rows: torch.Tensor) -> None:
            if self.is_initialized:
                self._keys, self._values = self._keys[rows], self._values[rows]
                self.keys, self.values = self._keys[:, :, : self.n], self._values[:, :, : self.n]

    return Own


def _longer(buffer: torch.Tensor, more: int) -> torch.Tensor:
    import torch

    rows, heads, _, size = buffer.shape
    return torch.cat([buffer, buffer.new_empty(rows, heads, more, size)], dim=2)
