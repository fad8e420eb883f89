"""Losses against numbers worked out by hand, and what must hold of all of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prmkit.labelling.promise_progress import temporal_targets
from prmkit.training import losses
from prmkit.training.heads import HeadObjective
from prmkit.training.targets import Example

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_cross_entropy_by_hand():
    # softmax(0, ln 3) = (1/4, 3/4).
    logits = tensor([0.0, LN3])
    one = tensor(1.0)
    right = losses.cross_entropy(logits, tensor([0.0, 1.0]), one)  # -ln 3/4
    wrong = losses.cross_entropy(logits, tensor([1.0, 0.0]), one)  # -ln 1/4
    soft = losses.cross_entropy(logits, tensor([0.25, 0.75]), one)  # 1/4 ln 4 + 3/4 ln 4/3
    assert right.item() == pytest.approx(LN4 - LN3)
    assert wrong.item() == pytest.approx(LN4)
    assert soft.item() == pytest.approx(0.25 * LN4 + 0.75 * (LN4 - LN3))
    # Two steps, of weights 2 and 1/2: 2 · ln 4/3 + 1/2 · ln 4.
    both = losses.cross_entropy(
        logits.repeat(2, 1), tensor([0.0, 1.0], [1.0, 0.0]), tensor(2.0, 0.5)
    )
    assert both.item() == pytest.approx(2 * (LN4 - LN3) + 0.5 * LN4)


def test_cross_entropy_of_three_classes_by_hand():
    # softmax(0, 0, ln 2) = (1/4, 1/4, 1/2).
    logits = tensor([0.0, 0.0, LN2], [0.0, 0.0, LN2])
    targets = tensor([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    assert losses.cross_entropy(logits, targets, tensor(1.0, 1.0)).item() == pytest.approx(
        LN4 + LN2
    )


def test_binary_cross_entropy_by_hand():
    # σ(ln 3) = 3/4.
    found = losses.binary_cross_entropy(
        tensor(LN3, LN3, LN3), tensor(1.0, 0.0, 0.75), tensor(1.0, 1.0, 2.0)
    )
    by_hand = (LN4 - LN3) + LN4 + 2 * (0.75 * (LN4 - LN3) + 0.25 * LN4)
    assert found.item() == pytest.approx(by_hand)
    # Far out it is a straight line, and no infinity: -ln σ(-1000) = 1000.
    far = losses.binary_cross_entropy(tensor(1000.0), tensor(0.0), tensor(1.0))
    assert far.item() == pytest.approx(1000)


def test_squared_error_by_hand():
    # 2 · (3/4 - 1)² + (1/2 - 0)² = 1/8 + 1/4.
    found = losses.squared_error(tensor(0.75, 0.5), tensor(1.0, 0.0), tensor(2.0, 1.0))
    assert found.item() == pytest.approx(0.375)


def test_ranking_by_hand():
    # Right steps of values 0 and ln 2, a wrong one of value 0; ζ = ln 2, so the wrong one weighs 2.
    #   t = 1: e^0 / (e^0 + 2) = 1/3        t = 2: 2 / (1 + 2 + 2) = 2/5
    #   L = (ln 3 + ln 5/2) / 2
    values, right = tensor(0.0, LN2, 0.0), torch.tensor([True, True, False])
    one = torch.zeros(3, dtype=torch.long)
    by_hand = (LN3 + math.log(2.5)) / 2
    assert losses.ranking(values, right, one, LN2).item() == pytest.approx(by_hand)
    # Where the wrong step stands plays no part.
    again = losses.ranking(values[[2, 0, 1]], right[[2, 0, 1]], one, LN2)
    assert again.item() == pytest.approx(by_hand)
    # ζ = 4 by default; a wrong step of value -4 weighs 1: 1/2 and 2/4.
    far = losses.ranking(tensor(0.0, LN2, -4.0), right, one)
    assert far.item() == pytest.approx(LN2)
    # No wrong step: 1/1 and 2/3. No right step: no term.
    assert losses.ranking(values[:2], right[:2], one[:2]).item() == pytest.approx(
        (0 + math.log(1.5)) / 2
    )
    assert losses.ranking(values, ~torch.ones(3, dtype=torch.bool), one).item() == 0


def test_pairs_by_hand():
    # σ(ln 3) = 3/4, σ(0) = 1/2.
    found = losses.pairwise(tensor(LN3 + 5, 1.0), tensor(5.0, 1.0))
    assert found.item() == pytest.approx((LN4 - LN3) + LN2)
    assert losses.pairwise(tensor()[:0], tensor()[:0]).item() == 0
    # Groups 0 and 1; of group 0 two better than one, of group 1 nothing to compare.
    targets, groups = tensor(1.0, 0.0, 0.5, 1.0, 1.0), torch.tensor([0, 0, 0, 1, 1])
    better, worse = losses.pairs_of(targets, groups)
    assert sorted(zip(better, worse, strict=True)) == [(0, 1), (0, 2), (2, 1)]


def test_implicit_losses_by_hand():
    # β r = ln 3 for r = 20 ln 3 and β = 1/20.
    ratios = tensor(20 * LN3, 20 * LN3)
    found = losses.implicit_cross_entropy(ratios, tensor(1.0, 0.0), tensor(1.0, 3.0))
    assert found.item() == pytest.approx((LN4 - LN3) + 3 * LN4)
    preferred = losses.direct_preference(tensor(10 * LN3 + 7), tensor(7.0), beta=0.1)
    assert preferred.item() == pytest.approx(LN4 - LN3)


def test_half_precision_is_widened():
    logits = torch.tensor([[0.0, 9.0]], dtype=torch.bfloat16)
    targets, weights = torch.tensor([[0.0, 1.0]]), torch.ones(1)
    found = losses.cross_entropy(logits, targets, weights)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(math.log1p(math.exp(-9)), rel=1e-3)


numbers = st.floats(-30, 30, allow_nan=False)
steps = st.lists(
    st.tuples(numbers, numbers, st.floats(0, 1), st.floats(0.1, 3)), min_size=1, max_size=12
)


@given(st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=9))
def test_soft_labels_of_0_and_1_are_hard_labels(items):
    """As torch has them for hard labels, of two classes and of one logit."""
    logits = torch.tensor([(a, b) for a, b, _ in items], dtype=torch.float64)
    classes = torch.tensor([int(c) for *_, c in items])
    ones = torch.ones(len(items), dtype=torch.float64)
    functional = torch.nn.functional
    hard = functional.cross_entropy(logits, classes, reduction="sum")
    shares = functional.one_hot(classes, 2).double()
    assert losses.cross_entropy(logits, shares, ones).item() == pytest.approx(hard.item())
    hard = functional.binary_cross_entropy_with_logits(
        logits[:, 0], classes.double(), reduction="sum"
    )
    found = losses.binary_cross_entropy(logits[:, 0], classes.double(), ones)
    assert found.item() == pytest.approx(hard.item())
    # Two classes are one logit, their difference; whichever of them means "right".
    blank = torch.zeros(len(items), dtype=torch.long)
    one = losses.binary_cross_entropy(logits[:, 1] - logits[:, 0], classes.double(), ones)
    for right, columns in ((1, [0, 1]), (0, [1, 0])):
        aim = HeadObjective("cross_entropy", right, (), 2)
        two = aim.of_numbers(logits[:, columns], classes.double(), ones, blank, blank)
        assert two.item() == pytest.approx(one.item())


@given(steps, st.integers(0, 12))
def test_a_sum_over_parts_is_the_whole(items, cut):
    """Of every loss whose items are steps."""
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*items, strict=True)]
    logits, targets, weights = torch.stack(columns[:2], dim=1), columns[2], columns[3]
    shares = torch.stack([1 - targets, targets], dim=1)

    def of(part):
        return torch.stack(
            [
                losses.cross_entropy(logits[part], shares[part], weights[part]),
                losses.binary_cross_entropy(logits[part, 0], targets[part], weights[part]),
                losses.squared_error(logits[part, 0], targets[part], weights[part]),
                losses.pairwise(logits[part, 0], logits[part, 1]),
                losses.implicit_cross_entropy(logits[part, 0], targets[part], weights[part]),
                losses.direct_preference(logits[part, 0], logits[part, 1]),
            ]
        )

    whole = of(slice(None))
    assert torch.allclose(of(slice(0, cut)) + of(slice(cut, None)), whole)
    assert (whole >= 0).all()


@given(
    st.lists(
        st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=5
    ),
    st.randoms(use_true_random=False),
)
def test_ranking_is_a_sum_over_solutions_in_any_order(solutions, rng):
    def of(chosen):
        flat = [(value, right, i) for i, own in enumerate(chosen) for value, right in own]
        values, rights, owners = zip(*flat, strict=True)
        return losses.ranking(
            torch.tensor(values, dtype=torch.float64), torch.tensor(rights), torch.tensor(owners)
        ).item()

    whole = of(solutions)
    assert sum(of([own]) for own in solutions) == pytest.approx(whole)
    shuffled = rng.sample(solutions, len(solutions))
    assert of(shuffled) == pytest.approx(whole)
    # Only differences count.
    moved = [[(value + 3, right) for value, right in own] for own in solutions]
    assert of(moved) == pytest.approx(whole, abs=1e-9)


def test_promise_and_progress_by_hand():
    # Two episodes: steps 0-1-2, and step 3 alone. M = (.5, .2, .9, .4), Q̂ = (.6, .6, 1, 0).
    # Promise: (.01 + .16 + .01 + .16)/2 = .17, with weights (1, .5, 2, .5): .095.
    # Progress of 1: (-.3 - 0)² = .09, of 2: (.7 - .4)² = .09: (.5 · .09 + 2 · .09)/2 = .1125.
    values = torch.tensor([0.5, 0.2, 0.9, 0.4], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0.6, 0.6, 1.0, 0.0], dtype=torch.float64)
    follows, weights = torch.tensor([-1, 0, 1, -1]), torch.tensor([1.0, 0.5, 2.0, 0.5])
    for beta, expected in ((0.0, 0.095), (1.0, 0.2075), (2.0, 0.32)):
        found = losses.promise_progress(values, targets, follows, weights.double(), beta)
        assert found.item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(
        lambda v: losses.promise_progress(v, targets, follows, weights.double()), values
    )


def test_inverse_rewards_by_hand():
    # r = (1 - .5 · 2, 0 - .5 · 0) = (0, 0) at γ = .5; at γ = 0 r = (1, 0).
    now, following = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])
    expert, weights = torch.tensor([1.0, 0.0]), torch.ones(2)
    found = losses.inverse_reward(now, following, expert, weights, gamma=0.5)
    assert found.item() == pytest.approx(2 * math.log(2))
    found = losses.inverse_reward(now, following, expert, weights, gamma=0.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2))


def test_squared_errors_of_a_head_of_two_are_of_the_number_that_means_right():
    numbers, targets, weights = torch.tensor([[0.0, 2.0]]), tensor(0.25), tensor(2.0)
    nothing = torch.tensor([0])
    chance = 1 / (1 + math.exp(-2))
    for right, value in ((1, chance), (0, 1 - chance)):
        head = HeadObjective("squared_error", right, (), 2)
        found = head.of_numbers(numbers, targets, weights, nothing, nothing)
        assert found.item() == pytest.approx(2 * (value - 0.25) ** 2)


def test_a_logit_is_taught_by_the_weights_of_labels():
    head = HeadObjective("cross_entropy", None, (), 1)
    nothing = torch.tensor([0, 0])
    found = head.of_numbers(
        torch.tensor([[0.0], [2.0]]), tensor(1.0, 0.0), tensor(3.0, 0.5), nothing, nothing
    )
    assert found.item() == pytest.approx(3 * math.log(2) + 0.5 * math.log(1 + math.exp(2)))


def test_a_heads_ranking_has_its_margin():
    head = HeadObjective("ranking", None, (), 1, margin=1.5)
    owner = torch.tensor([0, 0])
    found = head.of_numbers(torch.zeros(2, 1), tensor(1.0, 0.0), torch.ones(2), owner, owner)
    # Of a right and a wrong step, both 0: - log [ 1 / (1 + e^1.5) ].
    assert found.item() == pytest.approx(math.log(1 + math.exp(1.5)))


def test_what_losses_are_divided_by():
    def example(*targets, weight=1.0, start=1):
        n = len(targets)
        starts = list(range(start, start + n))
        return Example([7] * 9, [8] * n, list(targets), [weight] * n, starts)

    examples = [example(1.0, 0.0), example(0.0, 0.0, weight=0.5), example(0.25, start=3)]
    for loss, items in (
        # Labels by their weights; solutions with a right step; after one token .. after three,
        # pairs of a better and a worse step: 1 and 0, none, none of one.
        ("cross_entropy", 4.0), ("progress", 4.0), ("ranking", 2), ("pairwise", 1),
    ):  # fmt: skip
        assert HeadObjective(loss, 1, (), 1).items(examples) == items


def test_a_head_learns_progress_between_the_steps_of_one_solution():
    # Numbers whose sigmoids are 1/2, 1/5, 9/10 of one solution and 2/5 of another. As above, with
    # weights (1, 1, 1, .5): .13 + .09.
    chances = tensor(0.5, 0.2, 0.9, 0.4)
    numbers = (chances / (1 - chances)).log()[:, None]
    head = HeadObjective("progress", None, (), 1)
    found = head.of_numbers(
        numbers, tensor(0.6, 0.6, 1.0, 0.0), tensor(1.0, 1.0, 1.0, 0.5),
        torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 3]),
    )  # fmt: skip
    assert found.item() == pytest.approx(0.22)
    one = head.of_numbers(
        numbers[:1], tensor(0.6), tensor(1.0), torch.tensor([0]), torch.tensor([0])
    )
    assert one.item() == pytest.approx(0.005)


promise = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(st.lists(promise, min_size=1, max_size=6), promise), max_size=5),
    promise,
    promise,
)
def test_temporal_targets_of_a_batch_are_those_of_each_episode(episodes, gamma, lam):
    rows = [(m, r, i) for i, (promises, r) in enumerate(episodes) for m in promises]
    values, outcomes, owner = (torch.tensor([row[k] for row in rows]) for k in range(3))
    values.requires_grad_(bool(rows))
    found = losses.temporal_targets(values, outcomes, owner.long(), gamma, lam)
    expected = [
        target
        for promises, outcome in episodes
        for target in temporal_targets(promises, outcome, gamma=gamma, lam=lam)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert not found.requires_grad


def test_temporal_targets_by_hand():
    # γ = .5, λ = .8; M = (.2, .6), r = 1: Q̂_2 = 1, Q̂_1 = .5 · .2 + .4 · (1 - .2) = .42.
    # Of the second episode M = .3 and r = 0, of the third the last promise counts nothing.
    found = losses.temporal_targets(
        tensor(0.2, 0.6, 0.3, 0.4, 0.9), tensor(1, 1, 0, 1, 1), torch.tensor([4, 4, 0, 4, 4]), 0.5,
        0.8,
    )  # fmt: skip
    assert found.tolist() == pytest.approx([0.42, 1, 0, 0.5 * 0.4 + 0.4 * 0.6, 1])
