"""Many sequences in one forward pass without padding, some of them going on from a cache.

The tokens of all sequences lie one after the other, so that every linear layer sees one long row
and no token of padding is computed. Attention alone looks at each sequence by itself: on a GPU by
torch's variable-length kernel, elsewhere one sequence after the other. A sequence may follow a
prefix whose keys and values are known, which several sequences may share.

The attention is registered with transformers under a name of its own, so that any decoder that
asks for its attention by name (Llama, Qwen, Mistral, …) runs on it unchanged.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

NAME = "prmkit_packed"

Attention = Callable[..., tuple["torch.Tensor", None]]
"""As transformers calls it: module, query, key, value, mask, and settings by name."""


class Cache(NamedTuple):
    """The keys and values of a prefix, per layer [H, T, D] each.

    Attributes:
        keys: one tensor per layer.
        values: one tensor per layer.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """T: how many tokens it stands for."""
        return int(self.keys[0].shape[1])

    def cut(self, length: int) -> Cache:
        """The cache of its first tokens alone."""
        return Cache(
            tuple(layer[:, :length] for layer in self.keys),
            tuple(layer[:, :length] for layer in self.values),
        )

    @classmethod
    def joined(cls, parts: Sequence[Cache]) -> Cache:
        """The cache of prefixes that follow each other."""
        import torch

        if len(parts) == 1:
            return parts[0]
        return cls(
            tuple(torch.cat(layer, dim=1) for layer in zip(*(p.keys for p in parts), strict=True)),
            tuple(
                torch.cat(layer, dim=1) for layer in zip(*(p.values for p in parts), strict=True)
            ),
        )


class Segment(NamedTuple):
    """A sequence to run.

    Attributes:
        ids: its token ids, at least one.
        after: the cache of what comes before it, or None where it begins.
    """

    ids: Sequence[int]
    after: Cache | None = None


@dataclass
class _Plan:
    """What the attention of one forward pass needs to know.

    Attributes:
        lengths: [N] tokens of each sequence.
        after: [N] their caches.
        kept: where new keys and values are put, per layer [H, T, D]; None to keep none.
        bounds: cumulative lengths of queries and of keys, on a GPU.
    """

    lengths: list[int]
    after: list[Cache | None]
    kept: list[tuple[torch.Tensor, torch.Tensor]] | None
    bounds: tuple[torch.Tensor, torch.Tensor] | None


def install(name: str = NAME, attention: Attention | None = None) -> None:
    """Make an attention known to transformers; again and again does no harm.

    Args:
        name: under which models ask for it.
        attention: what computes it; by default this file's own.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(name, attention or _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, _no_mask)


def _no_mask(**unused: Any) -> None:
    """Each sequence is looked at by itself, so there is nothing to mask."""
    del unused


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    packed: _Plan,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """[1, H, T, D] queries, [1, G, T, D] keys and values to [1, T, H, D], sequence by sequence."""
    import torch

    del attention_mask
    layer = module.layer_idx
    key, value = key[0], value[0]
    if packed.kept is not None:
        packed.kept.append((key, value))
    keys: Sequence[torch.Tensor] = torch.split(key, packed.lengths, dim=1)
    values: Sequence[torch.Tensor] = torch.split(value, packed.lengths, dim=1)
    whole: tuple[torch.Tensor, torch.Tensor] | None = (key, value)
    if any(cache is not None for cache in packed.after):
        keys = tuple(
            k if cache is None else torch.cat([cache.keys[layer], k], dim=1)
            for k, cache in zip(keys, packed.after, strict=True)
        )
        values = tuple(
            v if cache is None else torch.cat([cache.values[layer], v], dim=1)
            for v, cache in zip(values, packed.after, strict=True)
        )
        whole = None
    return attend(module, query, keys, values, packed.lengths, packed.bounds, whole, **settings)


def attend(
    module: Any,
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    lengths: list[int],
    bounds: tuple[torch.Tensor, torch.Tensor] | None,
    whole: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of sequences that lie one after the other, each over keys of its own.

    Args:
        module: the layer, for messages.
        query: [1, H, T, D] of all sequences.
        keys: of N sequences [G, K, D], the last K of which are its own tokens.
        values: the same.
        lengths: [N] tokens of each.
        bounds: cumulative lengths of queries and of keys, on a GPU.
        whole: all keys and all values one after the other, where they are at hand so.
        scaling: of the logits.
        sliding_window: how many tokens back are seen, where not all are.
        softcap: not known here.
        s_aux: not known here.
        unused: what transformers tells attentions besides.

    Returns:
        [1, T, H, D].

    Raises:
        CheckpointError: if the model's attention is another one.
    """
    import torch

    del unused
    if softcap is not None or s_aux is not None:
        raise CheckpointError(
            f"{type(module).__name__} caps its attention or has sinks, which prmkit's packed "
            "attention does not know"
        )
    query = query[0]
    exact = None if bounds is None else _for_kernel(query)
    if bounds is not None and exact is not None:
        key, value = whole or (torch.cat(list(keys), dim=1), torch.cat(list(values), dim=1))
        n_keys = [k.shape[1] for k in keys]
        # Under autocast rotary embeddings leave float32, which the kernel does not take.
        query, key, value = query.to(exact), key.to(exact), value.to(exact)
        out = _variable_length(query, key, value, bounds, lengths, n_keys, scaling, sliding_window)
        return out[None], None
    parts = [
        _one(q, k, v, scaling, sliding_window)
        for q, k, v in zip(torch.split(query, lengths, dim=1), keys, values, strict=True)
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)[None], None


def _one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """[H, Q, D] queries over [G, K, D] keys, the last query at the last key: [H, Q, D]."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    n_query, n_key = query.shape[1], key.shape[1]
    mask = None
    if n_query < n_key or (window is not None and n_key > window):
        at = torch.arange(n_key - n_query, n_key, device=query.device)[:, None]
        other = torch.arange(n_key, device=query.device)[None]
        mask = other <= at
        if window is not None:
            mask = mask & (other > at - window)
    return scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]


def _variable_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    n_query: list[int],
    n_key: list[int],
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """The same for all sequences at once, by torch's kernel: [T, H, D]."""
    from torch.nn.attention.varlen import varlen_attn

    known = _parameters(varlen_attn)
    # Causal: nothing to the right; at most `window` - 1 tokens to the left.
    settings: dict[str, Any] = {"window_size": (-1 if window is None else window - 1, 0)}
    if "window_size" not in known and window is None:
        settings = {"is_causal": True}
    if "scale" in known:
        settings["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    times = query.shape[0] // key.shape[0]
    if "enable_gqa" in known:
        settings["enable_gqa"] = times != 1
    elif times != 1:
        key, value = key.repeat_interleave(times, 0), value.repeat_interleave(times, 0)
    if "num_splits" in known:
        # One result whatever shares the batch.
        settings["num_splits"] = 1
    out = varlen_attn(
        query.transpose(0, 1).contiguous(),
        key.transpose(0, 1).contiguous(),
        value.transpose(0, 1).contiguous(),
        # Layers may be spread over several GPUs.
        bounds[0].to(query.device),
        bounds[1].to(query.device),
        max(n_query),
        max(n_key),
        **settings,
    )
    assert not isinstance(out, tuple)
    return out


def _for_kernel(query: torch.Tensor) -> torch.dtype | None:
    """The precision in which torch's kernel may compute; None where it is to be float32."""
    import torch

    if query.dtype in (torch.bfloat16, torch.float16):
        return query.dtype
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


@functools.cache
def _parameters(kernel: Callable[..., Any]) -> frozenset[str]:
    """What the kernel can be told: of the same name, torch 2.10 knows less than torch 2.13."""
    return frozenset(inspect.signature(kernel).parameters)


class Ran(NamedTuple):
    """What a forward pass gives.

    Attributes:
        hidden: [T, H] last hidden states of all tokens, sequence after sequence.
        starts: [N] where each sequence begins among them.
        caches: [N] keys and values of each sequence's own tokens; empty if none were kept.
    """

    hidden: torch.Tensor
    starts: list[int]
    caches: list[Cache]


def by_kernel(body: Any, use: bool | None = None) -> bool:
    """Whether a decoder's attention runs on torch's variable-length kernel; by default on a GPU.

    Args:
        body: the decoder.
        use: what it shall be from now on, if it is to change.
    """
    if use is not None:
        body.prmkit_by_kernel = use
    on_gpu = next(body.parameters()).device.type == "cuda"
    return on_gpu and bool(getattr(body, "prmkit_by_kernel", True))


def run(body: Any, segments: Sequence[Segment], *, keep: bool = False) -> Ran:
    """Run sequences through a decoder in one pass.

    Args:
        body: a transformers decoder without a head, set to this attention.
        segments: at least one.
        keep: whether to return the keys and values of their tokens.
    """
    import torch

    device = next(body.parameters()).device
    lengths = [len(segment.ids) for segment in segments]
    offsets = [0 if s.after is None else s.after.length for s in segments]
    ids = torch.tensor([[token for s in segments for token in s.ids]], device=device)
    position_ids = torch.cat(
        [torch.arange(o, o + n) for o, n in zip(offsets, lengths, strict=True)]
    ).to(device)[None]
    kept: list[tuple[torch.Tensor, torch.Tensor]] | None = [] if keep else None
    plan = _Plan(lengths, [s.after for s in segments], kept, None)
    if by_kernel(body):
        plan.bounds = (
            cumulated(lengths, device),
            cumulated([o + n for o, n in zip(offsets, lengths, strict=True)], device),
        )
    with torch.inference_mode():
        out = body(input_ids=ids, position_ids=position_ids, use_cache=False, packed=plan)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return Ran(
        out.last_hidden_state[0],
        [end - n for end, n in zip(ends, lengths, strict=True)],
        _caches(kept, lengths) if kept is not None else [],
    )


def cumulated(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """[N + 1] where each of N sequences begins, and where the last one ends."""
    import torch

    return torch.tensor([0, *lengths]).cumsum(0).to(device=device, dtype=torch.int32)


def _caches(
    kept: Sequence[tuple[torch.Tensor, torch.Tensor]], lengths: Sequence[int]
) -> list[Cache]:
    import torch

    keys = [torch.split(of_layer, list(lengths), dim=1) for of_layer, _ in kept]
    values = [torch.split(of_layer, list(lengths), dim=1) for _, of_layer in kept]
    # Copies, so that a kept sequence does not hold its neighbours in memory.
    return [
        Cache(
            tuple(layer[i].contiguous().clone() for layer in keys),
            tuple(layer[i].contiguous().clone() for layer in values),
        )
        for i in range(len(lengths))
    ]
