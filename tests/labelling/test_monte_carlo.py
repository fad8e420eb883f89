"""Monte Carlo labels, against counts worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import InvalidRecord, InvalidSetting, RunFolderError
from prmkit.labelling import Rollout, label, monte_carlo, sequential
from prmkit.labelling.methods import MethodSettings, estimator
from prmkit.labelling.monte_carlo import log_mean_exp
from prmkit.ledger import Ledger
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Outcome, sample
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Step, Trajectory

PROBLEM = Problem(id="p", prompt="?", answer="1")
STEPS = tuple(Step(text=text) for text in ("a\n", "b\n", "c\n"))


def run(trajectory, replies, **settings):
    """Drive an estimator by hand with given outcomes; the wishes and the labels."""
    estimator = monte_carlo(trajectory, **settings)
    wishes = []
    try:
        request = next(estimator)
        while True:
            wishes.append(request)
            request = estimator.send(
                [[Rollout(c) for c in replies[len(w.prefix.steps)]] for w in request]
            )
    except StopIteration as done:
        return wishes, done.value


def test_hard_and_soft_by_hand():
    trajectory = Trajectory(problem=PROBLEM, steps=STEPS)
    replies = {1: [True, False, True, False], 2: [False, True, False, False], 3: [False] * 4}
    wishes, hard = run(trajectory, replies, n_rollouts=4, kind="hard")
    assert [(len(w.prefix.steps), w.n) for w in wishes[0]] == [(1, 4), (2, 4), (3, 4)]
    assert len(wishes) == 1
    assert hard.values == (1, 1, 0)
    assert hard.successes == (2, 1, 0)
    assert hard.trials == (4, 4, 4)
    _, soft = run(trajectory, replies, n_rollouts=4, kind="soft")
    assert soft.values == (0.5, 0.25, 0.0)
    assert soft.kind == "soft"


def test_the_outcome_of_a_finished_solution_needs_no_rollout():
    trajectory = Trajectory(problem=PROBLEM, steps=STEPS, finish="eos", answer="1", correct=True)
    wishes, labels = run(trajectory, {1: [False], 2: [False]}, n_rollouts=1)
    assert [len(w.prefix.steps) for w in wishes[0]] == [1, 2]
    assert labels.values == (0, 0, 1)
    assert labels.trials == (1, 1, 1)


def test_what_cannot_be_judged_is_no_trial():
    trajectory = Trajectory(problem=PROBLEM, steps=STEPS[:2])
    _, labels = run(trajectory, {1: [None, True], 2: [None, None]}, n_rollouts=2, kind="soft")
    assert labels.values == (1.0, None)
    assert labels.trials == (1, 0)


def test_no_step_no_wish():
    wishes, labels = run(Trajectory(problem=PROBLEM), {}, n_rollouts=2)
    assert wishes == []
    assert labels.values == ()


def test_bad_input_is_named():
    with pytest.raises(InvalidRecord, match="no reference answer"):
        next(monte_carlo(Trajectory(problem=Problem(id="p", prompt="?"), steps=STEPS)))
    with pytest.raises(ValueError, match="n_rollouts is 0"):
        next(monte_carlo(Trajectory(problem=PROBLEM, steps=STEPS), n_rollouts=0))


# ── the driver ────────────────────────────────────────────────────────────────────────────


def coin(prefix, rng: random.Random) -> str:
    """Right with chance 1/2 after "a", 1/8 after "b", never after "c"."""
    chance = {"a": 0.5, "b": 0.125, "c": 0.0}.get(prefix.text.strip()[-1:], 1.0)
    return "answer 1" if rng.random() < chance else "answer 0"


def judge(problem, text):
    answer = text.rsplit("answer ", 1)[-1] if "answer " in text else None
    return Outcome(answer, None if answer is None else answer == problem.answer)


def trajectories(n):
    return [
        Trajectory(problem=Problem(id=f"p{i}", prompt="?", answer="1"), steps=STEPS)
        for i in range(n)
    ]


def labels_of(items, **settings):
    return list(
        label(
            items,
            lambda t: monte_carlo(t, n_rollouts=16, kind="soft"),
            ScriptedPolicy(coin),
            judge,
            settings=SamplingSettings(),
            **settings,
        )
    )


def test_shares_come_near_the_policys_chance():
    records = labels_of(trajectories(200))
    means = [sum(r.labels.values[i] for r in records) / 200 for i in range(3)]
    # 3200 draws: three standard errors are 0.027 and 0.018.
    assert means[0] == pytest.approx(0.5, abs=0.027)
    assert means[1] == pytest.approx(0.125, abs=0.018)
    assert means[2] == 0


def test_labels_do_not_depend_on_what_runs_beside():
    items = trajectories(9)
    together = labels_of(items)
    assert labels_of(items, in_flight=1) == together
    assert labels_of(items[::-1], in_flight=4)[::-1] == together
    assert labels_of(items, seed=1) != together


def test_a_killed_run_resumes_without_repeating(tmp_path):
    """The policy dies in the third group; afterwards only what was missing is drawn."""
    items = trajectories(10)
    expected = labels_of(items, in_flight=2)
    policy = ScriptedPolicy(coin)
    complete = policy.complete

    def dying(*args, **kwargs):
        if len(policy.requests) >= 2 * 2 * 3:
            raise KeyboardInterrupt
        return complete(*args, **kwargs)

    def go():
        with Ledger(tmp_path / "ledger.sqlite", {"n": 16}) as ledger:
            return list(
                label(
                    items,
                    lambda t: monte_carlo(t, n_rollouts=16, kind="soft"),
                    policy,
                    judge,
                    settings=SamplingSettings(),
                    in_flight=2,
                    ledger=ledger,
                )
            )

    policy.complete = dying
    with pytest.raises(KeyboardInterrupt):
        go()
    policy.complete = complete
    assert go() == expected
    assert len(policy.requests) == 10 * 3


def test_a_ledger_of_other_settings_is_refused(tmp_path):
    Ledger(tmp_path / "l.sqlite", {"k": 1}).close()
    with pytest.raises(RunFolderError, match="other settings"):
        Ledger(tmp_path / "l.sqlite", {"k": 2})
    (tmp_path / "junk.sqlite").write_bytes(b"not a database, whatever its name says" * 50)
    with pytest.raises(RunFolderError, match="not a ledger"):
        Ledger(tmp_path / "junk.sqlite", {})


def test_sampling_resumes_too(tmp_path):
    problems = [Problem(id=f"p{i}", prompt="?", answer="1") for i in range(5)]
    policy = ScriptedPolicy(coin)

    def go(problems):
        with Ledger(tmp_path / "l.sqlite", {}) as ledger:
            return list(
                sample(
                    policy,
                    problems,
                    3,
                    lambda text: [text],
                    judge,
                    settings=SamplingSettings(),
                    in_flight=2,
                    ledger=ledger,
                )
            )

    first = go(problems[:3])
    both = go(problems)
    assert both[:3] == first
    assert len(policy.requests) == 5
    assert [t.correct for t in both[0]] == [True] * 3
    assert both[0][0].text == "answer 1"
    assert both[0][0].finish == "eos"


def test_solutions_of_a_problem_share_the_rollouts_of_what_they_share():
    """The problem alone and equal first steps are rolled out once, whoever asks for them."""
    problem = Problem(id="p", prompt="?", answer="1")
    items = [
        Trajectory(problem=problem, steps=(STEPS[0], step), finish="eos", correct=False)
        for step in STEPS[1:]
    ]
    policy = ScriptedPolicy(coin)
    list(label(items, sequential, policy, judge, settings=SamplingSettings(), in_flight=2))
    roots = [n for prefix, n in policy.requests if not prefix.steps]
    assert roots == [4]
    drawn = [(prefix.text, n) for prefix, n in policy.requests if prefix.steps]
    assert {text for text, _ in drawn} == {"a\n"}


def test_stopping_at_success_gives_the_same_labels_to_the_letter():
    items = trajectories(60)
    policies = ScriptedPolicy(coin), ScriptedPolicy(coin)
    whole, early = (
        list(
            label(
                items,
                lambda t, s=stop: monte_carlo(t, n_rollouts=8, stop_at_success=s),
                policy,
                judge,
                settings=SamplingSettings(),
            )
        )
        for stop, policy in zip((False, True), policies, strict=True)
    )
    assert [r.labels.values for r in whole] == [r.labels.values for r in early]
    counts = [sum(n for _, n in policy.requests) for policy in policies]
    assert counts[1] < 0.8 * counts[0]


def test_soft_labels_by_log_mean_exp():
    """By hand, of 4 rewards 1, 0, 0, 0 and eta = 2: ln((e^2 + 3) / 4) / 2 = ln(2.597264) / 2."""
    replies = {1: [True, False, False, False], 2: [False] * 4}
    trajectory = Trajectory(problem=PROBLEM, steps=STEPS[:2])
    _, labels = run(trajectory, replies, n_rollouts=4, kind="soft", eta=2.0)
    assert labels.values == (pytest.approx(0.4772293, abs=1e-7), 0.0)
    assert labels.source == "monte_carlo, 4 rollouts, eta 2"
    made = estimator(MethodSettings(kind="soft", rollouts=4, eta=2.0))(trajectory)
    next(made)
    with pytest.raises(StopIteration) as done:
        made.send([[Rollout(r) for r in replies[m]] for m in (1, 2)])
    assert done.value.value == labels


@given(st.integers(1, 64), st.data(), st.floats(0, 20))
def test_log_mean_exp_of_every_share(trials, data, eta):
    successes = data.draw(st.integers(0, trials))
    plain = math.log(sum([math.exp(eta)] * successes + [1.0] * (trials - successes)) / trials)
    expected = plain / eta if eta > 1e-3 else successes / trials
    assert log_mean_exp(successes / trials, eta) == pytest.approx(
        expected, abs=1e-3 * (eta < 1e-2) + 1e-9
    )


@pytest.mark.parametrize(
    ("eta", "expected"), [(1e-300, 0.25), (1e-9, 0.25), (1e308, 1.0), (math.inf, 1.0)]
)
def test_log_mean_exp_at_its_ends(eta, expected):
    assert log_mean_exp(0.25, eta) == pytest.approx(expected, abs=1e-9)
    assert (log_mean_exp(0.0, eta), log_mean_exp(1.0, eta)) == (0.0, 1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"eta": 1.0},
        {"kind": "soft", "eta": -1.0},
        {"kind": "soft", "eta": math.nan},
        {"kind": "soft", "stop_at_success": True},
    ],
)
def test_what_has_no_meaning_is_refused_at_once(settings):
    with pytest.raises(InvalidSetting):
        MethodSettings(**settings)
    with pytest.raises(InvalidSetting):
        next(monte_carlo(Trajectory(problem=PROBLEM, steps=STEPS), **settings))
