"""Advantages, by hand, against plain loops, and by what must hold of them."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prmkit.errors import UnknownName
from prmkit.rl import advantages, returns, rewards
from rl_batches import NAN, Batch, batches, plain, same


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_grpo_by_hand():
    # Problem 5: rewards 1, 0, 0, 1, mean 1/2, sample deviation sqrt(4/4 / 3) = 1/sqrt 3.
    # Problem -2: one response. They are not neighbours.
    earned, group = tensor(1.0, 9.0, 0.0, 0.0, 1.0), torch.tensor([5, -2, 5, 5, 5])
    mask = torch.tensor([[True, True], [True, True], [True, False], [False, False], [False, True]])
    half = 0.5 * math.sqrt(3)
    found = advantages.grpo(earned, group, mask, eps=0.0 + 1e-12)
    same(found, [[half, half], [0, 0], [-half, 0], [0, 0], [0, half]])
    found = advantages.grpo(earned, group, mask, "none")
    same(found, [[0.5, 0.5], [0, 0], [-0.5, 0], [0, 0], [0, 0.5]])
    # All rewards 1, 9, 0, 0, 1: mean 11/5, squares 83 - 121/5 = 294/5, over 4 = 14.7.
    found = advantages.grpo(earned, group, mask, "batch", eps=0)
    same(found[0], [0.5 / math.sqrt(14.7)] * 2)
    with pytest.raises(UnknownName, match="scale"):
        advantages.grpo(earned, group, mask, "std")


def test_rloo_by_hand():
    # 1 - (0 + 3)/2, 0 - (1 + 3)/2, 3 - (1 + 0)/2.
    mask = torch.ones(4, 1, dtype=torch.bool)
    found = advantages.rloo(tensor(1.0, 0.0, 7.0, 3.0), torch.tensor([1, 1, 2, 1]), mask)
    same(found[:, 0], [-0.5, -2, 0, 2.5])


def test_grpo_process_by_hand():
    # Steps 1, 0 of one response and 1 of the other; the third response has no step.
    #   mean 2/3, sample deviation sqrt((1/9 + 4/9 + 1/9) / 2) = 1/sqrt 3
    #   normalised: 1/sqrt 3, -2/sqrt 3, 1/sqrt 3
    ends = torch.tensor([[0, 2], [1, -1], [-1, -1]])
    steps = tensor([1.0, 0.0], [1.0, NAN], [NAN, NAN])
    group, mask = torch.zeros(3, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool)
    found = advantages.grpo_process(steps, ends, group, mask, eps=0)
    one = 1 / math.sqrt(3)
    same(found, [[-one, -2 * one, -2 * one, 0], [one, one, 0, 0], [0] * 4])


def test_credit_of_grpo_process_grows_with_the_number_of_steps():
    """The trap: of two right solutions that are scored alike, the longer has more credit."""
    short, long, bad = [1.0] + [NAN] * 7, [1.0] * 8, [0.0] + [NAN] * 7
    steps = tensor(short, long, bad)
    ends = torch.arange(8).expand(3, 8).masked_fill(steps.isnan(), -1)
    group, mask = torch.zeros(3, dtype=torch.long), ends >= 0
    found = advantages.grpo_process(steps, ends, group, mask)
    same(found[1, 0] / found[0, 0], 8, 1e-6)
    # The same in min form: all right steps together are worth one, and in mean form as well.
    shares = rewards.length_normalised(steps, ends)
    same(shares.sum(1), [1.0, 1.0, 0.0])
    same(rewards.min_form(steps, ends).sum(1), [1.0, 1.0, 0.0])


def test_prime_by_hand():
    # Tokens 1, 3 of a right answer; 4 of a wrong one (then padding); and one without tokens.
    #   baselines: 4 of the first, mean(1, 3) = 2 of the second; without tokens no other
    #   first: (1 - 4) + (3 - 4), 3 - 4; second: 4 - 2
    tokens = tensor([1.0, 3.0], [4.0, NAN], [NAN, NAN])
    mask = ~tokens.isnan()
    group = torch.tensor([3, 3, 3])
    same(advantages.rloo_process(tokens, group, mask), [[-4, -1], [2, 0], [0, 0]])
    same(advantages.rloo_process(tokens, group, mask, 0.5), [[-3.5, -1], [2, 0], [0, 0]])
    # Outcomes 1, 0, 0: 1 - 0, 0 - 1/2. The largest return is 4.
    right = torch.tensor([True, False, False])
    found = advantages.prime(tokens, right, group, mask)
    same(found, [[-1 + 1, -0.25 + 1], [0.5 - 0.5, 0], [0, 0]])
    found = advantages.prime(tokens, right, group, mask, process=2.0, outcome=5.0, scaled=False)
    same(found, [[-8 + 5, -2 + 5], [4 - 2.5, 0], [0, 0]])


@given(batches(), st.sampled_from([1.0, 0.9]))
def test_prime_has_a_baseline_for_each_source(batch, gamma):
    """Equation 5 in loops: a mean over tokens for process rewards, a mean for outcomes."""
    found = advantages.prime(
        batch.tokens, batch.rewards, batch.group, batch.mask, gamma, 1.5, 0.5, scaled=False
    )
    rows = [own for own, *_ in batch.rows()]
    for i, own in enumerate(rows):
        others = batch.others(i)
        means = [
            sum(batch.tokens[j, t].item() for t in rows[j]) / len(rows[j])
            for j in others
            if rows[j]
        ]
        result = 0.0
        if others:
            result = batch.rewards[i].item() - statistics.fmean(
                batch.rewards[j].item() for j in others
            )
        expected, after = [0.0] * batch.mask.shape[1], 0.0
        for t in reversed(own):
            if means:
                after = batch.tokens[i, t].item() - statistics.fmean(means) + gamma * after
            expected[t] = 1.5 * after + 0.5 * result
        same(found[i], expected)


def test_prime_without_any_reward_is_no_nan():
    mask, group = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    found = advantages.prime(torch.zeros(2, 3), torch.tensor([True, False]), group, mask)
    assert found.tolist() == [[1, 1, 1], [-1, -1, -1]]


def test_beta_cancels_where_prime_is_scaled():
    torch.manual_seed(0)
    tokens, mask = torch.randn(4, 6), torch.rand(4, 6) > 0.2
    right, group = torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    once = advantages.prime(rewards.implicit_tokens(tokens, mask, 0.05), right, group, mask)
    again = advantages.prime(rewards.implicit_tokens(tokens, mask, 1.0), right, group, mask)
    torch.testing.assert_close(once, again)


def test_pure_by_hand():
    # Strict: the first earns 0.2 at its second step, the other -0.4 at its only one.
    # Tokens: 4 (steps of 1 and 2, and one after) and 2. Baselines: -0.4/2, 0.2/4.
    #   first: step 2: 0.2 + 0.2 · 2 = 0.6; step 1: 0 + 0.2 · 1 + 0.6 = 0.8
    #   other: -0.4 - 0.05 · 2 = -0.5
    scores, ends = tensor([0.9, 0.2], [-0.4, NAN]), torch.tensor([[0, 2], [1, -1]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    group = torch.tensor([8, 8])
    found = advantages.pure(scores, ends, group, mask, temperature=0)
    same(found, [[0.8, 0.6, 0.6, 0], [-0.5, -0.5, 0, 0]])
    # Outcomes 1 and 0: +λ and -λ at all tokens.
    right = torch.tensor([True, False])
    found = advantages.pure(scores, ends, group, mask, 0, right, weight=2.0)
    same(found, [[2.8, 2.6, 2.6, 2], [-2.5, -2.5, 0, 0]])


@given(batches())
def test_pure_is_that_of_loops(batch):
    found = advantages.pure(batch.steps, batch.ends, batch.group, batch.mask, 0.5)
    rows = list(batch.rows())
    earned = []
    for _, ends, steps in rows:
        low = min(steps[: len(ends)], default=0.0)
        weights = [math.exp((low - s) / 0.5) for s in steps[: len(ends)]]
        earned.append([w * s / sum(weights) for w, s in zip(weights, steps, strict=False)])
    for i, (own, ends, _) in enumerate(rows):
        tokens = sum(len(rows[j][0]) for j in batch.others(i))
        expected = [0.0] * batch.mask.shape[1]
        if tokens:
            baseline = sum(sum(earned[j]) for j in batch.others(i)) / tokens
            begins = [-1, *ends]
            for t in own:
                for k, end in enumerate(ends):
                    if end >= t:
                        mine = sum(begins[k] < s <= end for s in own)
                        expected[t] += earned[i][k] - baseline * mine
        same(found[i], expected)


def test_papo_by_hand():
    # Right: 1, 1, 0, 0: ± sqrt 3 / 2. Process among the right: 0.8 and 0.4, deviation 0.4/sqrt 2.
    right = torch.tensor([True, True, False, False])
    process = tensor(0.8, 0.4, 0.9, NAN)
    mask = torch.ones(4, 1, dtype=torch.bool)
    found = advantages.papo(right, process, torch.ones(4).long(), mask, weight=0.1, eps=1e-12)
    half, part = math.sqrt(3) / 2, 0.1 * 0.2 / (0.4 / math.sqrt(2))
    torch.testing.assert_close(
        found[:, 0], tensor(half + part, half - part, -half, -half), rtol=1e-5, atol=1e-6
    )
    # A group that is all right still teaches; a lone right one has nobody beside it.
    both = advantages.papo(right[:2], process[:2], torch.ones(2).long(), mask[:2])
    same(both[:, 0], [math.sqrt(0.5), -math.sqrt(0.5)], 1e-5)
    alone = advantages.papo(right[1:3], process[1:3], torch.ones(2).long(), mask[:2])
    torch.testing.assert_close(
        alone, advantages.grpo(right[1:3], torch.ones(2).long(), mask[:2]), check_dtype=False
    )


def test_whiten_and_reinforce_by_hand():
    # 1, 2, 3: mean 2, sample deviation 1.
    values = torch.tensor([[1.0, NAN, 2.0], [3.0, NAN, NAN]])
    mask = ~values.isnan()
    same(advantages.whiten(values, mask), [[-1, 0, 0], [1, 0, 0]], 1e-6)
    same(advantages.whiten(values, mask, shift=False), [[1, 0, 2], [3, 0, 0]], 1e-6)
    # Returns with γ = 1/2: 1 + 1/2 · 2 = 2, 2; 3. Less 1, less (1, 2).
    same(advantages.reinforce(values, mask, 0.5, 1.0), [[1, 0, 1], [2, 0, 0]])
    same(advantages.reinforce(values, mask, 0.5, torch.tensor([1, 2])), [[1, 0, 1], [1, 0, 0]])
    less = torch.tensor([[2.0, 0, 1], [0, 5, 5]])
    same(advantages.reinforce(values, mask, 0.5, less), [[0, 0, 1], [3, 0, 0]])
    # 3, 2 and 3: mean 8/3, deviation 1/sqrt 3.
    one = 1 / math.sqrt(3)
    found = advantages.reinforce_plus_plus(values, mask)
    same(found, [[one, 0, -2 * one], [one, 0, 0]], 1e-6)
    assert advantages.whiten(values[:, 1:2], mask[:, 1:2]).tolist() == [[0], [0]]


@given(batches())
def test_ppo_is_whitened_gae(batch):
    values = batch.tokens.cos()
    found = advantages.ppo(batch.tokens, values, batch.mask, 0.9, 0.8)
    plain = returns.gae(batch.tokens, values, batch.mask, 0.9, 0.8)[0]
    own = plain[batch.mask].tolist()
    if len(own) > 1 and statistics.stdev(own) > 1e-3:
        mean, deviation = statistics.fmean(own), statistics.stdev(own)
        same(found[batch.mask], [(x - mean) / deviation for x in own], 1e-4)
    assert (found[~batch.mask] == 0).all()


@given(batches(), st.sampled_from(["group", "batch", "none"]))
def test_grpo_and_its_process_form_are_those_of_loops(batch, scale):
    eps = 1e-3
    found = advantages.grpo(batch.rewards, batch.group, batch.mask, scale, eps)
    process = advantages.grpo_process(batch.steps, batch.ends, batch.group, batch.mask, scale, eps)
    rows = list(batch.rows())
    every = batch.rewards.tolist()
    real = [steps[: len(ends)] for _, ends, steps in rows]

    def divisor(own, whole):
        chosen = {"group": own, "batch": whole, "none": []}[scale]
        if scale == "none":
            return 1.0
        return (statistics.stdev(chosen) if len(chosen) > 1 else 0.0) + eps

    for i, (own, ends, _) in enumerate(rows):
        members = [i, *batch.others(i)]
        beside = [every[j] for j in members]
        outcome = (every[i] - statistics.fmean(beside)) / divisor(beside, every)
        together = [s for j in members for s in real[j]]
        whole = [s for steps in real for s in steps]
        expected, of_steps = [0.0] * batch.mask.shape[1], [0.0] * batch.mask.shape[1]
        for t in own:
            expected[t] = outcome
            if sum(bool(real[j]) for j in members) > 1:
                of_steps[t] = sum(
                    (s - statistics.fmean(together)) / divisor(together, whole)
                    for s, e in zip(real[i], ends, strict=True)
                    if e >= t
                )
        same(found[i], expected, 1e-7)
        same(process[i], of_steps, 1e-7)


def right(batch):
    return batch.rewards > 0


EVERY = {
    "grpo": lambda b: advantages.grpo(b.rewards, b.group, b.mask),
    "grpo batch": lambda b: advantages.grpo(b.rewards, b.group, b.mask, "batch"),
    "grpo none": lambda b: advantages.grpo(b.rewards, b.group, b.mask, "none"),
    "grpo_process": lambda b: advantages.grpo_process(b.steps, b.ends, b.group, b.mask),
    "rloo": lambda b: advantages.rloo(b.rewards, b.group, b.mask),
    "rloo_process": lambda b: advantages.rloo_process(b.tokens, b.group, b.mask, 0.9),
    "prime": lambda b: advantages.prime(b.tokens, right(b), b.group, b.mask),
    "pure": lambda b: advantages.pure(b.steps, b.ends, b.group, b.mask, correct=right(b)),
    "papo": lambda b: advantages.papo(right(b), b.rewards, b.group, b.mask),
    "reinforce": lambda b: advantages.reinforce(b.tokens, b.mask, 0.9, 0.1),
    "reinforce_plus_plus": lambda b: advantages.reinforce_plus_plus(b.tokens, b.mask),
    "ppo": lambda b: advantages.ppo(b.tokens, b.tokens.cos(), b.mask),
    "whiten": lambda b: advantages.whiten(b.tokens, b.mask),
}
GROUPED = [
    name for name in EVERY if name not in ("reinforce", "reinforce_plus_plus", "ppo", "whiten")
]


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20)
@given(batch=batches(), random=st.randoms(use_true_random=False))
def test_padding_changes_nothing_and_order_neither(name, batch, random):
    function, n_tokens = EVERY[name], batch.mask.shape[1]
    found = function(batch)
    assert found.shape == batch.mask.shape
    assert found.isfinite().all()
    assert (found[~batch.mask] == 0).all()
    padded = function(batch.padded())
    same(padded[:, :n_tokens], found, 1e-6)
    assert (padded[:, n_tokens:] == 0).all()
    order = random.sample(range(len(found)), len(found))
    same(function(batch.permuted(order)), found[order], 1e-6)


@pytest.mark.parametrize("name", GROUPED)
@settings(max_examples=20)
@given(batch=batches(), other=st.integers(-(2**40), 2**40))
def test_numbers_of_groups_mean_nothing_and_one_alone_has_no_advantage(name, batch, other):
    function = EVERY[name]
    assume(other not in (-7, 0, 3))
    renamed = batch._replace(group=batch.group.where(batch.group != 3, other))
    same(function(renamed), function(batch), 1e-6)
    alone = batch._replace(group=torch.arange(len(batch.group)) * 5 - 3)
    assert (function(alone) == 0).all()


@pytest.mark.parametrize(
    "name", ["grpo", "grpo batch", "grpo none", "grpo_process", "rloo", "rloo_process"]
)
@settings(max_examples=20)
@given(batch=batches(), constant=st.floats(-5, 5))
def test_a_constant_more_changes_nothing(name, batch, constant):
    more = batch._replace(
        rewards=batch.rewards + constant,
        steps=batch.steps + constant,
        tokens=batch.tokens + constant,
    )
    # Differences below ε of the divisor are noise of rounding.
    same(EVERY[name](more), EVERY[name](batch), 1e-6)


@pytest.mark.parametrize("name", ["grpo", "grpo batch", "grpo_process", "rloo", "rloo_process"])
@settings(max_examples=20)
@given(batch=batches(), factor=st.sampled_from([0.5, 3.0, 100.0]))
def test_a_factor(name, batch, factor):
    """Goes out of what is divided by a deviation, and into what is not."""
    scaled = batch._replace(
        rewards=batch.rewards * factor, steps=batch.steps * factor, tokens=batch.tokens * factor
    )
    expected = EVERY[name](batch) * (factor if "rloo" in name else 1)
    torch.testing.assert_close(EVERY[name](scaled), expected, rtol=5e-3, atol=1e-6)


UNEQUAL = ("pure", "reinforce", "ppo", "reinforce_plus_plus")
"""Lengths, values and places in the response play a part in these."""


@pytest.mark.parametrize("name", [name for name in EVERY if name not in UNEQUAL])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_equal_rewards_are_exactly_no_advantage(name, kind):
    """0.1 has no exact mean: nothing may be left to be divided by a deviation of nothing."""
    mask = torch.ones(7, 9, dtype=torch.bool)
    group = torch.tensor([4, 4, 4, 1, 1, 1, 1])
    same_for_all = [torch.full(shape, 0.1, dtype=kind) for shape in ((7, 3), (7, 9), (7,))]
    ends = torch.tensor([2, 5, 8]).expand(7, 3)
    found = EVERY[name](Batch(mask, ends, group, *same_for_all))
    assert (found == 0).all()
    assert found.dtype == torch.promote_types(kind, torch.float32)


def test_advantages_are_constants():
    earned = torch.randn(2, requires_grad=True)
    mask, group = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    assert not advantages.grpo(earned, group, mask).requires_grad
    tokens = torch.randn(2, 3, requires_grad=True)
    for found in (
        advantages.rloo_process(tokens, group, mask),
        advantages.prime(tokens, earned, group, mask),
        advantages.papo(earned > 0, earned, group, mask),
        advantages.whiten(tokens, mask, shift=False),
        advantages.reinforce(tokens, mask, baseline=earned),
        advantages.ppo(tokens, tokens, mask),
        advantages.pure(tokens, torch.arange(3).expand(2, 3), group, mask, correct=earned),
    ):
        assert not found.requires_grad


@pytest.mark.parametrize("name", EVERY)
def test_nothing_waits_for_the_device(name):
    assert EVERY[name](plain().without_data()).device.type == "meta"
