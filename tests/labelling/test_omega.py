"""OmegaPRM's tree against a plain simulation of the paper, and by hand."""

from __future__ import annotations

import math
import random

import pytest

from prmkit.errors import InvalidSetting
from prmkit.labelling import Rollout
from prmkit.labelling.omega import OmegaSettings, omega
from prmkit.records import Problem

PROBLEM = Problem(id="p", prompt="?", answer="1")
K = 4


def split(text):
    return text.split("|")


class Completer:
    """A completer whose words and outcomes are known of every prefix, and are asked for once.

    A rollout of a prefix is right by the prefix's own chance; a wrong one has some wrong steps
    (with an x), after which no rollout is right.
    """

    def __init__(self, seed):
        self.seed = seed
        self.asked = []

    def outcomes(self, texts, n):
        assert texts not in self.asked, "no prefix is rolled out twice"
        self.asked.append(texts)
        rng = random.Random(f"{self.seed}{texts}")
        broken = any("x" in text for text in texts)
        chance = 0.0 if broken else rng.choice([0.3, 0.6, 0.8])
        found = []
        for i in range(n):
            right = rng.random() < chance
            length = rng.randint(1, 7)
            wrong_at = None if right else rng.randrange(length)
            words = [
                f"{len(texts) + k}{'x' if wrong_at is not None and k >= wrong_at else ''}.{i}"
                for k in range(length)
            ]
            found.append(Rollout(right, "|".join(words), 30 * length + i, None))
        return found


def grow(completer, **settings):
    search = omega(PROBLEM, split, n_rollouts=K, **settings)
    try:
        wishes = next(search)
        while True:
            replies = [
                completer.outcomes(tuple(s.text for s in w.prefix.steps), w.n) for w in wishes
            ]
            wishes = search.send(replies)
    except StopIteration as done:
        return done.value


def simulate(completer, searches, alpha=0.5, beta=0.9, length=500, c_puct=0.125):
    """The paper's three phases in plain Python: selection, binary search, maintenance."""
    value, visits, pool, log = {}, {}, [], []

    def roll(state):
        if state not in value:
            outcomes = completer.outcomes(state, K)
            value[state] = sum(o.correct for o in outcomes) / K
            visits[state] = 0
            if 0 < value[state] < 1:
                pool.extend((state, o) for o in outcomes if not o.correct)
        return value[state]

    roll(())
    while pool and len(log) < searches:
        total = math.sqrt(sum(visits.values()))

        def worth(item, total=total):
            state, rollout = item
            q = alpha ** (1 - value[state]) * beta ** (rollout.n_tokens / length)
            return q, c_puct * total / (1 + visits[state])

        chosen = max(pool, key=lambda item: sum(worth(item)))
        pool.remove(chosen)
        q, u = worth(chosen)
        state, rollout = chosen
        visits[state] += 1
        words = rollout.text.split("|")
        low, high = 0, len(words)
        while high - low > 1:
            middle = (low + high) // 2
            if roll(state + tuple(words[:middle])) > 0:
                low = middle
            else:
                high = middle
        log.append((state, rollout, q, u, low))
    return value, visits, log


@pytest.mark.parametrize("seed", range(12))
def test_states_visits_q_and_u_are_those_of_a_plain_simulation(seed):
    theirs = Completer(seed)
    value, visits, log = simulate(theirs, 40)
    ours = Completer(seed)
    tree = grow(ours, searches=40)
    assert ours.asked == theirs.asked
    texts = [tuple(s.text for s in state.prefix.steps) for state in tree.states]
    assert texts == list(value)
    assert [s.value for s in tree.states] == list(value.values())
    assert [s.visits for s in tree.states] == list(visits.values())
    assert len(tree.selections) == len(log)
    for selection, (state, rollout, q, u, low) in zip(tree.selections, log, strict=True):
        assert texts[selection.state] == state
        assert selection.rollout == rollout
        assert selection.quality == pytest.approx(q)
        assert selection.exploration == pytest.approx(u)
        assert selection.first_error == low


def test_there_are_long_searches_among_them():
    assert max(len(simulate(Completer(seed), 40)[2]) for seed in range(12)) >= 10


def test_the_first_rounds_by_hand():
    """Two of four rollouts of the problem are wrong; the shorter one is searched first."""
    script = {
        (): [
            Rollout(True, "a|b", 50),
            Rollout(False, "a|bx|c|d", 100),
            Rollout(True, "a|b", 50),
            Rollout(False, "e|fx", 60),
        ],
        ("e",): [Rollout(False, "gx", 40)] * 3 + [Rollout(True, "g", 10)],
        ("a", "bx"): [Rollout(False, "c", 10)] * 4,
        ("a",): [Rollout(True, "b", 10)] * 4,
    }

    class Scripted:
        def outcomes(self, texts, n):
            return script[texts]

    tree = grow(Scripted(), searches=3)
    first, second, third = tree.selections
    # MC of the problem is 1/2: Q = 0.5 ^ 0.5 * 0.9 ^ (60 / 500); nothing was visited yet.
    assert first.rollout.text == "e|fx"
    assert first.quality == pytest.approx(0.5**0.5 * 0.9 ** (60 / 500))
    assert first.exploration == 0
    assert first.first_error == 1  # after "e" one rollout is right
    # Now the problem has N = 1, "e" has N = 0 and MC 1/4, and sum N = 1.
    # Problem: 0.7071 * 0.9 ^ 0.2 + 0.0625 = 0.7549; "e": 0.5 ^ 0.75 * 0.9 ^ 0.08 + 0.125 = 0.7146.
    assert second.rollout.text == "a|bx|c|d"
    assert second.quality + second.exploration == pytest.approx(0.7549, abs=1e-4)
    assert second.first_error == 1
    # The problem has nothing left; "e" has three wrong rollouts of one step: no more to probe.
    assert third.rollout.text == "gx"
    assert third.exploration == pytest.approx(0.125 * 2**0.5)
    assert third.quality + third.exploration == pytest.approx(0.7664, abs=1e-4)
    assert third.first_error == 0
    assert [s.visits for s in tree.states] == [2, 1, 0, 0]
    examples = {r.trajectory.text: r.labels for r in tree.examples()}
    assert {text: labels.values[-1] for text, labels in examples.items()} == {
        "e": 0.25,
        "a": 1.0,
        "abx": 0.0,
    }
    assert examples["abx"].values == (None, 0.0)
    assert examples["e"].trials == (4,)


def test_too_easy_and_too_hard_problems_are_left_alone():
    for right in (True, False):

        class Same:
            def outcomes(self, texts, n, right=right):
                return [Rollout(right, "a|b", 3)] * n

        tree = grow(Same())
        assert len(tree.states) == 1
        assert tree.selections == []
        assert tree.examples() == []


def test_settings_out_of_range():
    for wrong in ({"alpha": 0}, {"length": 0}, {"c_puct": -1}):
        with pytest.raises(InvalidSetting):
            OmegaSettings(**wrong)
    for wrong in ({"n_rollouts": 0}, {"searches": 0}):
        with pytest.raises(InvalidSetting):
            next(omega(PROBLEM, split, **wrong))
