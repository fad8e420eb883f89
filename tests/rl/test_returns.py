"""Returns, by hand and against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.rl import returns
from rl_batches import NAN, batches, plain, same, step_of_token


def test_reward_to_go_by_hand():
    # Token 2 is not the policy's: 4 + 1/2 · 8 = 8, 2 + 1/2 · 8 = 6, 1 + 1/2 · 6 = 4.
    rewards = torch.tensor([[1.0, 2.0, NAN, 4.0, 8.0, NAN]])
    mask = torch.tensor([[True, True, False, True, True, False]])
    assert returns.reward_to_go(rewards, mask, 0.5).tolist() == [[4, 6, 0, 8, 8, 0]]
    assert returns.reward_to_go(rewards, mask).tolist() == [[15, 14, 0, 12, 8, 0]]
    assert returns.reward_to_go(rewards, mask, 0.0).tolist() == [[1, 2, 0, 4, 8, 0]]


def test_min_to_go_and_spread_by_hand():
    ends = torch.tensor([[1, 1, 3], [0, -1, -1], [-1, -1, -1]])
    scores = torch.tensor([[0.5, 1.0, 0.75], [0.25, NAN, NAN], [NAN, NAN, NAN]])
    assert returns.min_to_go(scores, ends).tolist() == [
        [0.5, 0.75, 0.75],
        [0.25, 0, 0],
        [0, 0, 0],
    ]
    # The second step has no token; token 2 of the first row is not the policy's; token 4 is later.
    mask = torch.tensor([[True, True, False, True, True], [True] * 5, [False] * 5])
    found = returns.spread(scores, ends, mask)
    assert found.tolist() == [[0.5, 0.5, 0, 0.75, 0], [0.25, 0, 0, 0, 0], [0] * 5]


def test_gae_by_hand():
    # γ = λ = 1/2, rewards 1 and 2 at tokens 0 and 2, values 4 and 8; token 1 is passed over.
    #   δ_2 = 2 - 8 = -6,  δ_0 = 1 + 1/2 · 8 - 4 = 1
    #   A_2 = -6,  A_0 = 1 + 1/4 · -6 = -1/2
    rewards, values = torch.tensor([[1.0, NAN, 2.0, NAN]]), torch.tensor([[4.0, NAN, 8.0, NAN]])
    mask = torch.tensor([[True, False, True, False]])
    advantages, targets = returns.gae(rewards, values, mask, 0.5, 0.5)
    assert advantages.tolist() == [[-0.5, 0, -6, 0]]
    assert targets.tolist() == [[3.5, 0, 2, 0]]


def test_gae_by_steps_by_hand():
    # Three turns of 2, 1 and 2 tokens, rewards at their ends; γ = λ = 1/2. The values before their
    # first tokens are 4, 8 and 2; those within turns count for nothing.
    #   δ_2 = 3 - 2 = 1,  δ_1 = 1 + 1/2 · 2 - 8 = -6,  δ_0 = 2 + 1/2 · 8 - 4 = 2
    #   A_2 = 1,  A_1 = -6 + 1/4 · 1 = -5.75,  A_0 = 2 + 1/4 · -5.75 = 0.5625
    rewards = torch.tensor([[0.0, 2.0, 1.0, 0.0, 3.0, NAN]])
    values = torch.tensor([[4.0, 100.0, 8.0, 2.0, -50.0, NAN]])
    mask = torch.tensor([[True] * 5 + [False]])
    found = returns.gae_by_steps(rewards, values, torch.tensor([[1, 2, 4, -1]]), mask, 0.5, 0.5)
    assert found.advantages.tolist() == [[0.5625, -5.75, 1, 0]]
    assert found.returns.tolist() == [[4.5625, 2.25, 3, 0]]
    assert found.there.tolist() == [[True, True, True, False]]
    assert found.first.tolist() == [[0, 2, 3, 0]]


def test_a_step_without_tokens_is_no_step_of_time():
    # The second has no tokens; what it earns is the first's, at whose end it is placed.
    rewards, values = torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 4.0]])
    mask, ends = torch.tensor([[True, True]]), torch.tensor([[0, 0, 1]])
    found = returns.gae_by_steps(rewards, values, ends, mask, 0.5, 1.0)
    assert found.there.tolist() == [[True, False, True]]
    assert found.advantages.tolist() == [[1.5, 0, -3]]


def test_the_discount_of_a_step_is_at_its_last_token():
    # Tokens 2 and 3 are not the policy's: the last one of the second step is token 4.
    mask = torch.tensor([[True, True, False, False, True, True]])
    found = returns.discounts(torch.tensor([[1, 1, 4, -1]]), mask, 0.5)
    assert found.tolist() == [[1, 0.5, 1, 1, 0.5, 1]]
    rewards = torch.tensor([[0.0, 1.0, NAN, NAN, 4.0, 8.0]])
    # 4 + 1/2 · 8 = 8, 1 + 1/2 · 8 = 5
    assert returns.reward_to_go(rewards, mask, found).tolist() == [[5, 5, 0, 0, 8, 8]]


shares = st.sampled_from([0.0, 0.3, 0.95, 1.0])


@given(batches(), shares, shares)
def test_gae_and_reward_to_go_are_those_of_loops(batch, gamma, lam):
    values = torch.cos(batch.tokens * 7)
    to_go = returns.reward_to_go(batch.tokens, batch.mask, gamma)
    advantages, targets = returns.gae(batch.tokens, values, batch.mask, gamma, lam)
    for i, (own, *_) in enumerate(batch.rows()):
        n = batch.mask.shape[1]
        expected, estimates, expected_targets = [0.0] * n, [0.0] * n, [0.0] * n
        after, advantage, value = 0.0, 0.0, 0.0
        for t in reversed(own):
            reward, here = batch.tokens[i, t].item(), values[i, t].item()
            after = reward + gamma * after
            advantage = reward + gamma * value - here + gamma * lam * advantage
            value = here
            expected[t], estimates[t], expected_targets[t] = after, advantage, advantage + here
        same(to_go[i], expected)
        same(advantages[i], estimates)
        same(targets[i], expected_targets)


@given(batches(), shares, shares)
def test_gae_and_discounts_by_steps_are_those_of_loops(batch, gamma, lam):
    values = torch.cos(batch.tokens * 7)
    found = returns.gae_by_steps(batch.tokens, values, batch.ends, batch.mask, gamma, lam)
    to_go = returns.reward_to_go(
        batch.tokens, batch.mask, returns.discounts(batch.ends, batch.mask, gamma)
    )
    for i, (own, ends, _) in enumerate(batch.rows()):
        tokens = [[t for t in own if step_of_token(ends, t) == k] for k in range(len(ends))]
        n = batch.ends.shape[1]
        estimates, targets, first = [0.0] * n, [0.0] * n, [0] * n
        advantage, value = 0.0, 0.0
        for k in reversed(range(len(ends))):
            if not tokens[k]:
                continue
            reward = sum(batch.tokens[i, t].item() for t in tokens[k])
            first[k] = tokens[k][0]
            here = values[i, first[k]].item()
            advantage = reward + gamma * value - here + gamma * lam * advantage
            value = here
            estimates[k], targets[k] = advantage, advantage + here
        same(found.advantages[i], estimates)
        same(found.returns[i], targets)
        assert found.first[i].tolist() == first
        assert found.there[i].tolist() == [k < len(ends) and bool(tokens[k]) for k in range(n)]
        expected, after = [0.0] * batch.mask.shape[1], 0.0
        last = {of_one[-1] for of_one in tokens if of_one}
        for t in reversed(own):
            after = batch.tokens[i, t].item() + (gamma if t in last else 1.0) * after
            expected[t] = after
        same(to_go[i], expected)


@given(batches(), shares)
def test_with_lambda_1_the_targets_are_the_returns(batch, gamma):
    _, targets = returns.gae(batch.tokens, torch.sin(batch.tokens), batch.mask, gamma, 1.0)
    same(targets, returns.reward_to_go(batch.tokens, batch.mask, gamma))


@given(batches())
def test_min_to_go_and_spread_are_those_of_loops(batch):
    ahead = returns.min_to_go(batch.steps, batch.ends)
    tokens = returns.spread(batch.steps, batch.ends, batch.mask)
    for i, (own, ends, steps) in enumerate(batch.rows()):
        real = steps[: len(ends)]
        rest = [0.0] * (batch.ends.shape[1] - len(ends))
        same(ahead[i], [min(real[k:]) for k in range(len(real))] + rest)
        expected = [0.0] * batch.mask.shape[1]
        for t in own:
            k = step_of_token(ends, t)
            expected[t] = 0.0 if k is None else steps[k]
        same(tokens[i], expected)


EVERY = {
    "reward_to_go": lambda b: returns.reward_to_go(b.tokens, b.mask, 0.9),
    "min_to_go": lambda b: returns.min_to_go(b.steps, b.ends),
    "spread": lambda b: returns.spread(b.steps, b.ends, b.mask),
    "gae": lambda b: torch.cat(returns.gae(b.tokens, b.tokens.cos(), b.mask), 0),
}


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20)
@given(batch=batches())
def test_padding_changes_nothing(name, batch):
    found, padded = EVERY[name](batch), EVERY[name](batch.padded())
    same(padded[:, : found.shape[1]], found)
    assert (padded[:, found.shape[1] :] == 0).all()


def test_gradients_are_those_of_differences():
    mask = torch.tensor([[True, False, True, True], [True, True, False, False]])
    ends = torch.tensor([[0, 2, 3], [1, -1, -1]])
    torch.manual_seed(0)
    tokens, values = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True).unbind(0)
    steps = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    tokens, values = tokens.detach().requires_grad_(), values.detach().requires_grad_()
    assert check(lambda x: returns.reward_to_go(x, mask, 0.9), tokens)
    assert check(lambda x, v: returns.gae(x, v, mask, 0.9, 0.8), (tokens, values))
    assert check(lambda x: returns.min_to_go(x, ends), steps)
    assert check(lambda x: returns.spread(x, ends, mask), steps)


def test_half_precision_is_widened_and_no_token_is_no_error():
    ones = torch.ones(1, 600, dtype=torch.bfloat16)
    # In bfloat16 the sum would stop at 256.
    found = returns.reward_to_go(ones, ones.bool())
    assert found.dtype == torch.float32
    assert found[0, 0] == 600
    none = torch.zeros(2, 0)
    assert returns.reward_to_go(none, none.bool()).shape == (2, 0)
    assert returns.gae(none, none, none.bool())[0].shape == (2, 0)
    assert returns.min_to_go(none, none.long()).shape == (2, 0)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_waits_for_the_device(name):
    assert EVERY[name](plain().without_data()).device.type == "meta"
