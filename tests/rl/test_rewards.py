"""Rewards of steps, by hand and by what must hold of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.aggregate import softmin
from prmkit.rl import rewards
from prmkit.rl.returns import min_to_go, reward_to_go, spread
from rl_batches import NAN, Batch, batches, numbers, plain, same, step_of_token

# Three steps, one step, none.
ENDS = torch.tensor([[1, 3, 4], [2, -1, -1], [-1, -1, -1]])
SCORES = torch.tensor([[0.5, 0.25, 1.0], [0.75, NAN, NAN], [NAN, NAN, NAN]])
ALL = torch.ones(3, 5, dtype=torch.bool)


def test_place_by_hand():
    # The second row has two steps that end at 1, one of them empty: 2 + 3.
    ends = torch.tensor([[0, 3, -1], [1, 1, 2], [-1, -1, -1]])
    steps = torch.tensor([[1.0, -2.0, NAN], [2.0, 3.0, 4.0], [NAN, NAN, NAN]])
    found = rewards.place(steps, ends, 4)
    assert found.tolist() == [[1, 0, 0, -2], [0, 5, 4, 0], [0, 0, 0, 0]]
    assert rewards.place(steps[2:], ends[2:], 0).shape == (1, 0)


@given(batches())
def test_place_loses_nothing(batch):
    found = rewards.place(batch.steps, batch.ends, batch.mask.shape[1])
    for i, (_, ends, steps) in enumerate(batch.rows()):
        expected = [
            sum(s for s, e in zip(steps, ends, strict=False) if e == t)
            for t in range(batch.mask.shape[1])
        ]
        same(found[i], expected)


def test_outcome_dense_clip_and_delta_by_hand():
    right = torch.tensor([True, False, True])
    assert rewards.outcome(right, ENDS).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    signed = rewards.outcome(torch.tensor([-1.0, 0.5, 1.0]), ENDS)
    assert signed.tolist() == [[0, 0, -1], [0.5, 0, 0], [0, 0, 0]]
    assert rewards.dense(SCORES, ENDS).tolist() == [[0.5, 0.25, 1], [0.75, 0, 0], [0, 0, 0]]
    # min(s - 1/2, 0).
    assert rewards.clip(SCORES, ENDS, 0.5).tolist() == [[0, -0.25, 0], [0, 0, 0], [0, 0, 0]]
    # 0.5 - 0.25, 0.25 - 1, 1.
    assert rewards.delta(SCORES, ENDS).tolist() == [[0.25, -0.75, 1], [0.75, 0, 0], [0, 0, 0]]


def test_progress_by_hand():
    # 0.5 - 0.25, 0.25 - 0.5, 1 - 0.25; 0.75 - 0.5.
    found = rewards.progress(SCORES, ENDS, torch.tensor([0.25, 0.5, 0.9]))
    assert found.tolist() == [[0.25, -0.25, 0.75], [0.25, 0, 0], [0, 0, 0]]
    assert rewards.progress(SCORES, ENDS, 0.5)[0].tolist() == [0, -0.25, 0.75]


def test_min_form_by_hand():
    # With τ = 1/ln 2: e^(-s/τ) = 2^-s, for scores 0 and 1 weights 2/3 and 1/3.
    ends = torch.tensor([[0, 1]])
    found = rewards.min_form(torch.tensor([[0.0, 1.0]]), ends, 1 / math.log(2))
    same(found, [[0.0, 1 / 3]], 1e-6)
    # Scores -1 and 1: weights 4/5 and 1/5.
    found = rewards.min_form(torch.tensor([[-1.0, 1.0]]), ends, 1 / math.log(2))
    same(found, [[-0.8, 0.2]], 1e-6)
    # Strict: all at the first of the lowest.
    low = torch.tensor([[0.5, 0.25, 0.25], [0.75, NAN, NAN], [NAN, NAN, NAN]])
    found = rewards.min_form(low, ENDS, 0)
    assert found.tolist() == [[0, 0.25, 0], [0.75, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="must be 0"):
        rewards.min_form(SCORES, ENDS, -0.1)


@given(batches(), st.sampled_from([0.05, 0.1, 1.0, 50.0]))
def test_min_form_adds_up_to_softmin(batch, temperature):
    """The return of the first step lies between the lowest score and the mean, however many."""
    found = rewards.min_form(batch.steps, batch.ends, temperature)
    strict = rewards.min_form(batch.steps, batch.ends, 0)
    for i, (_, ends, steps) in enumerate(batch.rows()):
        own = steps[: len(ends)]
        if own:
            same(found[i].sum(), softmin(own, temperature))
            assert min(own) - 1e-9 <= found[i].sum() <= sum(own) / len(own) + 1e-9
            same(strict[i].sum(), min(own))


def test_more_good_steps_pay_in_sum_form_and_not_in_min_form():
    """The hack that PURE is about: 1, 10 or 100 good steps before one bad one."""
    sums, soft, strict = [], [], []
    for n in (1, 10, 100):
        scores = torch.tensor([[0.9] * n + [-0.5]], dtype=torch.float64)
        ends = torch.arange(n + 1)[None]
        mask = torch.ones(1, n + 1, dtype=torch.bool)

        def total(steps, ends=ends, mask=mask):
            return reward_to_go(rewards.place(steps, ends, mask.shape[1]), mask)[0, 0].item()

        sums.append(total(rewards.dense(scores, ends)))
        soft.append(total(rewards.min_form(scores, ends, 0.1)))
        strict.append(total(rewards.min_form(scores, ends, 0)))
        assert min_to_go(scores, ends).tolist() == [[-0.5] * (n + 1)]
    assert sums == pytest.approx([0.4, 8.5, 89.5])  # 0.9 n - 0.5
    assert strict == pytest.approx([-0.5] * 3)
    # A weight of e^-14 for each good step: 100 of them move it by 1.4 · 100 · e^-14 at most.
    assert soft == pytest.approx([-0.5] * 3, abs=1.4 * 100 * math.exp(-14))


@given(batches())
def test_delta_telescopes(batch):
    """Summed over later steps it is the score again; so is progress, from the other side."""
    found = rewards.delta(batch.steps, batch.ends).flip(1).cumsum(1).flip(1)
    there = batch.ends >= 0
    same(found.where(there, 0.0), rewards.dense(batch.steps, batch.ends))
    gained = rewards.progress(batch.steps, batch.ends, 0.25).cumsum(1) + 0.25
    same(gained.where(there, 0.0), rewards.dense(batch.steps, batch.ends))
    assert (rewards.clip(batch.steps, batch.ends, 0.3) <= 0).all()


def test_best_of_by_hand():
    # 1 - (3/4)^2 = 7/16.
    assert rewards.best_of(torch.tensor([0.0, 0.25, 1.0]), 2).tolist() == [0, 0.4375, 1]


def test_progress_under_by_hand():
    # 0.5 + 2 (0.75 - 0.5), 0.25 + 2 (0.5 - 0.75), 1 + 2 (1 - 0.5).
    prover = torch.tensor([[0.75, 0.5, 1.0], [0.75, NAN, NAN], [NAN, NAN, NAN]])
    found = rewards.progress_under(SCORES, prover, ENDS, 2.0, 0.5)
    assert found.tolist() == [[1.0, -0.25, 2.0], [1.25, 0, 0], [0, 0, 0]]


def test_implicit_by_hand():
    ratios = torch.tensor([[1.0, 2.0, NAN, 4.0, 8.0, 16.0]])
    mask = torch.tensor([[True, True, False, True, True, True]])
    ends = torch.tensor([[1, 1, 4, -1]])
    # Steps: tokens 0 and 1; none; tokens 3 and 4. Token 5 belongs to none.
    assert rewards.implicit(ratios, mask, ends, 0.5).tolist() == [[1.5, 0, 6, 0]]
    assert rewards.implicit_tokens(ratios, mask, 0.5).tolist() == [[0.5, 1, 0, 2, 4, 8]]


@given(batches(), st.sampled_from([1.0, 200.0]))
def test_prl_is_the_kl_penalty_from_the_ends_on(batch, eta):
    found = rewards.prl(batch.tokens, batch.mask, batch.ends, eta)
    for i, (own, ends, _) in enumerate(batch.rows()):
        expected = [-sum(batch.tokens[i, t].item() for t in own if t >= e) / eta for e in ends]
        same(found[i], expected + [0.0] * (len(found[i]) - len(ends)))


def test_length_normalised_mixed_and_consensus_by_hand():
    found = rewards.length_normalised(torch.tensor([[1.0, 2.0, 3.0]]).expand(3, 3), ENDS)
    same(found, [[1 / 3, 2 / 3, 1], [1, 0, 0], [0, 0, 0]], 1e-6)
    root = rewards.length_normalised(SCORES, ENDS, 0.5)[0]
    same(root, [x / math.sqrt(3) for x in (0.5, 0.25, 1)], 1e-6)
    assert torch.equal(rewards.length_normalised(SCORES, ENDS, 0), rewards.dense(SCORES, ENDS))
    process, outcomes = rewards.dense(SCORES, ENDS), torch.full((3, 3), 2.0)
    outcomes[1] = NAN
    found = rewards.mixed(process, outcomes, torch.tensor([0.5, 0.0, 0.0]))
    assert found.tolist() == [[1.5, 1.25, 2], [0.75, 0, 0], [0, 0, 0]]
    assert rewards.mixed(process[:1], outcomes[:1], 1.0).tolist() == [[2.5, 2.25, 3]]
    scores = torch.tensor([[0.75, 0.25, 0.5], [0.25, NAN, NAN], [NAN, NAN, NAN]])
    # A right solution: only the first step is above 1/2.
    found = rewards.consensus(scores, torch.tensor([True, False, True]), ENDS)
    assert found.tolist() == [[0.25, 0, 0], [-0.25, 0, 0], [0, 0, 0]]
    # A wrong one: what is above is not praised.
    found = rewards.consensus(scores, torch.tensor([False, True, False]), ENDS)
    assert found.tolist() == [[0, -0.25, 0], [0, 0, 0], [0, 0, 0]]


EVERY = {
    "outcome": lambda b: rewards.outcome(b.rewards, b.ends),
    "dense": lambda b: rewards.dense(b.steps, b.ends),
    "progress": lambda b: rewards.progress(b.steps, b.ends, b.rewards),
    "min_form": lambda b: rewards.min_form(b.steps, b.ends),
    "strict": lambda b: rewards.min_form(b.steps, b.ends, 0),
    "clip": lambda b: rewards.clip(b.steps, b.ends, 0.1),
    "delta": lambda b: rewards.delta(b.steps, b.ends),
    "progress_under": lambda b: rewards.progress_under(b.steps, 1 - b.steps, b.ends, 0.5),
    "implicit": lambda b: rewards.implicit(b.tokens, b.mask, b.ends, 0.05),
    "prl": lambda b: rewards.prl(b.tokens, b.mask, b.ends, 20),
    "length_normalised": lambda b: rewards.length_normalised(b.steps, b.ends),
    "mixed": lambda b: rewards.mixed(
        rewards.dense(b.steps, b.ends), rewards.outcome(b.rewards, b.ends), b.rewards
    ),
    "consensus": lambda b: rewards.consensus(b.steps, b.rewards > 0, b.ends),
}


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20)
@given(batch=batches(), random=st.randoms(use_true_random=False))
def test_padding_changes_nothing_and_order_neither(name, batch, random):
    function, n_steps = EVERY[name], batch.ends.shape[1]
    found = function(batch)
    assert found.shape == batch.ends.shape
    assert found.isfinite().all()
    assert (found[batch.ends < 0] == 0).all()
    padded = function(batch.padded())
    same(padded[:, :n_steps], found)
    assert (padded[:, n_steps:] == 0).all()
    order = random.sample(range(len(found)), len(found))
    same(function(batch.permuted(order)), found[order])


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_differences(name):
    ends = torch.tensor([[0, 0, 2], [1, -1, -1]])
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])

    def of(steps, tokens, own):
        return EVERY[name](Batch(mask, ends, torch.zeros(2), steps, tokens, own))

    torch.manual_seed(0)
    inputs = [
        torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3), (2, 4), (2,))
    ]
    assert torch.autograd.gradcheck(of, inputs)


def test_half_precision_is_widened():
    found = rewards.min_form(SCORES.bfloat16(), ENDS)
    assert found.dtype == torch.float32


# A tree of two steps with two choices each; the policy's logits are its five parameters.


class Tree:
    """Rewards of the four leaves, and values of the nodes under a policy."""

    leaves = torch.tensor([[1.0, 0.25], [0.5, 0.0]], dtype=torch.float64)

    def __init__(self, logits):
        self.first, self.second = logits[0].log_softmax(-1), logits[1:].log_softmax(-1)
        self.joint = self.first[:, None].exp() * self.second.exp()

    def values(self):
        """Of the root, and after each first step."""
        after = (self.second.exp() * self.leaves).sum(1)
        return (self.first.exp() * after).sum(), after


def gradient_of(weights):
    """The policy gradient Σ_y π(y) Σ_k w_k(y) ∇ log π(a_k): weights [2, 2 leaves, 2 steps]."""
    logits = LOGITS.clone().requires_grad_()
    tree = Tree(logits)
    steps = torch.stack([tree.first[:, None].expand(2, 2), tree.second], dim=-1)
    (tree.joint.detach()[..., None] * weights.detach() * steps).sum().backward()
    return logits.grad


LOGITS = torch.tensor([[0.3, -0.2], [1.0, 0.1], [-0.4, 0.6]], dtype=torch.float64)
TWO_STEPS = torch.arange(2).expand(4, 2)
BOTH = torch.ones(4, 2, dtype=torch.bool)


def values_of_prefixes(tree):
    """[4 leaves, 2 steps] Q, and the value of the root."""
    root, after = tree.values()
    return torch.stack([after[:, None].expand(2, 2), tree.leaves], -1).reshape(4, 2), root


def outcome_gradient():
    logits = LOGITS.clone().requires_grad_()
    Tree(logits).values()[0].backward()
    return logits.grad


def test_policy_gradient_of_returns_is_that_of_the_expected_outcome():
    earned = rewards.outcome(Tree.leaves.reshape(4), TWO_STEPS)
    to_go = reward_to_go(rewards.place(earned, TWO_STEPS, 2), BOTH)
    same(gradient_of(to_go.reshape(2, 2, 2)), outcome_gradient())


def test_progress_under_the_policy_itself_is_the_outcome_again():
    """PAV with μ = π: 1 + α times the gradient of the outcome; with another prover it is not."""
    q, root = values_of_prefixes(Tree(LOGITS))
    found = rewards.progress_under(q, q, TWO_STEPS, 3.0, root)
    same(gradient_of(found.reshape(2, 2, 2)), 4 * outcome_gradient())
    # Where Q^π is not known the outcome stands for it.
    sampled = Tree.leaves.reshape(4, 1).expand(4, 2)
    found = rewards.progress_under(sampled, q, TWO_STEPS, 3.0, root)
    same(gradient_of(found.reshape(2, 2, 2)), 4 * outcome_gradient())
    other, other_root = values_of_prefixes(Tree(-2 * LOGITS))
    found = rewards.progress_under(q, other, TWO_STEPS, 3.0, other_root)
    assert not torch.allclose(gradient_of(found.reshape(2, 2, 2)), 4 * outcome_gradient())


def test_progress_summed_over_later_steps_teaches_the_outcome_alone():
    """The trap: whoever the prover is, A^μ telescopes; `delta` of the weights keeps them."""
    q, _ = values_of_prefixes(Tree(LOGITS))
    prover, root = values_of_prefixes(Tree(-2 * LOGITS))
    advantage = rewards.progress(prover, TWO_STEPS, root)
    to_go = reward_to_go(rewards.place(advantage, TWO_STEPS, 2), BOTH)
    same(gradient_of(to_go.reshape(2, 2, 2)), outcome_gradient())
    weights = rewards.progress_under(q, prover, TWO_STEPS, 3.0, root)
    kept = rewards.place(rewards.delta(weights, TWO_STEPS), TWO_STEPS, 2)
    same(reward_to_go(kept, BOTH), spread(weights, TWO_STEPS, BOTH))


def test_prl_is_the_gradient_of_reward_less_kl():
    """E[r] - 1/η KL(π ‖ π_ref), exactly, with steps of one token."""
    eta = 5.0
    logits = LOGITS.clone().requires_grad_()
    tree, reference = Tree(logits), Tree(torch.zeros_like(LOGITS))
    divergence = (tree.joint * (tree.joint.log() - reference.joint.log())).sum()
    (tree.values()[0] - divergence / eta).backward()
    with torch.no_grad():
        of_steps = [
            torch.stack([t.first[:, None].expand(2, 2), t.second], -1).reshape(4, 2)
            for t in (tree, reference)
        ]
        process = rewards.prl(of_steps[0] - of_steps[1], BOTH, TWO_STEPS, eta)
        penalty = rewards.implicit_tokens(of_steps[0] - of_steps[1], BOTH, -1 / eta)
        same(spread(process, TWO_STEPS, BOTH), reward_to_go(penalty, BOTH))
        weights = Tree.leaves.reshape(4, 1) + spread(process, TWO_STEPS, BOTH)
    same(gradient_of(weights.reshape(2, 2, 2)), logits.grad)


@given(batches(), numbers)
def test_spread_of_implicit_steps_agrees_with_tokens(batch, beta):
    """A step's reward is the sum over its tokens of the tokens' rewards."""
    steps = rewards.implicit(batch.tokens, batch.mask, batch.ends, beta)
    tokens = rewards.implicit_tokens(batch.tokens, batch.mask, beta)
    for i, (own, ends, _) in enumerate(batch.rows()):
        for k in range(len(ends)):
            same(steps[i, k], sum(tokens[i, t].item() for t in own if step_of_token(ends, t) == k))


@pytest.mark.parametrize("name", EVERY)
def test_nothing_waits_for_the_device(name):
    assert EVERY[name](plain().without_data()).device.type == "meta"
