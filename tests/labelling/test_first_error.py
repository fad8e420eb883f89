"""Searches for the first wrong step, against a completer whose chances are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import InvalidRecord, InvalidSetting
from prmkit.labelling import Rollout, first_error, monte_carlo, relative, sequential
from prmkit.labelling.methods import MethodSettings, estimator
from prmkit.labelling.monte_carlo import waves
from prmkit.records import Problem, Step, Trajectory

PROBLEM = Problem(id="p", prompt="?", answer="1")


def solution(n, correct=None):
    finish = "open" if correct is None else "eos"
    steps = tuple(Step(text=f"{i}\n") for i in range(n))
    return Trajectory(problem=PROBLEM, steps=steps, finish=finish, correct=correct)


def drive(estimator, reply):
    """Run an estimator; the number of rollouts of each prefix, and the labels."""
    asked: dict[int, int] = {}
    try:
        wishes = next(estimator)
        while True:
            replies = []
            for wish in wishes:
                m = len(wish.prefix.steps)
                start = asked.get(m, 0)
                asked[m] = start + wish.n
                replies.append([Rollout(reply(m, start + k)) for k in range(wish.n)])
            wishes = estimator.send(replies)
    except StopIteration as done:
        return asked, done.value


def fails_after(place):
    """A completer that always succeeds from `place` right steps or fewer, and never after."""
    return lambda m, number: m <= place


@given(st.integers(1, 20), st.data())
def test_binary_search_finds_the_place_in_log_probes(n, data):
    place = data.draw(st.integers(0, n - 1))
    asked, labels = drive(first_error(solution(n, False), n_rollouts=4), fails_after(place))
    assert labels.first_error == place
    assert labels.values[:place] == (1.0,) * place
    assert labels.values[place + 1 :] == (None,) * (n - place - 1)
    assert len(asked) <= (n - 1).bit_length()
    # One rollout proves that a prefix holds, four that it does not.
    assert all(ran == (1 if m <= place else 4) for m, ran in asked.items())


def test_a_right_solution_needs_no_rollout():
    for make in (first_error, sequential):
        asked, labels = drive(make(solution(3, True)), fails_after(0))
        assert asked == {}
        assert labels.values == (1.0, 1.0, 1.0)


def test_an_open_solution_may_have_no_wrong_step():
    _, labels = drive(first_error(solution(4)), fails_after(4))
    assert labels.values == (1.0,) * 4
    _, labels = drive(first_error(solution(4)), fails_after(3))
    assert labels.values == (1.0, 1.0, 1.0, 0.0)


def test_what_cannot_be_judged_stays_open():
    _, labels = drive(first_error(solution(4, False)), lambda m, k: None)
    assert labels.values == (None,) * 4
    asked, labels = drive(sequential(solution(4, False)), lambda m, k: None)
    assert sum(asked.values()) == 4 + 1
    assert labels.values.count(0.0) == 1  # the likeliest place, with its certainty
    assert max(c for c in labels.certainty if c is not None) < 1


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(1, 5))
def test_stopping_at_success_gives_the_labels_of_any_of_k(draws, n):
    def reply(m, number):
        return draws[(number + m) % 8] and m < 4

    whole, labels = drive(monte_carlo(solution(n, False)), reply)
    fewer, same = drive(monte_carlo(solution(n, False), stop_at_success=True), reply)
    assert same.values == labels.values
    assert all(fewer[m] <= whole[m] for m in whole)
    _, short = drive(
        monte_carlo(solution(n, False), stop_at_success=True, stop_at_error=True), reply
    )
    end = n if labels.first_error is None else labels.first_error + 1
    assert short.values[:end] == labels.values[:end]
    assert all(v is None for v in short.values[end:])


def test_waves():
    assert waves(8) == [1, 1, 1, 1, 2, 2]
    assert waves(5) == [1, 1, 1, 1, 1]
    assert sum(waves(1000)) == 1000


def test_a_share_cannot_stop_early():
    with pytest.raises(InvalidSetting, match="all K"):
        next(monte_carlo(solution(2), kind="soft", stop_at_success=True))


def test_relative_values_by_hand():
    # Values: the problem 4/4, after one step 4/4, after two 3/4, after three 1/4, after four 0.
    wins = {0: 4, 1: 4, 2: 3, 3: 1, 4: 0}

    def reply(m, number):
        return number < wins[m]

    asked, labels = drive(relative(solution(4), n_rollouts=4), reply)
    assert asked == dict.fromkeys(range(5), 4)
    # 1, 3/4 (below 0.8), 1/3; after nothing is left all are wrong.
    assert labels.values == (1.0, 0.0, 0.0, 0.0)
    _, labels = drive(relative(solution(4), n_rollouts=4, least=0.7), reply)
    assert labels.values == (1.0, 1.0, 0.0, 0.0)
    _, labels = drive(relative(solution(4), n_rollouts=4, to="root", least=0.25), reply)
    assert labels.values == (1.0, 1.0, 1.0, 0.0)
    assert labels.successes == (4, 3, 1, 0)
    _, labels = drive(relative(solution(3, False), n_rollouts=4, least=0.2), reply)
    assert labels.values == (1.0, 1.0, 0.0)


def test_after_a_step_that_lost_value_others_may_keep_it():
    """Only where nothing is left all steps are wrong: GenPRM's rule is one of neighbours."""
    wins = {0: 4, 1: 4, 2: 2, 3: 2, 4: 0, 5: 1}
    _, labels = drive(relative(solution(5), n_rollouts=4), lambda m, number: number < wins[m])
    assert labels.values == (1.0, 0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.3, 0.6, 0.9])
def test_the_sequential_test_keeps_its_error_rate(value):
    """A completer as the test assumes it: the place is another one in at most the stated share."""
    rng = random.Random(0)
    n, n_wrong, n_runs, rollouts = 8, 0, 400, 0
    for _ in range(n_runs):
        place = rng.randrange(n)

        def reply(m, number, place=place):
            chance = 0.8 * (value + 0.5 * (1 - value) * m / n) if m else value
            return rng.random() < (chance if m <= place else 0.05 * chance)

        asked, labels = drive(sequential(solution(n, False), root_rollouts=64, most=400), reply)
        n_wrong += labels.first_error != place
        rollouts += sum(asked.values()) - 64
    # Three standard errors above the rate.
    assert n_wrong / n_runs < 0.1 + 3 * (0.1 * 0.9 / n_runs) ** 0.5
    assert rollouts / n_runs < 40


def test_sequential_certainty_is_the_posterior():
    _, labels = drive(sequential(solution(4, False), most=1), fails_after(0))
    # One failure after two of four steps; the problem's own value is 4.5 / 5.
    p = 0.8 * (0.9 + 0.5 * 0.1 * 2 / 4)
    bad, good = 1 - 0.05 * p, 1 - p
    total = 2 * bad + 2 * good
    assert labels.values[0] == 0.0
    assert labels.certainty[0] == pytest.approx(bad / total)
    assert (labels.successes[1], labels.trials[1]) == (0, 1)
    assert labels.certainty[1:] == (None, None, None)


def test_a_right_answer_by_luck_is_found_out():
    asked, labels = drive(
        sequential(solution(4, True), trust_right=False, most=200), fails_after(1)
    )
    assert labels.first_error == 1
    _, labels = drive(sequential(solution(4, True), trust_right=False), fails_after(4))
    assert labels.values == (1.0,) * 4
    assert sum(asked.values()) > 4


def test_refusals():
    bare = Trajectory(problem=Problem(id="p", prompt="?"), steps=solution(2).steps)
    for make in (first_error, sequential, relative):
        with pytest.raises(InvalidRecord, match="no reference answer"):
            next(make(bare))
    for wrong in ({"error_rate": 0.5}, {"left": 0}, {"kept": 1}, {"growth": 2}):
        with pytest.raises(InvalidSetting):
            next(sequential(solution(2), **wrong))
    with pytest.raises(InvalidSetting, match="most is 0"):
        next(sequential(solution(2), most=0))
    asked, labels = drive(sequential(solution(1, False)), fails_after(0))
    assert (asked, labels.values, labels.certainty) == ({}, (0.0,), (1.0,))


def test_methods_take_their_own_settings_alone():
    made = estimator(MethodSettings(method="first-error", rollouts=2))(solution(3, False))
    assert drive(made, fails_after(1))[1].values == (1.0, 0.0, None)
    made = estimator(MethodSettings(method="relative", to="root", least=0.5))(solution(2, False))
    assert drive(made, fails_after(1))[1].values == (1.0, 0.0)
    made = estimator(MethodSettings(stop_at_error=True))(solution(3, False))
    assert drive(made, fails_after(0))[1].values == (0.0, None, None)
    asked, _ = drive(
        estimator(MethodSettings(method="sequential", most=3))(solution(5, False)),
        lambda m, k: k % 2 == 0,
    )
    assert sum(n for m, n in asked.items() if m) == 3
    for wrong in ({"method": "sequential", "error_rate": 0.7}, {"method": "relative", "least": 0}):
        with pytest.raises(InvalidSetting, match="must be above 0"):
            MethodSettings(**wrong)
    with pytest.raises(InvalidSetting, match="least is -1"):
        next(relative(solution(2), least=-1))
    with pytest.raises(InvalidSetting, match="kind has no meaning for the method sequential"):
        MethodSettings(method="sequential", kind="soft")
