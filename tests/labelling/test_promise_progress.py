"""Promise and progress against worlds whose values are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import InvalidSetting
from prmkit.labelling.promise_progress import (
    counted_targets,
    discounted,
    progress,
    temporal_targets,
)


def as_printed(promises, outcome, gamma=1.0, lam=0.95):
    """Eq. 12-14 of arXiv:2511.08325 to the letter: the last bootstrap stays in the sum."""
    before = [0.0, *promises[:-1]]
    rewards = [0.0] * (len(promises) - 1) + [outcome]
    deltas = [r + gamma * m - b for r, m, b in zip(rewards, promises, before, strict=True)]
    targets = []
    for t in range(len(promises)):
        advantage = sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:]))
        targets.append(advantage + before[t])
    targets[-1] = outcome
    return targets


def zeroed(promises, outcome, gamma, lam, start=0.37):
    """The sum of the docstring, term by term."""
    before = [start, *promises[:-1]]
    n = len(promises)
    deltas = [(outcome if t == n - 1 else gamma * promises[t]) - before[t] for t in range(n)]
    return [
        before[t] + sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)
    ]


numbers = st.floats(-2, 2)


@given(st.lists(numbers, max_size=8), numbers, st.floats(0, 1), st.floats(0, 1), numbers)
def test_the_recursion_is_the_sum(promises, outcome, gamma, lam, start):
    found = temporal_targets(promises, outcome, gamma=gamma, lam=lam)
    assert found == pytest.approx(zeroed(promises, outcome, gamma, lam, start), abs=1e-6)


def test_by_hand():
    # T = 3, M = (.2, .4, .9), r = 1, γ = 1, λ = .5: Q̂_3 = 1,
    # Q̂_2 = .4 + .5 (1 - .4) = .7, Q̂_1 = .2 + .5 (.7 - .2) = .45.
    assert temporal_targets([0.2, 0.4, 0.9], 1.0, lam=0.5) == pytest.approx([0.45, 0.7, 1.0])
    # With λ = 1 what a model says does not matter: γ^{T-t} r.
    assert temporal_targets([5.0, -3.0, 9.0], 1.0, gamma=0.9, lam=1.0) == pytest.approx(
        [0.81, 0.9, 1.0]
    )
    assert discounted(1.0, 3, 0.9) == pytest.approx([0.81, 0.9, 1.0])
    assert temporal_targets([], 1.0) == discounted(1.0, 0) == []
    # With λ = 0 all but the last stay what they are.
    assert temporal_targets([0.2, 0.4, 0.9], 1.0, lam=0.0) == pytest.approx([0.2, 0.4, 1.0])


def learnt(targets_of, n_steps, rounds=4000, rate=0.1, **settings):
    """A table of promises that goes towards its own targets, on a chain that ends well."""
    promises = [0.0] * n_steps
    for _ in range(rounds):
        targets = targets_of(promises, 1.0, **settings)
        promises = [m + rate * (t - m) for m, t in zip(promises, targets, strict=True)]
    return promises


def test_on_a_chain_targets_converge_to_the_values_and_the_printed_form_to_twice_them():
    assert learnt(temporal_targets, 6) == pytest.approx([1.0] * 6, abs=1e-6)
    assert learnt(temporal_targets, 6, gamma=0.9) == pytest.approx(
        discounted(1.0, 6, 0.9), abs=0.02
    )
    # The trap: the outcome counts twice in all steps but the last.
    assert learnt(as_printed, 6) == pytest.approx([2.0] * 5 + [1.0], abs=1e-3)


# A small grid: from a corner to the other by steps right and down, drawn by coin; two cells are
# holes. What a policy that tosses a coin is worth in each cell is solved exactly.

SIZE, HOLES, GOAL = 4, {(1, 2), (3, 1)}, (3, 3)


def moves(cell):
    x, y = cell
    return [c for c in ((x + 1, y), (x, y + 1)) if max(c) < SIZE]


def value(cell):
    if cell in HOLES:
        return 0.0
    if cell == GOAL:
        return 1.0
    return sum(map(value, moves(cell))) / len(moves(cell))


def episode(rng):
    """The steps, each named by where it starts and where it leads, and the outcome."""
    cell, steps = (0, 0), []
    while cell not in HOLES and cell != GOAL:
        to = rng.choice(moves(cell))
        steps.append((cell, to))
        cell = to
    return steps, float(cell == GOAL)


def worst(table):
    return max(abs(found - value(to)) for (_, to), found in table.items())


def test_on_a_grid_both_ways_converge_to_the_exact_values():
    rng = random.Random(0)
    episodes = [episode(rng) for _ in range(15_000)]
    counted = {
        step: target
        for (steps, _), targets in zip(episodes, counted_targets(episodes), strict=True)
        for step, target in zip(steps, targets, strict=True)
    }
    assert len(counted) == 21
    assert worst(counted) < 0.02
    table = dict.fromkeys(counted, 0.5)
    printed = dict.fromkeys(counted, 0.5)
    visits = dict.fromkeys(counted, 0)
    for steps, outcome in episodes:
        for own, targets_of in ((table, temporal_targets), (printed, as_printed)):
            targets = targets_of([own[step] for step in steps], outcome)
            for step, target in zip(steps, targets, strict=True):
                own[step] += (target - own[step]) / (1 + visits[step]) ** 0.7
        for step in steps:
            visits[step] += 1
    mean = sum(abs(table[s] - value(s[1])) for s in table) / len(table)
    assert mean < 0.02
    off = sum(abs(printed[s] - value(s[1])) for s in printed) / len(printed)
    assert off > 0.1


def test_counted_targets_by_hand():
    episodes = [(["a", "b"], 1.0), (["a", "c"], 0.0), (["b", "b"], 1.0)]
    # a: (γ·1 + γ·0)/2; b: last of the first (1), both of the third (γ and 1); γ = .5.
    found = counted_targets(episodes, gamma=0.5)
    assert found == [[0.25, pytest.approx(2.5 / 3)], [0.25, 0.0], [pytest.approx(2.5 / 3)] * 2]


def test_progress_adds_up_to_what_was_gained():
    assert progress([0.5, 0.25, 1.0]) == [0.0, -0.25, 0.75]
    assert progress([0.5, 0.25, 1.0], 0.25) == [0.25, -0.25, 0.75]
    assert progress([]) == []


def test_a_discount_below_zero_is_refused():
    with pytest.raises(InvalidSetting):
        temporal_targets([0.1], 1.0, gamma=-0.1)
    with pytest.raises(InvalidSetting):
        discounted(1.0, 2, -0.1)
