"""Figures of one batch, computed by hand."""

from __future__ import annotations

import pytest

from prmkit.errors import InvalidRecord
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.rl.figures import measure
from prmkit.rl.rollouts import Rollout


def rollout(steps, scores=None, *, correct=None, problem="p", finish="eos", ids=None):
    texts = [str(step) for step in steps]
    if isinstance(scores, (list, tuple)):
        scores = StepScores(values=tuple(scores), semantics="correctness", model="m")
    trajectory = Trajectory(
        problem=Problem(id=problem, prompt="?"),
        steps=tuple(Step(text=text) for text in texts),
        separator="\n",
        finish=finish,
        correct=correct,
    )
    ids = tuple(range(len(texts))) if ids is None else tuple(ids)
    return Rollout(trajectory, (1, 2), ids, tuple(range(len(texts))), scores)


def test_figures_by_hand():
    batch = [
        rollout("ab", [0.9, 0.8], correct=True, problem="p"),
        rollout("abcd", [0.2, 0.4, 0.6, 0.7], correct=False, problem="p"),
        rollout("abc", [0.5, 0.6, 0.4], correct=True, problem="q"),
        rollout("a", [0.6], correct=False, problem="q", finish="length"),
        rollout("ab", Unscored(reason="too long"), correct=None, problem="q"),
    ]
    found = measure(batch)
    # Least scores .8 (right) and .2 (wrong); .4 (right) and .6 (wrong).
    assert found["known"] == 4 / 5
    assert found["accuracy"] == 1 / 2
    assert found["prm"] == pytest.approx((0.8 + 0.2 + 0.4 + 0.6) / 4)
    assert found["prm_auc"] == 1 / 2
    # Away from the means .5 and .5: .3 and -.3, -.1 and .1; squares .2 in all.
    assert found["prm_slope"] == pytest.approx((0.3 - 0.1) / 0.2)
    # Of three responses of two steps or more, two have their least score at the end.
    assert found["last_lowest"] == pytest.approx(2 / 3)
    assert found["steps"] == pytest.approx(12 / 5)
    assert found["length"] == pytest.approx(12 / 5)
    assert found["truncated"] == 1 / 5
    assert found["unscored"] == pytest.approx(1 / 5)
    assert found["repetition"] == 0
    # The mean over steps in place of the least: .85, .475, .5, .6.
    assert measure(batch, aggregation="mean")["prm"] == pytest.approx(2.425 / 4)


def test_what_is_paid_is_watched_in_the_place_of_an_aggregation():
    batch = [
        rollout("ab", [0.9, 0.8], correct=True),
        rollout("ab", [0.2, 0.4], correct=False),
        rollout("a", Unscored(reason="too long"), correct=True),
        rollout("a", [0.5], correct=False),
    ]
    # Scores and correctness agree; what is paid goes the other way. What has no score has none.
    found = measure(batch, earned=[-1.0, 2.0, 99.0, 5.0])
    assert found["prm"] == pytest.approx(2.0)
    assert found["prm_auc"] == 0
    # Away from the mean 2: -3, 0 and 3.
    assert found["prm_slope"] == pytest.approx(-3 / 18)
    # The steps' own scores still tell which is the lowest.
    assert found["last_lowest"] == 1 / 2
    assert measure(batch)["prm_auc"] == 1
    with pytest.raises(ValueError, match="shorter"):
        measure(batch, earned=[1.0])


def test_equal_lowest_scores_count_as_chance_would_have_it():
    assert measure([rollout("abcd", [0.5] * 4)])["last_lowest"] == 1 / 4
    assert measure([rollout("abc", [0.1, 0.5, 0.1])])["last_lowest"] == 1 / 2


def test_tied_scores_tell_nothing():
    # The mean of .1, .1 and .1 is not .1 to the last bit.
    batch = [rollout("a", [0.1], correct=c, problem="p") for c in (True, False, True)]
    # Whether it is right is not known, so it is in no pair.
    batch.append(rollout("a", [0.9], problem="p"))
    found = measure(batch)
    assert found["prm_auc"] == 0.5
    assert "prm_slope" not in found


def test_only_responses_to_one_problem_are_compared():
    # Across problems the right ones score higher; within each, lower.
    batch = [
        rollout("a", [0.8], correct=True, problem="easy"),
        rollout("a", [0.9], correct=False, problem="easy"),
        rollout("a", [0.1], correct=True, problem="hard"),
        rollout("a", [0.2], correct=False, problem="hard"),
    ]
    found = measure(batch)
    assert found["prm_auc"] == 0
    assert found["prm_slope"] == pytest.approx(-10)
    # One response of each: all of the batch are compared.
    found = measure([batch[0], batch[3]])
    assert found["prm_auc"] == 1
    assert found["prm_slope"] == pytest.approx(1 / 0.6)


def test_repetition_of_steps_and_of_tokens():
    # Two of four steps were said before, up to case and white space; a blank one does not count.
    batch = [rollout(["So x = 3", "ok", "so  x = 3", "", "OK"])]
    assert measure(batch)["repetition"] == pytest.approx(2 / 4)
    # One step of 20 tokens with period 2: 13 runs of 8, of which 2 are different.
    assert measure([rollout("a", ids=[7, 8] * 10)])["repetition"] == pytest.approx(11 / 13)
    assert measure([rollout("a", ids=[7] * 8)])["repetition"] == 0
    both = [rollout("a", ids=[7, 8] * 10), rollout("ab")]
    assert measure(both)["repetition"] == pytest.approx(11 / 26)


def test_what_does_not_apply_is_absent():
    assert measure([]) == {}
    no_verifier = measure([rollout("ab", [0.5, 0.6])])
    assert not {"accuracy", "prm_auc", "prm_slope"} & set(no_verifier)
    assert no_verifier["known"] == 0
    no_prm = measure([rollout("ab", correct=True)])
    assert not {"prm", "prm_auc", "prm_slope", "last_lowest", "unscored"} & set(no_prm)
    assert no_prm["accuracy"] == 1
    one_step = measure([rollout("a", [0.5], correct=True)])
    assert "last_lowest" not in one_step
    assert "prm_auc" not in one_step
    # Who was not asked about is not without a score.
    assert measure([rollout("a", [0.5]), rollout("a")])["unscored"] == 0
    nothing_written = measure([rollout("", [], correct=False)])
    assert nothing_written["unscored"] == 1
    assert nothing_written["steps"] == nothing_written["length"] == 0
    assert "prm" not in nothing_written


def test_an_aggregation_without_meaning_is_refused():
    scores = StepScores(values=(-1.0,), semantics="advantage", model="m")
    with pytest.raises(InvalidRecord):
        measure([rollout("a", scores)], aggregation="product")
