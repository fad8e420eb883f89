"""Preference pairs, of small trees that can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import UnknownName
from prmkit.records import Problem, Step, Trajectory
from prmkit.rl.pairs import step_pairs, trajectory_pairs


def solution(text, problem="p", correct=None, separator=" "):
    """Steps are letters."""
    return Trajectory(
        problem=Problem(id=problem, prompt=problem),
        steps=tuple(Step(text=letter) for letter in text),
        separator=separator,
        correct=correct,
        finish="eos",
    )


def seen(pairs):
    return [(p.prefix.text, p.better.text, p.worse.text) for p in pairs]


def test_the_best_and_the_worst_step_after_each_prefix():
    trajectories = [solution(text) for text in ("abc", "abd", "ae", "f")]
    values = [[0.9, 0.8, 0.7], [0.7, 0.6, 0.1], [0.8, 0.2], [0.3]]
    # After nothing: a (mean of 0.9, 0.7, 0.8) before f. After a: b (0.8, 0.6) before e.
    pairs = step_pairs(trajectories, values)
    assert seen(pairs) == [("", "a", "f"), ("a", "b", "e"), ("a b", "c", "d")]
    assert [p.better_value for p in pairs] == pytest.approx([0.8, 0.7, 0.7])
    assert [p.worse_value for p in pairs] == pytest.approx([0.3, 0.2, 0.1])
    assert pairs[1].prefix == solution("abc").prefix(1)
    # A difference of 0.6 at least: c and d alone.
    assert seen(step_pairs(trajectories, values, margin=0.55)) == [("a b", "c", "d")]
    # The better step and all before it 0.75 at least: b has 0.7, c too, and after b nothing counts.
    assert seen(step_pairs(trajectories, values, at_least=0.75)) == [("", "a", "f")]


def test_how_many_pairs_of_one_prefix():
    trajectories, values = [solution(x) for x in "abcd"], [[0.1], [0.9], [None], [0.5]]
    assert seen(step_pairs(trajectories, values)) == [("", "b", "a")]
    # Those of one difference stay in order: b-d and d-a.
    every = [("", "b", "a"), ("", "b", "d"), ("", "d", "a")]
    assert seen(step_pairs(trajectories, values, most=None)) == every
    assert seen(step_pairs(trajectories, values, most=2)) == every[:2]


def test_only_what_begins_alike_is_compared():
    # Another problem, another separator, another first step; equal values; no value before it.
    assert step_pairs([solution("a"), solution("b", "q")], [[1.0], [0.0]]) == []
    assert step_pairs([solution("a"), solution("b", separator="")], [[1.0], [0.0]]) == []
    assert step_pairs([solution("ac"), solution("bd")], [[1.0, 1.0], [1.0, 0.0]]) == []
    assert step_pairs([solution("a"), solution("b")], [[1.0], [1.0]]) == []
    after_unknown = [solution("ab"), solution("ac")], [[None, 1.0], [None, 0.0]]
    assert seen(step_pairs(*after_unknown)) == [("a", "b", "c")]
    assert step_pairs(*after_unknown, at_least=0.5) == []
    assert step_pairs([], []) == []


def test_values_and_steps_are_as_many():
    with pytest.raises(ValueError, match="2 values for a solution of 1 steps of problem 'p'"):
        step_pairs([solution("a")], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="shorter"):
        trajectory_pairs([solution("a"), solution("b")], [[1.0]], 0.5)


@given(
    st.lists(
        st.tuples(st.text("ab", max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3)),
        max_size=6,
    ),
    st.floats(0, 0.5),
)
def test_laws_of_step_pairs(items, margin):
    trajectories = [solution(text) for text, _ in items]
    values = [numbers[: len(text)] for text, numbers in items]
    texts = [text for text, _ in items]
    for pair in step_pairs(trajectories, values, margin, most=None):
        prefix = pair.prefix.text.replace(" ", "")
        assert pair.better_value > pair.worse_value
        assert pair.better_value - pair.worse_value >= margin
        for step in (pair.better, pair.worse):
            assert any(text.startswith(prefix + step.text) for text in texts)


def test_right_answers_by_wrong_steps_are_not_preferred():
    trajectories = [
        solution("ab", correct=True),  # right, and its steps too
        solution("cd", correct=True),  # right by a wrong step
        solution("ef", correct=False),  # wrong, and its steps say so
        solution("gh", correct=False),  # wrong, but all steps look right
        solution("ij"),  # not known
        solution("k", "q", correct=True),  # of another problem
        solution("", correct=False),  # no step
        solution("lm", correct=False),  # a step without a value
    ]
    values = [[0.9, 0.8], [0.9, 0.1], [0.7, 0.2], [0.9, 0.6], [0, 0], [1], [], [0.1, None]]
    pairs = trajectory_pairs(trajectories, values, 0.5)
    assert [(p.better.text, p.worse.text) for p in pairs] == [("a b", "e f")]
    assert (pairs[0].better_value, pairs[0].worse_value) == (0.8, 0.2)
    # Without a filter, all pairs by outcome, the widest difference first.
    pairs = trajectory_pairs(trajectories, values, 0.0, 1.0)
    assert [(p.better.text, p.worse.text) for p in pairs] == [
        ("a b", "e f"),
        ("a b", "g h"),
        ("c d", "e f"),
        ("c d", "g h"),
    ]
    assert len(trajectory_pairs(trajectories, values, 0.0, 1.0, most=1)) == 1
    # The last step instead of the lowest.
    pairs = trajectory_pairs(trajectories, values, 0.5, 0.6, how="last")
    assert [(p.better.text, p.worse_value) for p in pairs] == [("a b", 0.2), ("a b", 0.6)]
    with pytest.raises(UnknownName, match="aggregation"):
        trajectory_pairs(trajectories, values, 0.5, how="median")
