"""torch's variable-length kernel, whose settings are others from version to version."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from prmkit.scorers.backends import packed


def slow(query, key, value, scale, left, heads):
    """[T, H, D] causal attention of one sequence, from the formula."""
    key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    logits = torch.einsum("qhd,khd->hqk", query, key) * scale
    at = torch.arange(len(key) - len(query), len(key))[:, None]
    other = torch.arange(len(key))[None]
    seen = (other <= at) & ((left < 0) | (other >= at - left))
    return torch.einsum("hqk,khd->qhd", logits.masked_fill(~seen, -torch.inf).softmax(-1), value)


def each(query, key, value, cu_q, cu_k, max_q, max_k, scale=None, left=-1, heads=1):
    assert query.is_contiguous()
    assert query.shape[1] == heads * key.shape[1]
    assert max_q == int((cu_q[1:] - cu_q[:-1]).max())
    assert max_k == int((cu_k[1:] - cu_k[:-1]).max())
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    spans = zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True)
    return torch.cat(
        [slow(query[a:b], key[c:d], value[c:d], scale, left, heads) for a, b, c, d in spans]
    )


def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal
    return each(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


def of_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
    window_size=(-1, -1),
):  # fmt: skip
    assert window_size[1] == 0
    return each(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[0])


def of_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
    window_size=(-1, -1), enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert window_size[1] == 0
    assert num_splits == 1
    heads = query.shape[1] // key.shape[1]
    assert enable_gqa == (heads != 1)
    return each(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[0], heads)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(
    ("kernel", "window"),
    # torch 2.10 knows no window: a model with one is run one by one there.
    [(of_2_10, None), (of_2_11, None), (of_2_11, 3), (of_2_13, None), (of_2_13, 3)],
)
def test_every_version_of_the_kernel_gives_what_one_by_one_gives(
    monkeypatch, kernel, window, groups, scaling
):
    # The real kernel takes half precision alone, which would hide what differs.
    monkeypatch.setattr(packed, "_for_kernel", lambda query: query.dtype)
    module = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = kernel
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    make = torch.Generator().manual_seed(0)
    n_query, n_key = [3, 1, 4], [7, 1, 4]
    query = torch.randn(1, 4, sum(n_query), 8, generator=make)
    keys = [torch.randn(groups, n, 8, generator=make) for n in n_key]
    values = [torch.randn(groups, n, 8, generator=make) for n in n_key]
    told = {"scaling": scaling, "sliding_window": window}
    layer = SimpleNamespace()
    plain, _ = packed.attend(layer, query, keys, values, n_query, None, **told)
    bounds = packed.cumulated(n_query, "cpu"), packed.cumulated(n_key, "cpu")
    ours, _ = packed.attend(layer, query, keys, values, n_query, bounds, **told)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_the_kernel_gets_half_precision_or_nothing():
    exact, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    assert packed._for_kernel(exact) is None
    assert packed._for_kernel(half) == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed._for_kernel(exact) == torch.bfloat16


def test_what_training_leaves_in_float32_goes_to_the_kernel_in_half_precision(monkeypatch):
    seen = []

    def kernel(query, key, value, *bounds, **settings):
        seen.extend((query.dtype, key.dtype, value.dtype))
        return query

    module = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = kernel
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    rows = torch.zeros(1, 2, 5, 8)
    bounds = packed.cumulated([5], "cpu"), packed.cumulated([5], "cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed.attend(SimpleNamespace(), rows, [rows[0]], [rows[0]], [5], bounds)
    assert seen == [torch.bfloat16] * 3
    # Without autocast it is computed in float32, sequence by sequence.
    out, _ = packed.attend(SimpleNamespace(), rows, [rows[0]], [rows[0]], [5], bounds)
    assert (len(seen), out.dtype) == (3, torch.float32)
