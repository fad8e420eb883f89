"""Agents whose policy is a real vLLM, which may be killed: `make test-server`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.environments.base import Task
from prmkit.environments.catalogue import environment
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import from_turns, rollout
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import OpenAIPolicy
from started import served_policy

VLLM = os.environ.get("PRMKIT_VLLM", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not Path(VLLM).is_file(), reason="PRMKIT_VLLM names no vllm command"),
]

FOLDER = WEIGHTS / "policy"
TASKS = [Task(seed, "depth-1") for seed in range(12)]
SHORT = EpisodeSettings(max_steps=4)
GREEDY = SamplingSettings(temperature=0, max_new_tokens=12)
DRAWN = SamplingSettings(temperature=1, max_new_tokens=12)
TRIES = 200
"""Enough for the minute that a server takes to start; the deadline ends them."""

crafting = environment("crafting")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served_policy(FOLDER, tmp_path_factory.mktemp("vllm") / "vllm.log") as made:
        yield made


def new_policy(server, *, ids=True):
    endpoint = Endpoint(EndpointSettings(url=server.url, attempts=TRIES))
    return OpenAIPolicy(endpoint, "policy", tokenizer=load_tokenizer(FOLDER) if ids else None)


def play(policy, sampling=GREEDY, n=1):
    groups = rollout(policy, crafting, TASKS, n, sampling=sampling, settings=SHORT)
    return [episode for group in groups for episode in group]


def texts(episodes):
    return [[(s.text, s.observation) for s in one.trajectory.steps] for one in episodes]


@pytest.mark.parametrize("ids", [True, False])
def test_a_served_agent_acts_as_its_weights_do(server, ids):
    """An episode is read alike by the template of the server and by ours, turn after turn."""
    here = texts(play(HFPolicy(FOLDER, device="cpu")))
    there = texts(play(new_policy(server, ids=ids)))
    assert sum(map(len, here)) == len(TASKS) * SHORT.max_steps
    assert len({text for one in here for text, _ in one}) > 3
    # The last bits of a sum may tip a choice.
    assert sum(one == other for one, other in zip(here, there, strict=True)) >= len(TASKS) - 1


def test_continuations_from_turns_outlive_their_server(server):
    whole = [one.trajectory for one in play(new_policy(server), DRAWN)]
    assert all(one.correct is False for one in whole)
    prefixes = [one.prefix(k) for one in whole for k in range(4)]
    policy = new_policy(server)

    def go_on(on_progress=None):
        return from_turns(
            policy, crafting, prefixes, 6, sampling=DRAWN, settings=SHORT, on_progress=on_progress
        )

    undisturbed = go_on()
    ended, done = threading.Event(), []

    def progress(n):
        done.append(n)
        if sum(done) > 60:
            ended.set()

    killer = server.outage(ended)
    disturbed = go_on(progress)
    killer.join()
    assert sum(done) == len(prefixes) * 6
    errors = [one.error for of in (*undisturbed, *disturbed) for one in of.episodes]
    assert not any(errors)
    assert [of.trials for of in disturbed] == [6] * len(prefixes)
    assert [of.replayed for of in disturbed] == [of.replayed for of in undisturbed]
    pairs = [
        (one, other)
        for left, right in zip(undisturbed, disturbed, strict=True)
        for one, other in zip(texts(left.episodes), texts(right.episodes), strict=True)
    ]
    assert sum(one == other for one, other in pairs) >= 0.95 * len(pairs)
