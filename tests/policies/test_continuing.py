"""Completions of shared prefixes, against whole passes without any cache."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from prmkit.policies.base import SamplingSettings
from prmkit.policies.continuing import Copied, Shared, can_share
from prmkit.policies.hf import HFPolicy
from prmkit.records import Problem, Step, Trajectory

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, a head each": LlamaConfig(**SIZES | {"num_key_value_heads": 4}),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
}


def model_of(config, attention="sdpa"):
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.float().eval()


def prefilled(model, prefixes):
    width = max(map(len, prefixes))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prefixes])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes])
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model(input_ids=ids, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True)
    return cache, mask


PREFIXES = {
    "of one length": [[5, 6, 7], [8, 9, 10], [11, 12, 13]],
    "of many lengths": [[5], [6, 7, 8, 9, 10], [11, 12]],
    "one": [[5, 6, 7, 8]],
}
OF_ROW = {1: [0, 0, 0, 0, 0], 3: [0, 0, 0, 0, 1, 1, 2]}


@pytest.mark.parametrize("prefixes", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("way", ["shared", "copied"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.inference_mode()
def test_every_token_is_read_as_in_a_whole_pass(config, way, prefixes):
    plain, model = model_of(config), model_of(config)
    assert can_share(model)
    cache, mask = prefilled(model, prefixes)
    of_row = torch.tensor(OF_ROW[len(prefixes)])
    going = (
        Shared(model, cache, mask, of_row, 40) if way == "shared"
        else Copied(model, cache, mask, of_row)
    )  # fmt: skip
    texts = [list(prefixes[i]) for i in of_row]
    generator = torch.Generator().manual_seed(0)
    for t in range(35):
        if t in (3, 9, 20):
            # Rows from the middle; at last, one of the last prefix alone.
            kept = torch.tensor({3: [0, 1, 3, 4], 9: [1, 3], 20: [1]}[t])
            going.keep(kept)
            texts = [texts[i] for i in kept]
        tokens = torch.randint(50, (len(texts),), generator=generator)
        positions = torch.tensor([len(text) for text in texts])
        texts = [[*text, int(token)] for text, token in zip(texts, tokens, strict=True)]
        logits = going.read(tokens, positions)
        # The buffers of the completions' own tokens are longer at 16 and at 32.
        for text, row in zip(texts, logits, strict=True) if t in (0, 3, 9, 16, 23, 34) else ():
            whole = plain(input_ids=torch.tensor([text])).logits[0, -1]
            assert torch.allclose(row, whole, atol=1e-4)


@pytest.mark.parametrize("way", ["shared", "copied"])
@torch.inference_mode()
def test_a_row_may_become_two_and_its_own_tokens_are_to_be_had(way):
    plain, model = model_of(CONFIGS["qwen2"]), model_of(CONFIGS["qwen2"])
    assert can_share(model)
    cache, mask = prefilled(model, PREFIXES["of many lengths"])
    of_row = torch.tensor([0, 1, 2])
    going = (
        Shared(model, cache, mask, of_row, 40) if way == "shared"
        else Copied(model, cache, mask, of_row)
    )  # fmt: skip
    texts = [list(prefix) for prefix in PREFIXES["of many lengths"]]
    starts = [len(text) for text in texts]
    for t, rows in enumerate([None, [0, 1, 1, 2], None, [0, 0, 1, 2, 3, 3], [5, 0]]):
        if rows is not None:
            going.keep(torch.tensor(rows))
            texts, starts = [list(texts[i]) for i in rows], [starts[i] for i in rows]
        tokens = torch.arange(len(texts)) + 7 * t
        positions = torch.tensor([len(text) for text in texts])
        texts = [[*text, int(token)] for text, token in zip(texts, tokens, strict=True)]
        logits = going.read(tokens, positions)
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            whole = plain(input_ids=torch.tensor([text]), use_cache=True)
            assert torch.allclose(logits[row], whole.logits[0, -1], atol=1e-4)
            n = len(text) - start
            for some in {n, max(n - 1, 1)}:
                keys, values = going.own(row, some)
                assert keys.untyped_storage().nbytes() == keys.nbytes
                for at, layer in enumerate(whole.past_key_values.layers):
                    part = slice(start, start + some)
                    assert torch.allclose(keys[at], layer.keys[0, :, part], atol=1e-4)
                    assert torch.allclose(values[at], layer.values[0, :, part], atol=1e-4)


@torch.inference_mode()
def test_a_prefix_is_kept_once_and_dropped_with_its_last_completions():
    model = model_of(CONFIGS["qwen2"])
    assert can_share(model)
    cache, mask = prefilled(model, PREFIXES["of one length"])
    going = Shared(model, cache, mask, torch.tensor(OF_ROW[3]), 40)
    assert [len(keys) for keys in going._keys] == [3, 3]
    assert going._keys[0].data_ptr() == cache.layers[0].keys.data_ptr()
    going.keep(torch.tensor([4]))
    assert [len(keys) for keys in going._keys] == [1, 1]


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        (GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64), "sdpa"),
        (MistralConfig(**SIZES, sliding_window=4), "sdpa"),
        (Qwen2Config(**SIZES, use_sliding_window=True, max_window_layers=1), "sdpa"),
        (LlamaConfig(**SIZES), "eager"),
    ],
)
def test_other_attention_is_not_shared(config, attention):
    model = model_of(config, attention)
    assert not can_share(model)
    assert model.config._attn_implementation == attention
    assert not can_share(model_of(CONFIGS["llama"]).bfloat16())


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.7, "stop": ("=",)}, {"temperature": 0}])
def test_shared_and_copied_prefixes_draw_the_same(tiny_lm, settings):
    prefixes = [
        Trajectory(problem=Problem(id="a", prompt="Mia has 12 apples. How many?")),
        Trajectory(
            problem=Problem(id="b", prompt="Ben has 3 pens and finds 4 more."),
            steps=(Step(text="So Ben has 3 + 4 = 7 pens.\n"),),
        ),
    ]
    shared, copied = HFPolicy(tiny_lm, device="cpu"), HFPolicy(tiny_lm, device="cpu")
    assert shared._shares
    copied._shares = False
    drawing = SamplingSettings(max_new_tokens=40, **settings)
    found = shared.complete(prefixes, 6, drawing, [1, 2])
    assert found == copied.complete(prefixes, 6, drawing, [1, 2])
    assert found == HFPolicy(tiny_lm, device="cpu", max_rows=3).complete(
        prefixes, 6, drawing, [1, 2]
    )
