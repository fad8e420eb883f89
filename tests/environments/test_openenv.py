"""OpenEnv's servers, over a WebSocket and over HTTP."""

from __future__ import annotations

import json
import logging

import pytest
import stamina

from fake_environments import OpenEnvServer, OpenEnvSocket
from prmkit.endpoint import EndpointSettings
from prmkit.environments.base import Task
from prmkit.environments.crafting import crafting
from prmkit.environments.laws import ENVIRONMENT_LAWS, Trial
from prmkit.environments.openenv import OpenEnv, Words
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import rollout
from prmkit.errors import EnvironmentFailed
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import ScriptedPolicy

WORDS = Words(
    act=lambda text: {"message": text.encode(errors="replace").decode()} if text else None,
    observe=lambda seen: seen["text"],
    succeeded=lambda reward, seen: (reward or 0) >= 1,
    description="Craft.",
)


@pytest.fixture(autouse=True)
def no_waiting():
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


def client(server, transport, **more):
    settings = EndpointSettings(url=server.url, timeout=10)
    return OpenEnv(settings, WORDS, transport=transport, **more)


def plan(seed, depth="depth-1"):
    game = crafting()
    game.reset(Task(seed, depth))
    return game.plan()


@pytest.fixture(params=["websocket", "http"])
def transport(request):
    if request.param == "websocket":
        pytest.importorskip("websockets", reason="needs prmkit[agents]")
    return request.param


def serve(transport, fault=None):
    return OpenEnvSocket(fault) if transport == "websocket" else OpenEnvServer(fault=fault)


def test_it_keeps_the_laws(transport):
    # Over HTTP there is one environment behind the server.
    with serve(transport) as server:
        trial = Trial(lambda: client(server, transport), (Task(0), Task(1)), plan(0), 5)
        for law in ENVIRONMENT_LAWS:
            law(trial)


def test_an_episode_is_solved(transport):
    kinds = {"shallow": {}, "deep": {"depth": "depth-3"}}
    with serve(transport) as server:
        game = client(server, transport, name="craft", kinds=kinds)
        start = game.reset(Task(4, "deep"))
        assert start.problem.id == "craft/deep/4"
        assert start.problem.prompt.startswith("Craft.\n\nCraft one")
        replies = [game.step(action) for action in plan(4, "depth-3")]
        assert [r.success for r in replies] == [None] * (len(replies) - 1) + [True]
        assert game.step("") == ("The episode is over; nothing happens any more.", True, True, None)
        game.close()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"type": "error", "data": {"message": "no", "code": "EXECUTION_ERROR"}}, "EXECUTION_ERR"),
        ({"type": "observation", "data": {}}, "without observation"),
        (
            {"type": "observation", "data": {"observation": {"text": "x"}, "reward": "much"}},
            "reward 'much'",
        ),
        ([1], "answers None"),
        ("gone", "did not answer"),
    ],
)  # fmt: skip
def test_failures_over_a_websocket(fault, why):
    pytest.importorskip("websockets", reason="needs prmkit[agents]")
    with OpenEnvSocket(fault) as server:
        game = client(server, "websocket")
        game.reset(Task(0))
        game.step("inventory")
        with pytest.raises(EnvironmentFailed, match=why):
            game.step("inventory")
        # And the next episode begins, over a new connection where the old one is lost.
        assert game.reset(Task(0)).observation
        game.close()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ((500, {}), "after at most 1 tries"),
        ((422, {"detail": "no such field"}), "no such field"),
        ((200, {"observation": "text"}), "without observation"),
    ],
)
def test_failures_over_http(fault, why):
    with OpenEnvServer(fault=fault) as server:
        game = client(server, "http")
        game.reset(Task(0))
        game.step("inventory")
        with pytest.raises(EnvironmentFailed, match=why):
            game.step("inventory")
    assert [route for route, _ in server.requests].count("/step") == 2


def test_a_server_without_a_state_is_found_out():
    with OpenEnvServer(keeps=False) as server:
        game = client(server, "http")
        game.reset(Task(0))
        with pytest.raises(EnvironmentFailed, match="keeps no state over HTTP.*websocket"):
            game.step("inventory")


def test_a_server_that_does_not_tell_its_state_is_believed(caplog):
    class Silent(OpenEnvServer):
        def answer(self, method, route, query, body):
            return (404, {}) if route == "/state" else super().answer(method, route, query, body)

    with Silent() as server, caplog.at_level(logging.WARNING, "prmkit"):
        game = client(server, "http")
        game.reset(Task(0))
        assert game.step("inventory").observation == "You carry nothing."
        game.step("inventory")
    assert caplog.text.count("is not known") == 1


def test_many_episodes_each_over_a_connection_of_its_own():
    pytest.importorskip("websockets", reason="needs prmkit[agents]")
    policy = ScriptedPolicy(
        lambda prefix, rng: plan(prefix.problem.meta["seed"])[len(prefix.steps)]
    )
    with OpenEnvSocket() as server:
        groups = list(
            rollout(
                policy, lambda: client(server, "websocket"), [Task(i) for i in range(6)], 1,
                sampling=SamplingSettings(),
                settings=EpisodeSettings(in_flight=3, threads=3),
            )
        )  # fmt: skip
        assert all(group[0].trajectory.correct for group in groups)
        assert server.sessions == 3
    assert json.loads(groups[0][0].record.model_dump_json())["meta"]["rewards"][-1] == 1.0
