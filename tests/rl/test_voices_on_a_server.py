"""A real vLLM that takes each step's weights, and may be killed: `make test-server`."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_loop import CPU, plan, same, weights
from test_voices import by_server, changed, drawn_by

from prmkit.checkpoints import load_tokenizer, save_model, start_causal_lm
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.errors import PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.rl import saving
from prmkit.rl.learner import Speaker
from prmkit.rl.loop import train_policy
from prmkit.rl.voice_settings import VoiceSettings
from prmkit.rl.voices import ServedVoice
from started import served_policy

VLLM = os.environ.get("PRMKIT_VLLM", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not Path(VLLM).is_file(), reason="PRMKIT_VLLM names no vllm command"),
]
logger = logging.getLogger(__name__)

GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=60)
PRACTISED = list(problems("train", 12))
BLOCK = 32
"""Tokens of a block of vLLM's prefix cache; its default on CPUs is 128, more than a question."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The embedded policy, with an output layer of its own: vLLM renews no other on a CPU."""
    model = start_causal_lm(WEIGHTS / "policy")
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    model.config.tie_word_embeddings = False
    made = tmp_path_factory.mktemp("models") / "policy"
    save_model(made, model, load_tokenizer(WEIGHTS / "policy"), {"family": "policy"})
    return made


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    more = ("--block-size", BLOCK)
    with served_policy(folder, log, *more, VLLM_SERVER_DEV_MODE="1") as made:
        yield made


def test_new_weights_are_what_the_server_draws_with(server, folder, tmp_path):
    voice = ServedVoice(VoiceSettings(server=server.url), folder, tmp_path)
    voice.take(Speaker(folder, CPU).model)
    here = HFPolicy(folder, device="cpu")
    asked = list(problems("test", 12))
    before = drawn_by(voice, GREEDY, asked=asked)
    assert before == drawn_by(here, GREEDY, asked=asked)
    speaker = changed(folder=folder, scale=0.03)
    begun = time.perf_counter()
    voice.take(speaker.model)
    logger.info("weights were taken in %.2f s", time.perf_counter() - begun)
    voice.check(speaker, asked[0])
    here.take(speaker.model)
    # The same questions: what the server's cache had of them is dropped.
    after = drawn_by(voice, GREEDY, asked=asked)
    assert after == drawn_by(here, GREEDY, asked=asked)
    assert sum(a != b for a, b in zip(before, after, strict=True)) > 8
    with pytest.raises(PolicyError, match="does not speak as the policy"):
        voice.check(Speaker(folder, CPU), asked[0])


def test_an_output_layer_that_would_stay_old_is_refused(server, tmp_path):
    settings = VoiceSettings(server=server.url)
    with pytest.raises(PolicyError, match="tie_word_embeddings"):
        ServedVoice(settings, WEIGHTS / "policy", tmp_path)


def test_a_run_learns_by_what_a_server_draws_and_outlives_it(server, folder, tmp_path):
    changes = {
        "run": {"algorithm": "rloo", "steps": 3, "save_every": 1, "eval_samples": 0},
        "rollouts": {"problems": 4, "samples": 4, "max_new_tokens": 200},
    }
    own = by_server(plan(tmp_path / "run", policy=folder, **changes), server)

    def kill(row):
        if row["step"] == 2:
            server.end(signal.SIGKILL)

    with pytest.raises(PolicyError, match="could not draw"):
        train_policy(PRACTISED, own, judge, on_row=kill)
    assert [p.name for p in saving.points(own.run.out)] == ["step-1", "step-2"]
    server.begin()
    server.wait()
    result = train_policy(PRACTISED, own, judge)
    rows = result.rows
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["accuracy"] > 0.3
    assert rows[-1]["sampled_tokens"] > 3 * 16 * 20
    assert not same(weights(result), load_file(folder / "model.safetensors"))
