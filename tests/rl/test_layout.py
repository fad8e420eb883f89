"""Responses in tensors, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prmkit.rl import layout
from rl_batches import batches, numbers, same, step_of_token


def test_steps_of_tokens_by_hand():
    # Steps end at 1, 1 (empty) and 4; the response has a token more. An empty first step has end 0.
    ends = torch.tensor([[1, 1, 4, -1], [0, 2, -1, -1], [-1, -1, -1, -1]])
    found = layout.step_of(ends, 6)
    assert found.tolist() == [[0, 0, 2, 2, 2, 3], [0, 1, 1, 2, 2, 2], [0] * 6]


@given(batches())
def test_steps_of_tokens_and_their_sums(batch):
    found = layout.step_of(batch.ends, batch.mask.shape[1])
    sums = layout.sum_over_steps(batch.tokens, batch.mask, batch.ends)
    for i, (own, ends, _) in enumerate(batch.rows()):
        expected = [0.0] * batch.ends.shape[1]
        for t in range(batch.mask.shape[1]):
            k = step_of_token(ends, t)
            assert found[i, t] == (len(ends) if k is None else k)
            if t in own and k is not None:
                expected[k] += batch.tokens[i, t].item()
        same(sums[i], expected)


@given(st.lists(st.tuples(numbers, st.floats(0, 1.5)), min_size=1, max_size=20))
def test_the_recurrence_is_that_of_a_loop(items):
    x, d = (torch.tensor([part], dtype=torch.float64) for part in zip(*items, strict=True))
    expected, after = [], 0.0
    for number, decay in reversed(items):
        after = number + decay * after
        expected.append(after)
    same(layout.from_the_end(x, d)[0], expected[::-1])


def test_the_recurrence_holds_where_powers_underflow():
    # 0.5^5000 is 0 in any format. A sum of halves of ones is 2 everywhere but at the end.
    ones = torch.ones(1, 5000)
    found = layout.from_the_end(ones, ones / 2)
    assert found[0, :4000].tolist() == [2.0] * 4000
    assert found[0, -2:].tolist() == [1.5, 1.0]


@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), numbers), min_size=1, max_size=12))
def test_sums_over_groups(items):
    group = torch.tensor([g for g, _ in items])
    x = torch.tensor([n for _, n in items], dtype=torch.float64)
    numbered = layout.group_numbers(group)
    assert sorted(set(numbered.tolist())) == list(range(len(set(group.tolist()))))
    found = layout.sum_over_group(x, numbered)
    same(found, [sum(n for h, n in items if h == g) for g, _ in items])


def test_the_lowest_of_a_group():
    # Group 0: 3, 1, 2 less 1. Group 1: 0.1 alone. A response with nothing there takes no part.
    x = torch.tensor([[3.0, 1.0], [0.1, -9.0], [2.0, -9.0], [-9.0, -9.0]])
    there = torch.tensor([[True, True], [True, False], [True, False], [False, False]])
    found = layout.above_lowest(x, there, torch.tensor([0, 1, 0, 1]))
    assert found.tolist() == [[2, 0], [0, 0], [1, 0], [0, 0]]


def test_what_is_not_there_is_zero_and_shapes_must_agree():
    nan = torch.tensor([[float("nan"), 2.0]], dtype=torch.bfloat16, requires_grad=True)
    found = layout.where_there(nan, torch.tensor([[False, True]]))
    assert found.tolist() == [[0.0, 2.0]]
    assert found.dtype == torch.float32
    found.sum().backward()
    assert nan.grad.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for places of shape \(1, 3\)"):
        layout.where_there(nan, torch.ones(1, 3, dtype=torch.bool))
