"""Environments by name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fake_environments import AgentGymServer, OpenEnvSocket
from prmkit.environments.base import Task
from prmkit.environments.catalogue import ENVIRONMENTS, environment, named
from prmkit.environments.crafting import crafting
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import rollout
from prmkit.errors import InvalidSetting, MissingDependency, UnknownName
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import ScriptedPolicy


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_name_is_the_one_in_the_problems(name, tmp_path):
    try:
        game = environment(name, tmp_path)()
    except MissingDependency as error:
        pytest.skip(str(error))
    assert game.reset(Task(0)).problem.meta["environment"] == name
    game.close()


def test_what_is_not_there_is_told():
    with pytest.raises(UnknownName, match="babyai"):
        environment("babyay")
    with pytest.raises(InvalidSetting, match="kept in a folder"):
        environment("textworld")


def test_what_is_not_asked_for_is_not_imported():
    code = (
        "import sys; import prmkit.environments.catalogue, prmkit.environments.rollout; "
        "print({'gymnasium', 'minigrid', 'textworld', 'torch', 'httpx2'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["gymnasium", "minigrid", "textworld", "httpx2", "websockets"])
def test_a_missing_package_names_what_to_install(name):
    module, extra = {
        "gymnasium": ("gym", "agents"),
        "minigrid": ("babyai", "agents"),
        "textworld": ("textworld", "textworld"),
        "httpx2": ("agentgym", "http"),
        "websockets": ("openenv", "agents"),
    }[name]
    use = "" if name != "websockets" else (
        "; from prmkit.endpoint import EndpointSettings; from prmkit.environments.base import Task"
        "; module.OpenEnv(EndpointSettings(url='http://127.0.0.1:9'), None).reset(Task(0))"
    )  # fmt: skip
    code = (
        f"import sys; sys.modules[{name!r}] = None; from importlib import import_module; "
        f"module = import_module('prmkit.environments.{module}'){use}"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"pip install 'prmkit[{extra}]'" in ran.stderr


def plan(seed):
    game = crafting()
    game.reset(Task(seed, "depth-1"))
    return game.plan()


def play(name, seed, said):
    """An episode of what a name makes, in the words `said`."""
    lines = iter(said)
    (group,) = rollout(
        ScriptedPolicy(lambda prefix, rng: f"Action: {next(lines)}", name="reader"),
        environment(name), [Task(seed)], 1, sampling=SamplingSettings(),
        settings=EpisodeSettings(max_steps=len(said)),
    )  # fmt: skip
    assert group[0].error is None
    trajectory = group[0].trajectory
    assert trajectory.problem.meta["environment"] == named(name)
    return trajectory


def test_agentgym_is_played_by_its_address():
    with AgentGymServer("babyai") as server:
        found = play(f"agentgym:babyai={server.url}", 3, plan(3))
    assert found.correct is True
    assert found.problem.meta["environment"] == "agentgym-babyai"


@pytest.mark.parametrize(
    ("name", "say"),
    [("openenv:message", str), ("openenv", lambda text: json.dumps({"message": text}))],
)
def test_openenv_is_played_by_its_address(name, say):
    pytest.importorskip("websockets", reason="needs prmkit[agents]")
    with OpenEnvSocket() as server:
        address = f"{name}={server.url}"
        found = play(address, 3, [say(action) for action in plan(3)])
        assert (found.correct, found.problem.meta["environment"]) == (True, "openenv")
        assert found.steps[-1].observation.startswith("Crafted ")
        # The words of an action that is none cost no step there.
        lost = play(address, 3, ["" if name != "openenv" else "dance"])
    assert "is no action" in lost.steps[0].observation
    assert lost.correct is False


def test_gymnasium_is_played_by_its_name():
    pytest.importorskip("gymnasium", reason="needs prmkit[agents]")
    # Blackjack asks for no least reward: who sticks at once has won or lost by the cards.
    outcomes = {play("gymnasium:Blackjack-v1", seed, ["0"]).correct for seed in range(12)}
    assert outcomes == {True, False}
    # Without a reward an episode that has ended is lost.
    sunk = play("gymnasium:FrozenLake-v1", 0, ["0"] * 100)
    assert (sunk.finish, sunk.correct) == ("eos", False)
    found = play("gymnasium:FrozenLake-v1", 1, ["2", "5"])
    assert "number of an action: 0, 1, 2, 3." in found.problem.text
    assert found.steps[0].observation.startswith("You observe ")
    assert "'5' is no action. Use one of: 0, 1, 2, 3." in found.steps[1].observation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("agentgym:babyai", "such as agentgym:babyai=http"),
        ("agentgym:babyai=127.0.0.1:1", "address is '127.0.0.1:1'"),
        ("openenv", "such as openenv=http"),
        ("gymnasium", "gymnasium:FrozenLake-v1"),
        ("gymnasium:FrozenLake-v1=http://x", "gymnasium:FrozenLake-v1"),
        ("gymnasium:FrozenLake-v99", "makes no environment 'FrozenLake-v99'"),
        ("gymnasium:Pendulum-v1", "the actions of Pendulum-v1 are Box"),
    ],
)
def test_names_that_say_too_little_are_refused(name, message):
    if name.startswith("gymnasium"):
        pytest.importorskip("gymnasium", reason="needs prmkit[agents]")
    with pytest.raises(InvalidSetting, match=message):
        environment(name)


def test_kinds_that_are_not_known_are_told():
    with pytest.raises(UnknownName, match="babyai"):
        environment("agentgym:babyay=http://127.0.0.1:1")
    with pytest.raises(UnknownName, match="agentgym"):
        environment("agentgim:babyai=http://127.0.0.1:1")
    assert named("crafting") == "crafting"
