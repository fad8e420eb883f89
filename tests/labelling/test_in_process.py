"""The driver: in order, whatever runs beside, within a budget, and through any number of kills."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.errors import InvalidSetting, RunFolderError
from prmkit.files import atomic_text
from prmkit.formats.files import read_records
from prmkit.labelling import Budget, Rollouts, RolloutStore, drive, label, monte_carlo, sequential
from prmkit.labelling.store import cost_of
from prmkit.ledger import Ledger, run_folder
from prmkit.policies.base import SamplingSettings
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


# ── kills ─────────────────────────────────────────────────────────────────────────────────

ITEMS = trajectories(40, 4)


class Counting(ScriptedPolicy):
    """Notes each call on disk before it answers, so that no kill can hide one."""

    def __init__(self, calls: Path):
        super().__init__(coin)
        self._calls = calls

    def complete(self, prefixes, n, settings, seeds, first=None):
        begin = first or [0] * len(prefixes)
        lines = [
            f"{p.key}/{i}" for p, b in zip(prefixes, begin, strict=True) for i in range(b, b + n)
        ]
        line = (" ".join(lines) + "\n").encode()
        handle = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line)
        os.close(handle)
        time.sleep(0.0005)
        return super().complete(prefixes, n, settings, seeds, first)


def work(folder: Path) -> None:
    """A labelling run, from its folder to its last byte."""
    with (
        run_folder(folder, {"k": 8}),
        Ledger(folder / "ledger.sqlite", {"k": 8}) as ledger,
        atomic_text(folder / "records.jsonl") as file,
    ):
        records = label(
            ITEMS,
            lambda t: monte_carlo(t, stop_at_success=True),
            Counting(folder.parent / "calls"),
            judge_by_answer,
            settings=SamplingSettings(),
            in_flight=3,
            ledger=ledger,
        )
        for record in records:
            file.write(record.model_dump_json() + "\n")


def killed_after(folder: Path, seconds: float) -> bool:
    """Run in a child that is killed after a while; whether it was."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work(folder)
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def killing(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill runs at random moments until there were so many; then compare with a run in peace."""
    (tmp_path / "peace").mkdir()
    (tmp_path / "war").mkdir()
    began = time.perf_counter()
    work(tmp_path / "peace" / "run")
    whole = time.perf_counter() - began
    rng = random.Random(seed)
    killed = finished = 0
    while killed < kills:
        folder = tmp_path / "war" / str(finished) / "run"
        folder.parent.mkdir(exist_ok=True)
        # Short lives, so that one run is killed many times; now and then a longer one.
        if killed_after(folder, rng.choice([0.05, 0.1, 0.1, 0.3]) * rng.random() * 2 * whole):
            killed += 1
        else:
            finished += 1
    work(tmp_path / "war" / str(finished) / "run")
    expected = (tmp_path / "peace" / "run" / "records.jsonl").read_bytes()
    needed = (tmp_path / "peace" / "calls").read_text().split()
    assert len(set(needed)) == len(needed)
    assert len(list(read_records(tmp_path / "peace" / "run" / "records.jsonl"))) == len(ITEMS)
    most = 0
    for i in range(finished + 1):
        folder = tmp_path / "war" / str(i) / "run"
        assert (folder / "records.jsonl").read_bytes() == expected
        assert sorted(f.name for f in folder.iterdir() if f.name.startswith(".")) == []
        with Ledger(folder / "ledger.sqlite", {"k": 8}) as ledger:
            assert cost_of(ledger)[0] == len(needed)
        calls = [line.split() for line in (folder.parent / "calls").read_text().splitlines()]
        times = Counter(rollout for call in calls for rollout in call)
        assert set(times) == set(needed)
        # What a kill can cost is the call that was in flight.
        repeated = sum(n - 1 for n in times.values())
        assert repeated <= killed * max(map(len, calls))
        most = max(most, len(calls))
    assert most > 10


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    killing(tmp_path, 20, 1)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    killing(tmp_path, 200, 2)
