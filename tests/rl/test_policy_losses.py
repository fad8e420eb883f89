"""Losses of policies, by hand, against differences, and by the gradients that they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.errors import UnknownName
from prmkit.rl import advantages, policy_losses
from rl_batches import NAN, batches, numbers, plain, same

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


MASK = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
NUMBERS = tensor([1.0, 3.0, NAN], [8.0, NAN, NAN], [NAN] * 3)


def test_averages_by_hand():
    # (1 + 3 + 8) / 3; (2 + 8) / 2, as the third response has no token; 12 / (3 · 4).
    assert policy_losses.average_of(NUMBERS, MASK).item() == 4
    assert policy_losses.average_of(NUMBERS, MASK, "token", 24).item() == 0.5
    assert policy_losses.average_of(NUMBERS, MASK, "response").item() == 5
    assert policy_losses.average_of(NUMBERS, MASK, "max_tokens", 4).item() == 1
    nothing = torch.zeros_like(MASK)
    for average, n in (("token", None), ("token", 0), ("response", None), ("max_tokens", 4)):
        assert policy_losses.average_of(NUMBERS, nothing, average, n).item() == 0
    with pytest.raises(ValueError, match="needs n_tokens"):
        policy_losses.average_of(NUMBERS, MASK, "max_tokens")
    with pytest.raises(ValueError, match="leave it out"):
        policy_losses.average_of(NUMBERS, MASK, "response", 4)
    with pytest.raises(UnknownName, match="average"):
        policy_losses.average_of(NUMBERS, MASK, "mean")


def test_clipped_by_hand():
    # Ratios 2, 2, 1/2, 1/2, 1 with advantages 1, -1, 1, -1, 5 and a range of [0.8, 1.3].
    #   min(2, 1.3) = 1.3, stopped;  min(-2, -1.3) = -2
    #   min(0.5, 0.8) = 0.5;         min(-0.5, -0.8) = -0.8, stopped;   5
    new, old = tensor([LN2, LN2, 0, 0, 0, NAN]), tensor([0, 0, LN2, LN2, 0, NAN])
    gains = tensor([1.0, -1.0, 1.0, -1.0, 5.0, NAN])
    mask = ~gains.isnan()
    loss, share = policy_losses.clipped(new, old, gains, mask, 0.2, 0.3)
    assert loss.item() == pytest.approx(-(1.3 - 2 + 0.5 - 0.8 + 5) / 5)
    assert share.item() == pytest.approx(2 / 5)
    # A dual bound of 1.5: the second is -1.5, stopped as well.
    loss, share = policy_losses.clipped(new, old, gains, mask, 0.2, 0.3, dual=1.5)
    assert loss.item() == pytest.approx(-(1.3 - 1.5 + 0.5 - 0.8 + 5) / 5)
    assert share.item() == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="above 1"):
        policy_losses.clipped(new, old, gains, mask, dual=1.0)


def test_only_tokens_within_the_range_teach():
    new = tensor([LN2, LN2, 0, 0, 0]).requires_grad_()
    gains = tensor([1.0, -1.0, 1.0, -1.0, 5.0])
    old, mask = tensor([0, 0, LN2, LN2, 0]), torch.ones(1, 5, dtype=torch.bool)
    policy_losses.clipped(new, old, gains, mask, average="max_tokens", n_tokens=1)[0].backward()
    # d/dx of -A e^x is -A times the ratio.
    same(new.grad, [[0, 2, -0.5, 0, -5]])
    new.grad = None
    policy_losses.clipped(new, old, gains, mask, dual=1.5, n_tokens=1)[0].backward()
    same(new.grad, [[0, 0, -0.5, 0, -5]])


def test_far_ratios_are_no_infinity():
    new = tensor([1000.0, 1000.0]).requires_grad_()
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = policy_losses.clipped(new, tensor([0.0, 0.0]), tensor([0.0, -1.0]), mask)
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(20) / 2)
    assert new.grad.isfinite().all()


def test_at_the_policy_that_wrote_clipped_and_reinforce_have_one_gradient():
    torch.manual_seed(0)
    new = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
    gains, mask = torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 4) > 0.3
    for average, n in (("token", None), ("response", None), ("max_tokens", 7)):
        one = policy_losses.reinforce(new, gains, mask, average, n)
        two = policy_losses.clipped(new, new, gains, mask, average=average, n_tokens=n)[0]
        same(*(torch.autograd.grad(loss, new)[0] for loss in (one, two)))


def test_policy_gradient_of_two_arms_is_the_analytic_one():
    """J = p r_1 + (1 - p) r_2 with p = σ(θ): dJ/dθ = p (1 - p) (r_1 - r_2)."""
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    earned, p = tensor(2.0, -1.0), torch.sigmoid(theta).item()
    logs = torch.stack([theta, -theta]).sigmoid().log()[:, None]
    # Each arm counts as often as it is drawn: p and 1 - p, by way of the advantages.
    often = tensor(p, 1 - p)[:, None]
    mask = torch.ones(2, 1, dtype=torch.bool)
    for baseline in (0.0, 0.4):
        gains = advantages.reinforce(earned[:, None], mask, 1.0, baseline) * often
        loss = policy_losses.reinforce(logs, gains, mask, "max_tokens", 1) * 2
        gradient = torch.autograd.grad(-loss, theta, retain_graph=True)[0]
        assert gradient.item() == pytest.approx(p * (1 - p) * 3)


def test_kl_by_hand_and_in_the_mean():
    # π 1/2, π_ref 1/4: d = -ln 2: k1 = ln 2, k2 = ln² 2 / 2, k3 = 1/2 - 1 + ln 2.
    new, reference = tensor(-LN2), tensor(-LN4)
    assert policy_losses.kl(new, reference, "k1").item() == pytest.approx(LN2)
    assert policy_losses.kl(new, reference, "k2").item() == pytest.approx(LN2**2 / 2)
    assert policy_losses.kl(new, reference, "k3").item() == pytest.approx(LN2 - 0.5)
    with pytest.raises(UnknownName, match="KL"):
        policy_losses.kl(new, reference, "k4")
    # π = (1/4, 3/4), π_ref = (1/2, 1/2): KL = 1/4 ln 1/2 + 3/4 ln 3/2.
    p, q = tensor(0.25, 0.75), tensor(0.5, 0.5)
    divergence = 0.25 * -LN2 + 0.75 * (LN3 - LN2)
    for kind in ("k1", "k3"):
        assert (p * policy_losses.kl(p.log(), q.log(), kind)).sum().item() == pytest.approx(
            divergence
        )
    # Far below the reference, in bfloat16: no infinity.
    far = policy_losses.kl(torch.tensor(-500.0).bfloat16(), torch.tensor(0.0).bfloat16())
    assert far.isfinite()
    assert far.dtype == torch.float32


def test_what_the_gradients_of_kl_estimates_are():
    logits = tensor(0.3, -0.5, 1.0).requires_grad_()
    q = tensor(0.2, 0.5, 0.3)

    def gradient(of):
        return torch.autograd.grad(of, logits)[0]

    def in_the_mean(kind):
        logs = logits.log_softmax(0)
        return gradient((logs.exp().detach() * policy_losses.kl(logs, q.log(), kind)).sum())

    logs = logits.log_softmax(0)
    divergence = gradient((logs.exp() * (logs - q.log())).sum())
    backward = gradient((q * (q.log() - logits.log_softmax(0))).sum())
    same(in_the_mean("k1"), [0.0, 0, 0])
    same(in_the_mean("k2"), divergence)
    same(in_the_mean("k3"), backward)


@given(numbers, numbers)
def test_k3_is_never_below_zero(one, other):
    assert policy_losses.kl(tensor(one), tensor(other), "k3").item() >= 0


def test_value_loss_by_hand():
    # V 1, old 0, G 2, clip 1/2: max(1, (1/2 - 2)²) / 2 = 9/8.  V 3, old 3, G 1: 4 / 2.
    values, old = tensor([1.0, 3.0, NAN]), tensor([0.0, 3.0, NAN])
    targets, mask = tensor([2.0, 1.0, NAN]), torch.tensor([[True, True, False]])
    found = policy_losses.value_loss(values, old, targets, mask, 0.5)
    assert found.item() == pytest.approx((1.125 + 2) / 2)
    # Without: (1 + 4) / 2 / 2.
    assert policy_losses.value_loss(values, old, targets, mask, None).item() == 1.25
    assert policy_losses.value_loss(values, old, targets, mask, None, 5).item() == 0.5


def test_entropy_by_hand():
    # (1/4, 3/4, 0): 1/4 ln 4 + 3/4 ln 4/3.
    logits = tensor([[0.0, LN3, -math.inf], [0.0, 0.0, 0.0]], [[0.0, 0.0, -math.inf]] * 2)
    by_hand = [[LN4 / 4 + 0.75 * (LN4 - LN3), LN3], [LN2, LN2]]
    for chunk in (1, 3, 1024):
        same(policy_losses.entropy(logits, chunk), by_hand)
    assert policy_losses.entropy(torch.zeros(2, 0, 5)).shape == (2, 0)
    with pytest.raises(ValueError, match="chunk"):
        policy_losses.entropy(logits, 0)


def test_entropy_learns_in_chunks_as_in_one():
    logits = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.manual_seed(0))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: policy_losses.entropy(x, 3), logits)
    masked = tensor([0.5, LN3, -math.inf]).requires_grad_()
    policy_losses.entropy(masked).sum().backward()
    assert masked.grad.isfinite().all()


def test_preferences_by_hand():
    # β = 1/2: better 2 ln 3 + 1 - 1, worse 0: σ(ln 3) = 3/4. The second pair: σ(0).
    better, worse = tensor([2 * LN3, 1, -1, NAN], [1.0, 5, 5, NAN]), tensor([NAN, 0], [1.0, 0])
    own = torch.tensor([[True, True, True, False], [True, False, False, False]])
    others = torch.tensor([[False, True], [True, False]])
    by_hand = (LN4 - LN3 + LN2) / 2
    for loss in (policy_losses.step_dpo, policy_losses.trajectory_dpo):
        assert loss(better, worse, own, others, 0.5).item() == pytest.approx(by_hand)
        assert loss(better, worse, own, others, 0.5, 8).item() == pytest.approx(by_hand / 4)
        for n in (None, 0, 2):
            assert loss(better[:0], worse[:0], own[:0], others[:0], n_pairs=n).item() == 0
    # Per token: (2 ln 3 + 0) / 3 · 3/2 = ln 3 with β = 3/2.
    found = policy_losses.trajectory_dpo(
        better[:1], worse[:1], own[:1], others[:1], 1.5, per_token=True
    )
    assert found.item() == pytest.approx(LN4 - LN3)


def test_a_common_prefix_cancels():
    torch.manual_seed(0)
    prefix, better, worse = (torch.randn(4, n, dtype=torch.float64) for n in (3, 2, 5))
    whole = [torch.cat([prefix, step], 1) for step in (better, worse)]
    every = [torch.ones_like(x, dtype=torch.bool) for x in whole]
    steps = [mask.clone() for mask in every]
    for mask in steps:
        mask[:, :3] = False
    same(policy_losses.step_dpo(*whole, *steps), policy_losses.trajectory_dpo(*whole, *every))


LOSSES = {
    "clipped": lambda x, o, a, m, n: policy_losses.clipped(x, o, a, m, 0.2, 0.3, 2.0, "token", n)[
        0
    ],
    "reinforce": lambda x, o, a, m, n: policy_losses.reinforce(x, a, m, "max_tokens", n),
    "value_loss": lambda x, o, a, m, n: policy_losses.value_loss(x, o, a, m, 0.2, n),
    "kl": lambda x, o, a, m, n: policy_losses.average_of(policy_losses.kl(x, o), m, "token", n),
    "step_dpo": lambda x, o, a, m, n: policy_losses.step_dpo(x, o, m, m, 0.5, n),
    "trajectory_dpo": lambda x, o, a, m, n: policy_losses.trajectory_dpo(x, a, m, m, 0.5, n),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_differences(name):
    torch.manual_seed(1)
    inputs = [torch.randn(3, 4, dtype=torch.float64) for _ in range(3)]
    mask = torch.rand(3, 4) > 0.3
    inputs[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, *inputs[1:], mask, 5), inputs[0])
    (gradient,) = torch.autograd.grad(LOSSES[name](*inputs, mask, 5), inputs[0])
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=20)
@given(batch=batches(), data=st.data())
def test_padding_changes_nothing_and_parts_add_up(name, batch, data):
    def loss(batch, n):
        return LOSSES[name](batch.tokens, batch.tokens.cos(), -batch.tokens, batch.mask, n)

    found = loss(batch, 3)
    assert found.isfinite()
    same(loss(batch.padded(), 3), found)
    order = data.draw(st.permutations(range(len(batch.mask))))
    same(loss(batch.permuted(list(order)), 3), found)
    if name == "reinforce":
        return  # Its average is over responses too.
    cut = data.draw(st.integers(0, len(batch.mask)))
    parts = (batch.permuted(slice(0, cut)), batch.permuted(slice(cut, None)))
    same(sum(loss(part, 3) for part in parts), found)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_waits_for_the_device(name):
    batch = plain().without_data()
    found = LOSSES[name](batch.tokens, batch.tokens, batch.tokens, batch.mask, 5)
    assert found.device.type == "meta"
