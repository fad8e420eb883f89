"""Policies by their settings."""

from __future__ import annotations

import pytest

from fake_openai import FakeServer
from prmkit.embedded.build import WEIGHTS
from prmkit.errors import CheckpointError, InvalidSetting
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.loading import load_policy
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Trajectory

FOLDER = str(WEIGHTS / "policy")
START = [Trajectory(problem=Problem(id="p", prompt="Mia has 3 pens."))]


def test_without_a_server_it_runs_here():
    made = load_policy(PolicySettings(policy=FOLDER, device="cpu"))
    assert isinstance(made, HFPolicy)
    assert made.name == "policy"
    with pytest.raises(CheckpointError, match="not a folder"):
        load_policy(PolicySettings(policy="nowhere/at/all"))


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_with_a_server_it_runs_there(end):
    with FakeServer("vllm", name="its name") as server:
        settings = PolicySettings(server=server.url + end, tokenizer=FOLDER, concurrency=2)
        made = load_policy(settings)
        assert made.name == "its name"
        assert made.capabilities.continuation == "token_ids"
        assert made._endpoint.settings.connections == 2
        made.complete(START, 20, SamplingSettings(max_new_tokens=4), [1])
        assert server.most_under_way <= 2
        named = load_policy(PolicySettings(server=server.url, policy="its name"))
        assert named.capabilities.continuation == "continue_final_message"


def test_settings_reach_the_endpoint(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with FakeServer("vllm", api_key="s3cret") as server:
        settings = PolicySettings(
            server=server.url, api_key_env="SOME_KEY", timeout=7.0, deadline=8.0, attempts=2
        )
        made = load_policy(settings)
    there = made._endpoint.settings
    assert (there.timeout, there.deadline, there.attempts) == (7.0, 8.0, 2)
    assert "s3cret" not in repr(settings) + repr(there)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither a policy nor a server"),
        ({"policy": FOLDER, "tokenizer": FOLDER}, "tokenizer has no meaning without a server"),
        ({"policy": FOLDER, "api_key_env": "K"}, "api_key_env has no meaning"),
        ({"server": "http://h", "device": "cpu"}, "device has no meaning"),
        ({"server": "http://h", "concurrency": 0}, "concurrency"),
        ({"server": "http://h", "attempts": 0}, "attempts"),
        ({"server": "http://h", "timeout": 0}, "timeout"),
        ({"server": "http://h", "deadline": 0}, "deadline"),
        ({"server": "localhost:8000"}, "such as http://127.0.0.1:8000"),
        ({"server": "http://h", "api_key_env": "NOT_SET_ANYWHERE"}, "'NOT_SET_ANYWHERE'.*not set"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        load_policy(PolicySettings(**settings))
