"""Episodes in shared batches, their failures, resuming; and going on from any turn."""

from __future__ import annotations

import json
import logging

import pytest

from prmkit.environments.actions import action_of
from prmkit.environments.base import OVER, Reply, Task, replay, task_of
from prmkit.environments.crafting import crafting
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import from_turns, rollout
from prmkit.errors import EnvironmentFailed, InputTooLong, InvalidRecord, UnknownName
from prmkit.ledger import Ledger
from prmkit.policies.base import SamplingSettings, failed
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Trajectory

SAMPLING = SamplingSettings(max_new_tokens=500)
TASKS = [Task(seed, f"depth-{1 + seed % 3}") for seed in range(6)]


def planned(rng, prefix, wrong=0.3):
    """The next action of a plan, at times nonsense; what was done is in the prefix."""
    game = crafting()
    replay(game, task_of(prefix.problem), [action_of(step.text) for step in prefix.steps])
    action = "dance" if rng.random() < wrong else game.plan()[0]
    return f"Thought: number {rng.randrange(1000)}.\nAction: {action}"


class Agent(ScriptedPolicy):
    """Plays the crafting game well, with some nonsense; sees what it is answered."""

    def __init__(self, wrong=0.3):
        super().__init__(lambda prefix, rng: planned(rng, prefix, wrong), "agent")
        self.calls = []

    def complete(self, prefixes, n, settings, seeds, first=None):
        self.calls.append(len(prefixes))
        return super().complete(prefixes, n, settings, seeds, first)


def play(policy, make=crafting, tasks=TASKS, n=3, **more):
    more.setdefault("settings", EpisodeSettings(max_steps=40, in_flight=4))
    return list(rollout(policy, make, tasks, n, sampling=SAMPLING, **more))


def test_episodes_are_solved_and_keep_what_was_said_and_answered():
    groups = play(Agent())
    assert [len(group) for group in groups] == [3] * 6
    for task, group in zip(TASKS, groups, strict=True):
        for episode in group:
            trajectory = episode.trajectory
            assert task_of(trajectory.problem) == task
            assert (trajectory.finish, trajectory.correct, trajectory.generator) == (
                "eos",
                True,
                "agent",
            )
            assert len(episode.rewards) == len(trajectory.steps)
            assert episode.rewards[-1] == 1.0
            assert sum(episode.rewards) == 1.0
            again = replay(crafting(), task, [action_of(s.text) for s in trajectory.steps])
            assert [r.observation for r in again.replies] == [
                s.observation for s in trajectory.steps
            ]
        assert len({episode.trajectory.key for episode in group}) > 1


def test_batches_orders_and_threads_change_nothing():
    expected = play(Agent())
    for settings in (
        EpisodeSettings(max_steps=40, in_flight=1),
        EpisodeSettings(max_steps=40, in_flight=100, threads=4),
    ):
        assert play(Agent(), settings=settings) == expected
    backwards = play(Agent(), tasks=TASKS[::-1])
    assert backwards[::-1] == expected
    fewer = play(Agent(), n=2)
    assert fewer == [group[:2] for group in expected]
    assert play(Agent(), seed=1) != expected


def test_episodes_share_calls_and_new_ones_take_the_place_of_those_that_ended():
    agent = Agent(0)
    play(agent)
    assert max(agent.calls) == 4
    assert sum(size < 4 for size in agent.calls) < len(agent.calls) / 2


def test_too_many_steps_are_a_failure_at_the_task():
    for group in play(Agent(1.0), settings=EpisodeSettings(max_steps=5)):
        for episode in group:
            assert (episode.trajectory.finish, episode.trajectory.correct) == ("length", False)
            assert len(episode.trajectory.steps) == 5
            assert episode.error is None


def test_too_long_a_text_ends_only_its_own_episode():
    class Short(Agent):
        def complete(self, prefixes, n, settings, seeds, first=None):
            if any(task_of(p.problem) == TASKS[2] and len(p.steps) > 1 for p in prefixes):
                raise InputTooLong("too long")
            return super().complete(prefixes, n, settings, seeds, first)

    groups = play(Short())
    assert [e.trajectory.finish for e in groups[2]] == ["length"] * 3
    assert [e.trajectory.correct for e in groups[2]] == [False] * 3
    expected = play(Agent())
    assert groups[:2] + groups[3:] == expected[:2] + expected[3:]


class Crashes:
    """A crafting game that breaks in the middle of some episodes."""

    def __init__(self, when):
        self._real, self._when, self._n = crafting(), when, 0
        self.closed = 0

    def __getattr__(self, name):
        return getattr(self._real, name)

    def reset(self, task):
        self._task, self._n = task, 0
        if self._when == "reset" and task == TASKS[1]:
            raise ConnectionError("nobody there")
        return self._real.reset(task)

    def step(self, action):
        self._n += 1
        if self._when == "step" and self._task == TASKS[1] and self._n == 2:
            raise MemoryError("dead")
        if self._when == "surrogate" and self._task == TASKS[1]:
            return Reply("\ud800")
        return self._real.step(action)

    def close(self):
        self.closed += 1
        if self._when == "step":
            raise OSError("already gone")


@pytest.mark.parametrize(
    ("when", "why", "steps"),
    [
        ("reset", "a reset failed: ConnectionError: nobody there", 0),
        ("step", "a step failed: MemoryError: dead", 1),
        ("surrogate", "an observation is no text", 0),
    ],
)
def test_a_broken_environment_is_a_recorded_failure(when, why, steps, caplog):
    made = []

    def make():
        made.append(Crashes(when))
        return made[-1]

    told = []
    groups = play(
        Agent(), make, on_error=lambda problem, error: told.append((problem.meta["seed"], error))
    )
    expected = play(Agent())
    assert groups[:1] + groups[2:] == expected[:1] + expected[2:]
    for episode in groups[1]:
        assert (episode.trajectory.finish, episode.trajectory.correct) == ("error", None)
        assert why in episode.error
        assert len(episode.trajectory.steps) == steps
        assert json.loads(episode.record.model_dump_json())["meta"]["error"] == episode.error
    assert told == [(1, groups[1][0].error)] * 3
    assert all(one.closed == 1 for one in made)
    with caplog.at_level(logging.WARNING, "prmkit"):
        play(Agent(), make, n=1)
    assert why in caplog.text


def test_an_environment_that_cannot_be_made_is_a_recorded_failure():
    def make():
        raise FileNotFoundError("no game")

    (group,) = play(Agent(), make, tasks=TASKS[:1], n=1)
    assert "could not be made: FileNotFoundError: no game" in group[0].error
    assert task_of(group[0].trajectory.problem) == TASKS[0]


def test_what_the_policy_cannot_say_is_a_recorded_failure():
    class Flaky(Agent):
        def complete(self, prefixes, n, settings, seeds, first=None):
            drawn = super().complete(prefixes, n, settings, seeds, first)
            return [
                [failed("no answer")] if len(prefix.steps) == 1 else of_prefix
                for prefix, of_prefix in zip(prefixes, drawn, strict=True)
            ]

    for group in play(Flaky()):
        for episode in group:
            assert (episode.trajectory.finish, episode.error) == ("error", "no answer")
            assert len(episode.trajectory.steps) == len(episode.rewards) == 1


def test_a_wrong_name_of_a_task_ends_it_at_once():
    with pytest.raises(UnknownName, match="depth-2"):
        play(Agent(), tasks=[Task(0, "dept-2")])
    with pytest.raises(ValueError, match="twice"):
        play(Agent(), tasks=[Task(0), Task(0)])


def test_what_is_noted_is_not_played_again_and_failures_are(tmp_path):
    expected = play(Agent())
    ledger = Ledger(tmp_path / "ledger", {})
    broken = play(Agent(), lambda: Crashes("step"), ledger=ledger, on_error=lambda *_: None)
    assert broken != expected
    assert len(ledger) == 15
    agent, progress = Agent(), []
    assert play(agent, ledger=ledger, on_progress=progress.append) == expected
    assert sum(progress) == 18
    assert {task_of(prefix.problem) for prefix, _ in agent.requests} == {TASKS[1]}
    again = Agent()
    assert play(again, ledger=ledger) == expected
    assert again.calls == []


def test_a_run_that_is_broken_off_goes_on_where_it_was(tmp_path):
    class Killed(Agent):
        def complete(self, prefixes, n, settings, seeds, first=None):
            if len(self.calls) == 20:
                raise KeyboardInterrupt
            return super().complete(prefixes, n, settings, seeds, first)

    made = []

    def make():
        made.append(Crashes("never"))
        return made[-1]

    ledger = Ledger(tmp_path / "ledger", {})
    with pytest.raises(KeyboardInterrupt):
        play(Killed(), make, ledger=ledger)
    assert all(one.closed == 1 for one in made)
    noted = len(ledger)
    assert 0 < noted < 18
    agent = Agent()
    assert play(agent, ledger=ledger) == play(Agent())
    assert len([p for p, _ in agent.requests if not p.steps]) == 18 - noted


class WithoutSnapshots:
    can_snapshot = False

    def __init__(self):
        self._real = crafting()

    def __getattr__(self, name):
        return getattr(self._real, name)

    def snapshot(self):
        raise EnvironmentFailed("none")


def go_on(policy, prefixes, n=4, make=crafting, **more):
    more.setdefault("settings", EpisodeSettings(max_steps=30, in_flight=5))
    return from_turns(policy, make, prefixes, n, sampling=SAMPLING, **more)


@pytest.fixture(scope="module")
def played():
    return [group[0].trajectory for group in play(Agent())]


@pytest.mark.parametrize("threads", [1, 4])
def test_from_any_turn_by_snapshot_and_by_replay(played, threads):
    settings = EpisodeSettings(max_steps=30, in_flight=5, threads=threads)
    prefixes = [t.prefix(k) for t in played[:3] for k in range(len(t.steps), -1, -1)]
    kept = go_on(Agent(), prefixes, settings=settings)
    replayed = go_on(Agent(), prefixes, make=WithoutSnapshots, settings=settings)
    for prefix, one, other in zip(prefixes, kept, replayed, strict=True):
        assert one.episodes == other.episodes
        assert other.replayed == 4 * len(prefix.steps)
        for episode in one.episodes:
            steps = episode.trajectory.steps
            assert steps[: len(prefix.steps)] == prefix.steps
            assert len(episode.rewards) == len(steps) - len(prefix.steps)
            again = replay(crafting(), task_of(prefix.problem), [action_of(s.text) for s in steps])
            assert [r.observation for r in again.replies] == [s.observation for s in steps]
            assert episode.trajectory.correct == (again.last.success or False)
        assert one.trials == 4
        assert one.successes == sum(e.trajectory.correct for e in one.episodes)
        assert one.steps == sum(len(e.rewards) for e in one.episodes)
    # With snapshots every step of a trajectory is done once, whatever the number of prefixes.
    assert sum(one.replayed for one in kept) == sum(len(t.steps) for t in played[:3])


def test_an_episode_that_was_over_has_its_outcome_again(played):
    agent = Agent()
    whole = played[0].prefix(len(played[0].steps))
    (continued,) = go_on(agent, [whole])
    assert agent.calls == []
    assert continued.steps == 0
    assert continued.successes == continued.trials == 4
    assert [e.trajectory for e in continued.episodes] == [played[0]] * 4


def test_the_limit_of_steps_counts_the_prefix(played):
    prefix = played[2].prefix(2)
    (continued,) = go_on(Agent(1.0), [prefix], settings=EpisodeSettings(max_steps=3))
    assert [len(e.trajectory.steps) for e in continued.episodes] == [3] * 4
    assert (continued.successes, continued.trials) == (0, 4)


def test_continuations_depend_on_seed_and_number_alone(played):
    prefixes = [played[1].prefix(1), played[2].prefix(2)]
    four = go_on(Agent(), prefixes)
    assert [c.episodes[2:] for c in four] == [
        c.episodes for c in go_on(Agent(), prefixes, n=2, first=2)
    ]
    assert go_on(Agent(), prefixes[::-1])[::-1] == four
    assert go_on(Agent(), prefixes, seed=1) != four


def test_continuations_are_found_again(played, tmp_path):
    prefixes = [played[1].prefix(1), played[2].prefix(2)]
    ledger = Ledger(tmp_path / "ledger", {})
    four = go_on(Agent(), prefixes, ledger=ledger)
    agent = Agent()
    again = go_on(agent, prefixes, ledger=ledger)
    assert [c.episodes for c in again] == [c.episodes for c in four]
    assert agent.calls == []
    assert [c.replayed for c in again] == [0, 0]


def test_an_environment_that_answers_otherwise_is_a_recorded_failure(played):
    steps = list(played[2].steps)
    steps[1] = steps[1].model_copy(update={"observation": "It rains."})
    prefix = played[2].model_copy(update={"steps": tuple(steps)}).prefix(3)
    told = []
    (continued,) = go_on(Agent(), [prefix], n=1, on_error=lambda p, error: told.append(error))
    assert "step 1 of" in told[0]
    assert "'It rains.'" in told[0]
    assert (continued.trials, continued.successes) == (0, 0)
    assert continued.episodes[0].trajectory.finish == "error"


def test_a_problem_that_was_another_is_a_recorded_failure(played):
    problem = played[0].problem.model_copy(update={"prompt": "Do nothing."})
    prefix = Trajectory(problem=problem)
    (continued,) = go_on(Agent(), [prefix], n=1, on_error=lambda *_: None)
    assert "begins otherwise" in continued.episodes[0].error
    with pytest.raises(InvalidRecord, match="names no task"):
        go_on(Agent(), [Trajectory(problem=Problem(id="x", prompt="?"))])


def test_after_the_end_nothing_happens():
    game = crafting()
    game.reset(TASKS[0])
    for action in game.plan():
        game.step(action)
    assert game.step("inventory") == Reply(OVER, True, True)


def test_a_model_reads_what_it_is_answered(tiny_lm):
    """A random model plays nonsense; what it says next depends on what it was answered."""
    from prmkit.policies.hf import HFPolicy

    policy = HFPolicy(tiny_lm, device="cpu")
    sampling = SamplingSettings(max_new_tokens=8, stop=("\n",))
    tasks = [Task(0, "depth-1"), Task(1, "depth-1")]
    settings = EpisodeSettings(max_steps=3, in_flight=4)
    groups = list(rollout(policy, crafting, tasks, 2, sampling=sampling, settings=settings))
    for group in groups:
        for episode in group:
            assert episode.trajectory.finish == "length"
            assert len(episode.trajectory.steps) == 3
            assert all("is no action" in s.observation for s in episode.trajectory.steps)
    prefix = groups[0][0].trajectory.prefix(1)
    other = prefix.steps[0].model_copy(update={"observation": "Got 1 oak log."})
    changed = prefix.model_copy(update={"steps": (other,)})
    said = policy.complete([prefix, changed], 4, sampling, [1, 1])
    assert said[0] != said[1]
