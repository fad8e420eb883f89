"""A script goes on from tokens as from texts."""

from __future__ import annotations

import pytest

from prmkit.errors import PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import MARK, ScriptedPolicy
from prmkit.records import Problem, Step, Trajectory

P = Problem(id="p", prompt="1+1?")
SETTINGS = SamplingSettings()


def telling(prefix, rng):
    return f"{prefix.problem.id} {[step.text for step in prefix.steps]} {rng.randrange(1000)}"


def test_a_script_is_told_problem_and_steps():
    policy = ScriptedPolicy(telling)
    prefix = Trajectory(problem=P, steps=(Step(text="a\n"), Step(text="b\n"), Step(text="c")))
    ids = policy.question_ids(P)
    for step in prefix.steps:
        ids += policy.text_ids(step.text)
    (drawn,) = policy.continue_ids([ids], [3], SETTINGS, [5], [1])
    (expected,) = policy.complete([prefix], 4, SETTINGS, [5])
    assert [one.completion for one in drawn] == expected[1:]
    assert "['a\\n', 'b\\n', 'c']" in drawn[0].completion.text
    assert [one.n_prompt for one in drawn] == [len(ids), 0, 0]
    assert [one.n_cached for one in drawn] == [0, 0, 0]
    for one in drawn:
        assert "".join(map(chr, one.ids)) == one.completion.text
    assert policy.requests == [(prefix, 3), (prefix, 4)]


def test_questions_that_read_alike_are_told_apart():
    policy = ScriptedPolicy(telling)
    ids = [policy.question_ids(Problem(id=name, prompt="?")) for name in ("left", "right")]
    drawn = policy.continue_ids(ids, [1, 1], SETTINGS, [1, 1])
    assert [of[0].completion.text.split()[0] for of in drawn] == ["left", "right"]


def test_steps_are_cut_as_told():
    policy = ScriptedPolicy(telling, split=lambda text: text.split("|"))
    ids = [*policy.question_ids(P), *policy.text_ids("a|b")]
    ((one,),) = policy.continue_ids([ids], [1], SETTINGS, [1])
    assert "['a', 'b']" in one.completion.text


@pytest.mark.parametrize("ids", [[1, 2], [MARK, 5, MARK], []])
def test_an_unknown_question_is_refused(ids):
    with pytest.raises(PolicyError, match="knows no question.*question_ids"):
        ScriptedPolicy(telling).continue_ids([ids], [1], SETTINGS, [1])


def test_lists_must_be_of_one_length():
    policy = ScriptedPolicy(telling)
    with pytest.raises(ValueError, match="2 counts for 1 prefixes"):
        policy.continue_ids([policy.question_ids(P)], [1, 1], SETTINGS, [1])
    with pytest.raises(ValueError, match="2 seeds for 1 prefixes"):
        policy.complete([Trajectory(problem=P)], 1, SETTINGS, [1, 1])


def test_it_tells_likelihoods_where_they_are_known():
    def likely(prefix, text, ends):
        return -float(len(prefix.steps) + len(text) + 100 * ends)

    policy = ScriptedPolicy(telling, likely=likely)
    ids = [*policy.question_ids(P), *policy.text_ids("a\nb\n")]
    more = policy.text_ids("xyz")
    assert policy.tells_likelihoods
    assert policy.log_likelihoods([ids, ids], [more, []], [True, False], 1.0) == [-105.0, -2.0]


def test_it_says_when_it_knows_no_likelihoods():
    policy = ScriptedPolicy(telling)
    assert not policy.tells_likelihoods
    with pytest.raises(PolicyError, match="give `likely`"):
        policy.log_likelihoods([policy.question_ids(P)], [[]], [True], 1.0)
