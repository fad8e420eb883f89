"""The driver: in order, whatever runs beside, within a budget, and through any number of kills."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.errors import InputTooLong, InvalidSetting, PolicyError, RunFolderError
from prmkit.labelling import (
    Budget,
    Rollout,
    Rollouts,
    RolloutStore,
    drive,
    judge,
    monte_carlo,
    sequential,
)
from prmkit.labelling.store import kept_in
from prmkit.ledger import Ledger, run_folder
from prmkit.policies.base import SamplingSettings, failed
from prmkit.policies.sampling import judge_by_answer
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Step, Trajectory


def coin(prefix, rng: random.Random) -> str:
    return f"#### {rng.choice([1, 1, 0])}" + " x" * rng.randrange(6)


def trajectories(n, n_steps=3):
    return [
        Trajectory(
            # Two solutions of each problem, so that they share rollouts.
            problem=Problem(id=f"p{i // 2}", prompt=f"{i // 2}?", answer="1"),
            steps=tuple(Step(text=f"{i % 2 if k else 'same'} {k}\n") for k in range(n_steps)),
        )
        for i in range(n)
    ]


def store(policy=None, ledger=None):
    policy = policy or ScriptedPolicy(coin)
    return RolloutStore(policy, judge_by_answer, SamplingSettings(), 0, ledger)


def hungry(item):
    """A task that asks for one rollout a round, as often as its item says."""
    number, rounds = item
    prefix = Trajectory(problem=Problem(id=str(number), prompt=str(number), answer="1"))
    texts = []
    for _ in range(rounds):
        ((outcome,),) = yield [Rollouts(prefix, 1)]
        texts.append(outcome.text)
    return texts


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7))
@settings(max_examples=60)
def test_results_come_in_order_and_do_not_depend_on_the_window(rounds, in_flight):
    items = list(enumerate(rounds))
    wide = list(drive(items, hungry, store(), in_flight=100))
    assert [item for item, _ in wide] == items
    assert [len(texts) for _, texts in wide] == rounds
    assert list(drive(items, hungry, store(), in_flight=in_flight)) == wide
    assert list(drive(iter(items), hungry, store(), in_flight=in_flight)) == wide


def test_no_more_tasks_are_under_way_than_allowed_and_the_next_begins_as_one_ends():
    running, most = set(), []

    def watched(item):
        running.add(item)
        most.append(len(running))
        try:
            return (yield from hungry(item))
        finally:
            running.discard(item)

    policy = ScriptedPolicy(coin)
    items = [(0, 30), *((i, 1) for i in range(1, 40))]
    taken = []

    def told():
        for item in items:
            taken.append(item)
            yield item

    list(drive(told(), watched, store(policy), in_flight=4))
    assert max(most) == 4
    # The long first one holds nobody up: its 30 rounds answer three others each.
    assert len(policy.requests) == 30 + 39
    assert len(taken) == 40


def test_results_that_wait_for_an_earlier_one_are_bounded():
    held = []

    def told():
        for i in range(10_000):
            held.append(i)
            yield (i, 400 if i == 0 else 0)

    driven = drive(told(), hungry, store(), in_flight=4)
    next(driven)
    assert len(held) <= 8 * 4 + 1


def labelled(items, budget=None, in_flight=64, estimator=monte_carlo, policy=None):
    return list(drive(items, estimator, store(policy), in_flight=in_flight, budget=budget))


@pytest.mark.parametrize("in_flight", [1, 2, 5, 64])
def test_a_budget_buys_the_same_whatever_runs_beside(in_flight):
    """Steps 2 and 3 of each solution cost 8 each; their first step they share by pairs."""
    items = trajectories(12)
    whole = labelled(items)
    costs = [24, 16] * 6
    for limit in (23, 24, 39, 40, 41, 100, 239, 240, 1000):
        budget = Budget(rollouts=limit)
        found = labelled(items, budget, in_flight)
        n = sum(sum(costs[: i + 1]) <= limit for i in range(12))
        assert found == whole[:n]
        assert budget.ended == (n < 12)
        assert budget.spent[0] == sum(costs[:n])


def test_a_budget_of_tokens():
    items = trajectories(12)
    for limit in (1, 300, 1000, 5000):
        budget = Budget(tokens=limit)
        found = labelled(items, budget, 3)
        assert budget.spent[1] <= limit
        both = labelled(items, Budget(rollouts=10**6, tokens=limit), 12)
        assert found == both
        more = Budget(tokens=10**9)
        labelled(items[: len(found) + 1], more)
        assert (more.spent[1] > limit) == (len(found) < 12)


def test_a_budget_is_not_overspent_by_much():
    policy = ScriptedPolicy(coin)
    budget = Budget(rollouts=500)
    labelled(trajectories(400), budget, 16, policy=policy)
    drawn = sum(n for _, n in policy.requests)
    # Sixteen at a time, of 20 rollouts each; at the end only so many as may still be paid.
    assert 500 - 24 < budget.spent[0] <= 500 < drawn + 24
    assert drawn <= 500 + 24 * 2
    policy = ScriptedPolicy(coin)
    assert len(labelled(trajectories(400), Budget(rollouts=50), 64, policy=policy)) == 2
    assert sum(n for _, n in policy.requests) <= 50 + 24


def test_what_buys_nothing_is_refused():
    for wrong in ({"rollouts": 0}, {"tokens": -3}):
        with pytest.raises(InvalidSetting, match="buys nothing"):
            Budget(**wrong)
    with pytest.raises(InvalidSetting, match="in_flight is 0"):
        list(drive([], monte_carlo, store(), in_flight=0))


def test_sequential_labels_are_the_same_in_any_order_and_window():
    items = trajectories(20, 6)
    one = labelled(items, in_flight=1, estimator=sequential)
    assert labelled(items[::-1], in_flight=7, estimator=sequential)[::-1] == one


# ── a folder of one run ───────────────────────────────────────────────────────────────────


def claim(folder, settings, **how):
    with run_folder(folder, settings, **how):
        return sorted(file.name for file in folder.iterdir())


def test_a_folder_is_worked_in_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "r"
    with (
        run_folder(folder, {"a": 1}),
        pytest.raises(RunFolderError, match="another process is at work in"),
    ):
        claim(folder, {"a": 1})
    (folder / ".records.jsonl.x.tmp").write_text("half")
    (folder / "records.jsonl").write_text("whole")
    assert claim(folder, {"a": 1}) == ["config.json", "records.jsonl"]
    with pytest.raises(RunFolderError, match="other settings"):
        claim(folder, {"a": 2})
    assert claim(folder, {"a": 2}, resume=False) == ["config.json"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (True, False):
        with (
            pytest.raises(RunFolderError, match="is no run of prmkit"),
            run_folder(tmp_path, {}, resume=resume),
        ):
            pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# ── rollouts that fail ────────────────────────────────────────────────────────────────────


class Faulty(ScriptedPolicy):
    """Fails for prefixes that hold a word, or for all while it is down."""

    down = False

    def complete(self, prefixes, n, settings, seeds, first=None):
        if any("endless" in p.problem.text for p in prefixes):
            raise InputTooLong("the prefix of problem 'p' has 9 tokens; it reads at most 8")
        drawn = super().complete(prefixes, n, settings, seeds, first)
        return [
            [failed("status 500") for _ in found] if self.down or "cursed" in p.text else found
            for p, found in zip(prefixes, drawn, strict=True)
        ]


def with_step(text, name="q"):
    return Trajectory(
        problem=Problem(id=name, prompt=name, answer="1"),
        steps=(Step(text="fine\n"), Step(text=text)),
    )


def test_a_rollout_that_fails_is_no_trial_is_noted_and_asked_for_again(tmp_path):
    items = [with_step("cursed"), with_step("fine"), with_step("x", "endless")]
    policy = Faulty(coin)

    def go():
        with Ledger(tmp_path / "l.sqlite", {}) as ledger:
            rollouts = store(policy, ledger)
            found = [labels for _, labels in drive(items, monte_carlo, rollouts)]
            return found, rollouts, kept_in(ledger), dict(ledger.items())

    (cursed, fine, endless), rollouts, kept, notes = go()
    assert (cursed.values[1], cursed.trials) == (None, (8, 0))
    assert fine.trials == (8, 8)
    assert endless.trials == (0, 0)
    # The two solutions share their first prefix; of the endless one both fail.
    assert (rollouts.drawn, rollouts.failed) == (16, 24)
    assert (kept.rollouts, kept.failed) == (16, 24)
    assert {json.loads(v) for k, v in notes.items() if k.startswith("failed ")} == {
        "status 500", "the prefix of problem 'p' has 9 tokens; it reads at most 8",
    }  # fmt: skip
    asked = len(policy.requests)
    items = [with_step("cursed"), with_step("fine")]
    policy.complete = super(Faulty, policy).complete
    (mended, again), rollouts, kept, _ = go()
    assert mended.trials == (8, 8)
    assert again == fine
    assert (rollouts.drawn, kept.rollouts, kept.failed) == (8, 24, 16)
    assert len(policy.requests) == asked + 1


def test_a_run_ends_where_nobody_answers_any_more(tmp_path):
    policy = Faulty(coin)
    items = trajectories(200)

    def go(ledger):
        rollouts = store(policy, ledger)
        for i, (_, labels) in enumerate(drive(items, monte_carlo, rollouts, in_flight=4)):
            policy.down = policy.down or i == 7
            yield labels

    with Ledger(tmp_path / "l.sqlite", {}) as ledger:
        found = []
        with pytest.raises(PolicyError, match="no rollout of 64 prefixes in a row.*status 500"):
            found.extend(go(ledger))
        assert 8 <= len(found) < 60
        policy.down = False
        policy.complete = super(Faulty, policy).complete
        whole = list(go(ledger))
    peace = [labels for _, labels in drive(items, monte_carlo, store())]
    assert whole == peace


def test_critiques_that_fail_have_no_vote():
    made = judge(with_step("x"), votes=3)
    next(made)
    with pytest.raises(StopIteration) as done:
        made.send([[Rollout(None, error="status 500"), *[Rollout(None, "\\boxed{1}")] * 2]])
    assert done.value.value.values == (1, 0)
    assert done.value.value.certainty == (1, 1)
    made = judge(with_step("x"), votes=1)
    next(made)
    with pytest.raises(StopIteration) as done:
        made.send([[Rollout(None, error="status 500")]])
    assert "status 500" in done.value.value.reason
