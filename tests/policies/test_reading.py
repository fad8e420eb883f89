"""Prefixes read from where they were found on, against whole passes without any cache."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from prmkit.policies.reading import Reader, _alike, can_keep

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
KEEPING = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
}
OTHERS = {
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=256),
    "bloom": BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=2),
    "a window": MistralConfig(**SIZES, sliding_window=4),
    "a window in some layers": Qwen2Config(**SIZES, use_sliding_window=True, max_window_layers=1),
    "angles that grow": LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
}


def model_of(config):
    torch.manual_seed(2)
    return AutoModelForCausalLM.from_config(config).float().eval()


def text(seed, length):
    return torch.randint(50, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


A = text(1, 30)
ROUNDS = [
    # Of very different lengths, and one that begins as another.
    [text(2, 3), text(3, 130), A[:20], A],
    # What is there whole, what goes on, what parts within, and what is new.
    [A, [*A, *text(4, 9)], [*A[:25], *text(5, 4)], text(6, 40), [*text(3, 130), 7]],
    # Three of a kind, of which nothing was read.
    [[*text(7, 40), 1], text(7, 40), [*text(7, 40), 2, 3], [*text(7, 20)], A[:1]],
]


def check(model, reader, prefixes, atol=1e-4):
    """Logits, keys and values are those of whole passes."""
    prefixes = [tuple(ids) for ids in prefixes]
    read = reader.read(prefixes)
    assert sorted(read.row) == [*range(len(prefixes))]
    for ids, row in zip(prefixes, read.row, strict=True):
        whole = model(input_ids=torch.tensor([ids]), use_cache=True)
        assert torch.allclose(read.logits[row], whole.logits[0, -1], atol=atol)
        shown = read.mask[row].bool()
        assert int(shown.sum()) == len(ids)
        for mine, theirs in zip(read.cache.layers, whole.past_key_values.layers, strict=True):
            assert torch.allclose(mine.keys[row][:, shown], theirs.keys[0], atol=atol)
            assert torch.allclose(mine.values[row][:, shown], theirs.values[0], atol=atol)
    return read


@pytest.mark.parametrize("max_kept", [None, 0, 50])
@pytest.mark.parametrize("config", KEEPING.values(), ids=KEEPING)
@torch.inference_mode()
def test_what_is_found_is_as_good_as_read(config, max_kept):
    model = model_of(config)
    assert can_keep(model)
    reader = Reader(model, "cpu", max_kept)
    spent = 0
    for prefixes in [*ROUNDS, *ROUNDS]:
        read = check(model, reader, prefixes)
        spent += sum(map(len, prefixes)) - sum(read.n_found)
        assert reader.computed == spent
    whole = 2 * sum(len(ids) for prefixes in ROUNDS for ids in prefixes)
    if max_kept is None:
        distinct = {tuple(p[:n]) for ps in ROUNDS for p in ps for n in range(1, len(p) + 1)}
        # The last token of each prefix is read again; and of three of a kind, a few twice.
        assert len(distinct) < spent < 1.1 * len(distinct) + 14
    elif max_kept == 0:
        assert spent == whole
    assert len(reader._kept) <= (max_kept if max_kept is not None else whole)


@torch.inference_mode()
def test_prefixes_that_begin_others_cost_a_token_each():
    reader = Reader(model_of(KEEPING["llama"]), "cpu", None)
    whole = tuple(text(9, 60))
    read = reader.read([whole[:n] for n in (10, 20, 60, 40)])
    assert reader.computed == 60 + 3
    assert read.n_found == [9, 19, 0, 39]


@torch.inference_mode()
def test_what_was_kept_elsewhere_is_found():
    model = model_of(KEEPING["llama"])
    reader, other = Reader(model, "cpu", None), Reader(model, "cpu", None)
    ids = tuple(text(9, 30))
    reader.read([ids[:20]])
    read = other.read([ids])
    rest = [
        torch.stack([getattr(layer, name)[0, :, 20:] for layer in read.cache.layers])
        for name in ("keys", "values")
    ]
    reader.keep(ids, 20, *rest)
    assert check(model, reader, [[*ids, 5]]).n_found == [30]


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
@torch.inference_mode()
def test_other_models_keep_nothing_and_read_in_one_pass(config, monkeypatch):
    model = model_of(config)
    assert not can_keep(model)
    reader = Reader(model, "cpu", None)
    assert not reader.keeps
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **k: passes.append(k) or forward(**k))
    prefixes = [tuple(ids) for ids in ROUNDS[0]]
    for _ in range(2):
        read = reader.read(prefixes)
        assert read.n_found == [0] * 4
    assert len(passes) == 2
    assert reader.computed == 2 * sum(map(len, prefixes))
    assert len(reader._kept) == 0


def test_like_lengths_go_together():
    lengths = {0: 1, 1: 500, 2: 34, 3: 35, 4: 400, 5: 2}
    assert _alike(lengths) == [[0, 5, 2], [3], [4, 1]]
    assert _alike({}) == []
