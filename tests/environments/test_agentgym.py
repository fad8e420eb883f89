"""AgentGym's servers: as they answer, and as they fail."""

from __future__ import annotations

import pytest
import stamina

from fake_environments import AgentGymServer
from prmkit.endpoint import EndpointSettings
from prmkit.environments.agentgym import DIALECTS, AgentGym, Dialect
from prmkit.environments.base import Task, task_of
from prmkit.environments.crafting import crafting
from prmkit.environments.laws import ENVIRONMENT_LAWS, Trial
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import from_turns, rollout
from prmkit.errors import EnvironmentFailed, UnknownName
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import ScriptedPolicy


@pytest.fixture(autouse=True)
def no_waiting():
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


def client(server, kind=None, **more):
    return AgentGym(kind or server.dialect, EndpointSettings(url=server.url, timeout=10), **more)


def plan(seed):
    game = crafting()
    game.reset(Task(seed, "depth-1"))
    return game.plan()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_keeps_the_laws(dialect):
    with AgentGymServer(dialect) as server:
        actions = ("inventory", *plan(0))
        trial = Trial(lambda: client(server), (Task(0), Task(1)), actions, 5)
        for law in ENVIRONMENT_LAWS:
            law(trial)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_episode_is_solved(dialect):
    with AgentGymServer(dialect) as server:
        game = client(server, description="Craft.")
        start = game.reset(Task(3))
        assert "Craft one" in start.observation
        assert start.problem.prompt.startswith("Craft.")
        assert ("Craft it." in start.problem.prompt) == (dialect == "sciworld")
        assert task_of(start.problem) == Task(3, dialect)
        replies = [game.step(action) for action in plan(3)]
        assert [(r.done, r.success) for r in replies] == [(False, None)] * (len(replies) - 1) + [
            (True, True)
        ]
        assert replies[-1].reward == {"sciworld": 100.0, "babyai": 0.7}.get(dialect, 1.0)
        game.close()
        game.close()
    routes = [route for route, _ in server.requests]
    assert routes.count("/create") == 1
    assert routes.count("/step") == len(replies)


def test_actions_that_are_listed_are_each_there_once():
    with AgentGymServer("alfworld") as server:
        game = client(server)
        game.reset(Task(0))
        actions = game.actions()
    assert "inventory" in actions
    assert len(set(actions)) == len(actions)
    assert "" not in actions


def test_an_error_in_a_good_answer_is_an_error():
    with AgentGymServer(fault="error") as server:
        game = client(server)
        game.reset(Task(0))
        game.step("inventory")
        with pytest.raises(EnvironmentFailed, match="/step says: 'the recipe book'"):
            game.step("inventory")


@pytest.mark.parametrize("fault", ["gone", "status"])
def test_a_step_is_sent_once(fault):
    with AgentGymServer(fault=fault) as server:
        game = client(server)
        game.reset(Task(0))
        game.step("inventory")
        with pytest.raises(EnvironmentFailed, match="did not answer after at most 1 tries"):
            game.step("inventory")
    assert [route for route, _ in server.requests].count("/step") == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"done": 1}, "'done' is 1"),
        ({"reward": "much"}, "a score is 'much'"),
        ({"observation": None}, "an observation is None"),
    ],
)
def test_answers_that_are_none_are_told(fields, why):
    with AgentGymServer(fault=fields) as server:
        game = client(server)
        game.reset(Task(0))
        with pytest.raises(EnvironmentFailed, match=why):
            game.step("inventory")


def test_an_empty_observation_says_so():
    with AgentGymServer(fault={"observation": " "}) as server:
        game = client(server)
        game.reset(Task(0))
        assert game.step("inventory").observation == "Nothing is said."


def test_a_server_that_was_started_anew_is_asked_for_another_environment():
    with AgentGymServer() as server:
        game = client(server)
        game.reset(Task(0))
        server.games.clear()
        with pytest.raises(EnvironmentFailed, match="not valid"):
            game.reset(Task(1))
        assert game.reset(Task(1)).observation


def test_an_unknown_server_names_the_known_ones():
    with pytest.raises(UnknownName, match="textcraft"):
        AgentGym("textcraf", EndpointSettings(url="http://127.0.0.1:9"))


def test_a_dialect_of_your_own():
    with AgentGymServer() as server:
        game = client(server, Dialect(solved=2.0), name="hard")
        assert game.reset(Task(0)).problem.meta["task"] == "hard"
        assert [game.step(action) for action in plan(0)][-1].success is False


def agent():
    def script(prefix, rng):
        seed = task_of(prefix.problem).seed
        return "inventory" if rng.random() < 0.2 else (*plan(seed), "inventory")[
            min(len(plan(seed)), sum(s.text != "inventory" for s in prefix.steps))
        ]  # fmt: skip

    return ScriptedPolicy(script)


def test_many_episodes_at_once_and_continuations_by_replay():
    settings = EpisodeSettings(threads=4, in_flight=6)
    with AgentGymServer() as server:
        groups = list(
            rollout(
                agent(), lambda: client(server), [Task(i) for i in range(4)], 2,
                sampling=SamplingSettings(), settings=settings,
            )
        )  # fmt: skip
        assert all(e.trajectory.correct for group in groups for e in group)
        assert server.games == {}
        trajectory = groups[0][0].trajectory
        (continued,) = from_turns(
            agent(), lambda: client(server), [trajectory.prefix(1)], 3,
            sampling=SamplingSettings(), settings=settings,
        )  # fmt: skip
    assert continued.replayed == 3
    assert continued.successes == 3


def test_a_server_that_is_not_there_is_a_recorded_failure():
    with AgentGymServer() as server:
        pass
    told = []
    (group,) = rollout(
        agent(), lambda: client(server), [Task(0)], 1,
        sampling=SamplingSettings(), on_error=lambda problem, error: told.append(error),
    )  # fmt: skip
    assert group[0].trajectory.finish == "error"
    assert "/create did not answer" in told[0]
