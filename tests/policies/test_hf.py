"""Sampling from a causal language model, against transformers' own forward pass."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch

from prmkit.chat import encode_question, encode_text
from prmkit.checkpoints import load_causal_lm, load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.errors import InputTooLong, InvalidSetting
from prmkit.policies.base import Drawn, SamplingSettings
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


STEP = SamplingSettings(temperature=0.8, max_new_tokens=40, stop=("\n",))
GREEDY = SamplingSettings(temperature=0, max_new_tokens=40, stop=("\n",))


class Beam(NamedTuple):
    """What a beam search has drawn.

    Attributes:
        drawn: of each level, what each call gave.
        texts: all texts, as ids from the question on.
    """

    drawn: list[list[list[Drawn]]]
    texts: list[list[int]]


def beam_search(policy, n_problems, settings=STEP, width=4, expansions=4, depth=8, seed=0):
    """Steps from each of a few beams; which go on is drawn, by a seed."""
    rng = random.Random(seed)
    beams = [[policy.question_ids(problem)] for problem in problems("test", n_problems)]
    found = Beam([], [])
    for level in range(depth):
        asked = [ids for of_problem in beams for ids in of_problem]
        # The first step of each problem fills its beams.
        counts = [expansions if level else width * expansions] * len(asked)
        drawn = policy.continue_ids(asked, counts, settings, [rng.randrange(2**31) for _ in asked])
        found.drawn.append(drawn)
        children = iter(drawn)
        following = []
        for of_problem in beams:
            longer = []
            for ids, steps in zip(
                of_problem, itertools.islice(children, len(of_problem)), strict=True
            ):
                ended = [one for one in steps if one.completion.finish == "eos"]
                found.texts.extend([*ids, *one.ids] for one in ended)
                longer += [[*ids, *one.ids] for one in steps if one not in ended]
            found.texts.extend(longer)
            following.append(rng.sample(longer, min(width, len(longer))))
        beams = following
    return found


@pytest.fixture(scope="module")
def shipped():
    """A policy of the embedded world, and what it gives without keeping anything."""
    fresh = HFPolicy(WEIGHTS / "policy", device="cpu", max_kept=0)
    return fresh, beam_search(fresh, 3)


@pytest.mark.parametrize(
    ("ways", "shares"),
    [({}, True), ({}, False), ({"max_kept": 400}, True), ({"max_rows": 9}, True)],
)
def test_a_search_pays_once_for_each_token(shipped, ways, shares):
    fresh, expected = shipped
    policy = HFPolicy(WEIGHTS / "policy", device="cpu", **ways)
    policy._shares = shares
    found = beam_search(policy, 3)
    assert [plain(level) for level in found.drawn] == [plain(level) for level in expected.drawn]
    distinct = {tuple(ids[:n]) for ids in found.texts for n in range(1, len(ids) + 1)}
    assert len(found.drawn) == 8
    assert len(distinct) > 1000
    if "max_kept" in ways:
        assert len(distinct) < policy.computed < fresh.computed
    elif not ways:
        assert policy.computed <= 1.05 * len(distinct)
        assert fresh.computed > 2 * len(distinct)


def plain(drawn):
    return [[(one.completion, one.ids) for one in of_prefix] for of_prefix in drawn]


def test_a_greedy_search_draws_the_same_whatever_is_kept():
    found = [
        beam_search(HFPolicy(WEIGHTS / "policy", device="cpu", max_kept=n), 2, GREEDY)
        for n in (None, 0)
    ]
    assert found[0].texts == found[1].texts
    assert [plain(level) for level in found[0].drawn] == [plain(level) for level in found[1].drawn]


@pytest.mark.parametrize("max_kept", [None, 0])
def test_what_is_computed_is_what_is_not_cached_and_what_is_drawn(tiny_lm, max_kept):
    policy = HFPolicy(tiny_lm, device="cpu", max_kept=max_kept)
    ids = [policy._encode(prefix) for prefix in PREFIXES]
    asked = [*ids, ids[1], ids[0]]
    settings = SamplingSettings(max_new_tokens=1)
    for again in range(2):
        before = policy.computed
        drawn = policy.continue_ids(asked, [2, 1, 3, 1, 0], settings, [1, 2, 3, 4, 5])
        assert [[one.n_prompt for one in of] for of in drawn] == [
            [len(ids[0]), 0], [len(ids[1])], [len(ids[2]), 0, 0], [len(ids[1])], [],
        ]  # fmt: skip
        of_all = [one for of_prefix in drawn for one in of_prefix]
        # One token each: it is drawn and not read.
        assert policy.computed - before == sum(one.n_prompt - one.n_cached for one in of_all)
        # The same prefix with another seed has nothing to read.
        assert drawn[3][0].n_cached == len(ids[1])
        if again and max_kept is None:
            assert policy.computed - before == 3
    before = policy.computed
    longer = SamplingSettings(max_new_tokens=9)
    (drawn,) = policy.continue_ids(ids[:1], [40], longer, [7])
    spelled = [one.ids for one in drawn if one.ids is not None]
    assert len(spelled) > 20
    least = {some[:n] for some in spelled for n in range(1, len(some))}
    # Of the others, the beginnings are not known here.
    most = len(least) + sum(one.completion.n_tokens - 1 for one in drawn if one.ids is None)
    n_read = policy.computed - before - (drawn[0].n_prompt - drawn[0].n_cached)
    assert len(least) <= n_read <= most


def test_completions_are_read_once_while_they_are_alike(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    greedy = SamplingSettings(temperature=0, max_new_tokens=10)
    ids = policy._encode(PREFIXES[0])
    ((one, *others),) = policy.continue_ids([ids], [8], greedy, [0])
    assert policy.computed == len(ids) + one.completion.n_tokens - 1
    assert {other.completion for other in others} == {one.completion}


def test_what_was_drawn_is_there_to_go_on_from(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    ids = policy._encode(PREFIXES[1])
    settings = SamplingSettings(max_new_tokens=12)
    (drawn,) = policy.continue_ids([ids], [6], settings, [3])
    drawn = [one for one in drawn if one.ids]
    assert len(drawn) > 3
    longer = [[*ids, *one.ids] for one in drawn]
    following = policy.continue_ids(longer, [1] * len(longer), settings, [0] * len(longer))
    for one, (after,) in zip(drawn, following, strict=True):
        # The last token alone is left, which nobody has read.
        assert after.n_prompt == len(ids) + len(one.ids)
        assert after.n_prompt - after.n_cached == 1


def test_no_batch_is_held_in_memory_for_a_part_of_it(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    policy.complete(PREFIXES, 5, SamplingSettings(max_new_tokens=20), [1, 2, 3])
    nodes = [*policy._reader._kept._kept]
    assert len(nodes) > 10
    for node in nodes:
        assert node.keys.untyped_storage().nbytes() == node.keys.nbytes
        assert node.values.untyped_storage().nbytes() == node.values.nbytes


def test_ids_that_do_not_spell_the_text_are_not_told():
    policy = HFPolicy(WEIGHTS / "policy", device="cpu")
    (problem,) = problems("test", 1)
    ids = policy.question_ids(problem)
    ((whole,),) = policy.continue_ids([ids], [1], GREEDY, [0])
    assert policy._tokenizer.decode(whole.ids) == whole.completion.text
    inside = next(
        text for text in map(policy._text, [[token] for token in whole.ids]) if len(text) > 2
    )
    stop = SamplingSettings(temperature=0, max_new_tokens=40, stop=(inside[:2],))
    ((cut,),) = policy.continue_ids([ids], [1], stop, [0])
    assert cut.completion.finish == "stop"
    assert cut.ids is None
    special = next(i for i in policy._tokenizer.all_special_ids if i not in policy._eos)
    drawn = policy._drawn([*whole.ids, special], "length", GREEDY)
    assert drawn.completion.text == whole.completion.text
    assert drawn.ids is None


def test_ids_that_make_no_sense_are_refused(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    with pytest.raises(ValueError, match="1 counts for 2 prefixes"):
        policy.continue_ids([[1], [2]], [1], STEP, [0, 0])
    with pytest.raises(ValueError, match="3 first for 2 prefixes"):
        policy.continue_ids([[1], [2]], [1, 1], STEP, [0, 0], [0, 0, 0])
    with pytest.raises(ValueError, match="prefix 1 has no token"):
        policy.continue_ids([[1], []], [1, 1], STEP, [0, 0])
    with pytest.raises(InputTooLong, match="prefix 0 has 1024 tokens"):
        policy.continue_ids([[5] * 1024], [1], STEP, [0])
    for name in ("max_kept", "max_rows"):
        with pytest.raises(InvalidSetting, match=name):
            HFPolicy(tiny_lm, device="cpu", **{name: -1})


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


def slow_log_likelihood(path, ids, more, end, temperature):
    """One full forward pass, no cache, no padding."""
    model, _ = load_causal_lm(path, "cpu")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*ids, *more]])).logits[0].double()
    chances = torch.log_softmax(logits / temperature, dim=-1)
    total = sum(chances[len(ids) - 1 + i, token].item() for i, token in enumerate(more))
    if end:
        total += chances[-1, load_tokenizer(path).eos_token_id].item()
    return total


@pytest.mark.parametrize("settings", [{}, {"max_kept": 0}, {"max_rows": 2}, {"max_kept": 40}])
def test_likelihoods_equal_full_passes(tiny_lm, settings):
    """Of texts that were drawn or not, short and long, after what was read before and without."""
    policy = HFPolicy(tiny_lm, device="cpu", **settings)
    ids = [policy.question_ids(prefix.problem) for prefix in PREFIXES]
    texts = [[5], [7, 9, 11, 4], [*range(3, 60)], []]
    cases = [(one, more, end) for one in ids for more in texts for end in (False, True)]
    for temperature in (1.0, 0.6):
        # The second time it was all read before.
        for _ in range(2):
            found = policy.log_likelihoods(*map(list, zip(*cases, strict=True)), temperature)
            right = [slow_log_likelihood(tiny_lm, *case, temperature) for case in cases]
            assert found == pytest.approx(right, abs=1e-3)
    assert found[6] == 0.0
    assert min(found) < -100 < -20 < max(found[:2]) < 0


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_likelihoods_are_the_frequencies_of_drawing(temperature):
    """Of first tokens, and of whole short texts with their end."""
    policy = HFPolicy(WEIGHTS / "policy", device="cpu")
    ids = policy.question_ids(PREFIXES[1].problem)
    settings = SamplingSettings(temperature=temperature, max_new_tokens=3)
    n = 3000
    (drawn,) = policy.continue_ids([ids], [n], settings, [1])
    counts: dict[tuple, int] = {}
    for one in drawn:
        key = (one.ids, one.completion.finish == "eos")
        counts[key] = counts.get(key, 0) + 1
    told = [key for key in counts if key[0] is not None]
    found = policy.log_likelihoods(
        [ids] * len(told), [key[0] for key in told], [key[1] for key in told], temperature
    )
    chances = np.exp(found)
    frequencies = np.array([counts[key] for key in told]) / n
    assert len(told) > 3
    assert sum(chances) <= 1 + 1e-4
    assert np.abs(chances - frequencies).max() < 5 * np.sqrt(0.25 / n)
    assert sum(chances) > 0.8


def test_at_temperature_0_one_text_is_certain(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    ids = policy.question_ids(PREFIXES[0].problem)
    greedy = slow_greedy(tiny_lm, PREFIXES[0], 6)
    other = [*greedy[:-1], greedy[-1] + 1]
    found = policy.log_likelihoods([ids, ids], [greedy, other], [False, False], 0.0)
    assert found == [0.0, -np.inf]


def test_what_is_beyond_the_context_is_never_written(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    ids = policy.question_ids(PREFIXES[0].problem)
    room = policy._context - len(ids)
    texts = [[5] * room, [5] * room, [5] * (room + 1)]
    fits, no_end, too_long = policy.log_likelihoods([ids] * 3, texts, [False, True, False], 1.0)
    assert np.isfinite(fits)
    assert no_end == too_long == -np.inf


def test_likelihoods_read_what_is_new_alone(tiny_lm):
    policy = HFPolicy(tiny_lm, device="cpu")
    ids = policy.question_ids(PREFIXES[0].problem)
    policy.log_likelihoods([ids], [[5, 6]], [True], 1.0)
    before = policy.computed
    policy.log_likelihoods([ids, ids], [[5, 6, 7], [9]], [True, False], 1.0)
    # The last token of the prefix, whose logits are not kept, and the texts.
    assert policy.computed - before == 1 + 3 + 1
