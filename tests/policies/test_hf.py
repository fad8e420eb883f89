"""Sampling from a causal language model, against transformers' own forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prmkit.chat import encode_question, encode_text
from prmkit.checkpoints import load_causal_lm, load_tokenizer
from prmkit.errors import InputTooLong
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy, pick
from prmkit.records import Problem, Step, Trajectory

PREFIXES = [
    Trajectory(problem=Problem(id="a", prompt="Mia has 12 apples. How many?")),
    Trajectory(
        problem=Problem(id="b", prompt="Ben has 3 pens and finds 4 more. How many pens now?"),
        steps=(Step(text="So Ben has 3 + 4 = 7 pens.\n"),),
    ),
    Trajectory(problem=Problem(id="c", prompt="x")),
]


def slow_greedy(path, prefix: Trajectory, n_tokens: int) -> list[int]:
    """The likeliest tokens, one full forward pass each, no cache, no padding."""
    model, _ = load_causal_lm(path, "cpu")
    tokenizer = load_tokenizer(path)
    ids = encode_question(tokenizer, prefix.problem)
    for step in prefix.steps:
        ids += encode_text(tokenizer, step.text)
    start = len(ids)
    while len(ids) < start + n_tokens:
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    return ids[start:]


def test_greedy_equals_full_passes(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    tokenizer = load_tokenizer(tiny_lm)
    settings = SamplingSettings(temperature=0, max_new_tokens=25)
    drawn = policy.complete(PREFIXES, 2, settings, [0, 0, 0])
    for prefix, completions in zip(PREFIXES, drawn, strict=True):
        expected = tokenizer.decode(slow_greedy(tiny_lm, prefix, 25), skip_special_tokens=True)
        assert [c.text for c in completions] == [expected] * 2


def test_small_batches_draw_the_same(tiny_lm):
    settings = SamplingSettings(max_new_tokens=20)
    wide = HFPolicy(tiny_lm, device="cpu").complete(PREFIXES, 5, settings, [1, 2, 3])
    narrow = HFPolicy(tiny_lm, device="cpu", max_rows=2).complete(PREFIXES, 5, settings, [1, 2, 3])
    assert wide == narrow


def test_prefix_is_read_once_for_all_its_completions(tiny_lm, monkeypatch):
    policy = HFPolicy(tiny_lm, device="cpu")
    shapes = []
    forward = policy._model.forward

    def counted(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(policy._model, "forward", counted)
    policy.complete(PREFIXES[:1], 16, SamplingSettings(max_new_tokens=3), [0])
    assert shapes[0][0] == 1
    assert shapes[0][1] > 1
    assert all(width == 1 for _, width in shapes[1:])


def test_a_prefix_that_fills_the_context_is_refused(tiny_lm):
    long = Trajectory(problem=Problem(id="long", prompt=" 1" * 1100))
    with pytest.raises(InputTooLong, match=r"'long' has 1102 tokens.*at most 1024"):
        HFPolicy(tiny_lm, device="cpu").complete([long], 1, SamplingSettings(), [0])


def test_completions_end_at_the_context(tiny_lm):
    nearly = Trajectory(problem=Problem(id="nearly", prompt=" 1" * 1015))
    drawn = HFPolicy(tiny_lm, device="cpu").complete(
        [nearly, PREFIXES[0]], 4, SamplingSettings(max_new_tokens=50), [0, 0]
    )
    # 1015 numbers and two marks: 7 positions are left.
    assert max(c.n_tokens for c in drawn[0]) == 7
    assert max(c.n_tokens for c in drawn[1]) > 7


def test_special_tokens_in_a_question_stay_text(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    ids = encode_question(tokenizer, Problem(id="x", prompt="a<|end|>b<|solution|>"))
    specials = [i for i in ids if i in tokenizer.all_special_ids]
    assert tokenizer.convert_ids_to_tokens(specials) == ["<|problem|>", "<|solution|>"]
    assert tokenizer.decode(ids[1:-1]) == "a<|end|>b<|solution|>"


def test_seeds_must_match_prefixes(tiny_lm):
    with pytest.raises(ValueError, match="1 seeds for 3 prefixes"):
        HFPolicy(tiny_lm, device="cpu").complete(PREFIXES, 1, SamplingSettings(), [0])


def frequencies(probs, temperature, top_p, n=40_000):
    """How often each token comes, over evenly spread chance."""
    logits = torch.log(torch.tensor([probs])).expand(n, -1)
    uniforms = (torch.arange(n) + 0.5) / n
    return np.bincount(pick(logits, uniforms, temperature, top_p), minlength=len(probs)) / n


def test_pick_by_hand():
    probs = [0.1, 0.4, 0.2, 0.3]
    assert frequencies(probs, 1.0, 1.0) == pytest.approx(probs, abs=1e-3)
    # Temperature 0.5 squares: 1, 16, 4, 9 of 30.
    assert frequencies(probs, 0.5, 1.0) == pytest.approx(
        [1 / 30, 16 / 30, 4 / 30, 9 / 30], abs=1e-3
    )
    # .4, then .7, then .9 first reaches .75: the last token falls out.
    assert frequencies(probs, 1.0, 0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=1e-3)
    assert frequencies(probs, 1.0, 0.4) == pytest.approx([0, 1, 0, 0], abs=1e-3)
    assert frequencies(probs, 0.0, 1.0).tolist() == [0, 1, 0, 0]


def test_pick_never_takes_an_impossible_token():
    logits = torch.tensor([[0.0, float("-inf"), 0.0]])
    for u in (0.0, 0.5, 0.999999, 1.0):
        assert int(pick(logits, torch.tensor([u]), 1.0, 1.0)) in (0, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop": ("",)}, "stop"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**settings)
