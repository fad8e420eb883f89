"""Responses by a server that takes each step's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stamina
import torch
from reloading_server import ReloadingServer
from safetensors.torch import load_file
from test_loop import CPU, PROBLEMS, likes_short, plan, same, weights

from prmkit.embedded.build import WEIGHTS
from prmkit.errors import BackendError, InvalidSetting, PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.probe import probe
from prmkit.rl import saving
from prmkit.rl.learner import Speaker
from prmkit.rl.loop import Plan, train_policy
from prmkit.rl.voice_settings import VoiceSettings
from prmkit.rl.voices import ServedVoice

FOLDER = WEIGHTS / "policy"
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=24)
DRAWING = SamplingSettings(temperature=1.0, max_new_tokens=24)


@pytest.fixture(autouse=True)
def asked_once(monkeypatch):
    """What the server can do is found out in full once; it is another module's matter."""

    def found(*asked):
        if not _FOUND:
            _FOUND.append(probe(*asked))
        return _FOUND[0]

    monkeypatch.setattr("prmkit.policies.openai.probe", found)


_FOUND = []


def served(server, place, **more) -> ServedVoice:
    settings = VoiceSettings(server=server.url, **more)
    return ServedVoice(settings, FOLDER, Path(place) / "weights")


def changed(folder=FOLDER, scale=0.05) -> Speaker:
    """The policy with other weights."""
    speaker = Speaker(folder, CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in speaker.model.parameters():
            weight.add_(torch.randn_like(weight) * scale)
    return speaker


def by_server(own: Plan, server, **more) -> Plan:
    return Plan(
        run=own.run, rollouts=own.rollouts, rewards=own.rewards, update=own.update,
        implicit=own.implicit, voice=VoiceSettings(server=server.url, attempts=1, **more),
    )  # fmt: skip


def drawn_by(voice, settings, n=1, asked=PROBLEMS):
    ids = [voice.question_ids(problem) for problem in asked]
    return [
        [(one.completion, one.ids, one.end) for one in of_one]
        for of_one in voice.continue_ids(ids, [n] * len(ids), settings, range(len(ids)))
    ]


# Weights.


def test_the_answers_are_those_of_the_weights_that_were_taken_last(tmp_path):
    here = HFPolicy(FOLDER, device="cpu")
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        before = drawn_by(voice, GREEDY)
        assert before == drawn_by(here, GREEDY)
        speaker = changed()
        voice.take(speaker.model)
        here.take(speaker.model)
        after = drawn_by(voice, GREEDY)
        assert after == drawn_by(here, GREEDY)
        assert sum(a != b for a, b in zip(before, after, strict=True)) > 3
        voice.check(speaker, PROBLEMS[0])
        voice.take(speaker.model)
        # Each time another name; what came before is removed.
        assert len(set(server.loaded)) == 2
    (left,) = (tmp_path / "weights").iterdir()
    assert left.name == server.loaded[-1]
    assert {f.stat().st_mode & 0o444 for f in left.iterdir()} == {0o444}


def test_weights_are_written_in_bfloat16_where_passes_are(tmp_path):
    with ReloadingServer(FOLDER) as server:
        settings = VoiceSettings(server=server.url)
        voice = ServedVoice(settings, FOLDER, tmp_path, bf16=True)
        speaker = changed()
        voice.take(speaker.model)
        voice.check(speaker, PROBLEMS[0])
    (folder,) = tmp_path.iterdir()
    found = load_file(folder / "model.safetensors")
    theirs = dict(speaker.model.named_parameters())
    assert found.keys() == theirs.keys()
    for name, weight in found.items():
        assert torch.equal(weight, theirs[name].detach().bfloat16())


def test_the_server_may_see_the_folder_under_another_path(tmp_path):
    (tmp_path / "elsewhere").symlink_to(tmp_path / "weights")
    with ReloadingServer(FOLDER) as server:
        served(server, tmp_path, weights_seen=str(tmp_path / "elsewhere")).take(changed().model)
        assert len(server.loaded) == 1
        with pytest.raises(BackendError, match="--weights-seen"):
            served(server, tmp_path, weights_seen="/nowhere").take(changed().model)


def test_a_cache_that_is_in_use_is_waited_for(tmp_path, monkeypatch):
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        server.busy = 2
        voice.take(changed().model)
        drawn_by(voice, GREEDY)
        server.busy = 10_000
        monkeypatch.setattr("prmkit.rl.voices.IDLE_SECONDS", 0.3)
        with pytest.raises(BackendError, match="under way"):
            voice.take(changed().model)


def test_a_server_that_speaks_otherwise_is_found_out(tmp_path):
    with ReloadingServer(FOLDER, deaf=True) as server:
        voice = served(server, tmp_path)
        voice.check(Speaker(FOLDER, CPU, 0.7), PROBLEMS[0])
        speaker = changed()
        voice.take(speaker.model)
        with pytest.raises(PolicyError, match="does not speak as the policy"):
            voice.check(speaker, PROBLEMS[0])


def test_a_server_that_was_begun_anew_is_found_out(tmp_path):
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        drawn_by(voice, GREEDY)
        server.begun += 60
        with pytest.raises(PolicyError, match="begun anew"):
            drawn_by(voice, GREEDY)
        voice.take(changed().model)
        drawn_by(voice, GREEDY)


# Tokens.


def test_tokens_and_ends_are_those_that_were_drawn(tmp_path):
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        long = SamplingSettings(temperature=1.0, max_new_tokens=40)
        drawn = [one for of_one in drawn_by(voice, long, 3) for one in of_one]
    assert {completion.finish for completion, _, _ in drawn} == {"eos", "length"}
    for completion, ids, end in drawn:
        assert voice.tokenizer.decode(ids) == completion.text
        assert end == (voice.end if completion.finish == "eos" else None)
        assert completion.n_tokens == len(ids) + (end is not None)


def test_half_a_character_at_the_limit_keeps_its_tokens(tmp_path):
    """vLLM leaves it out of its text; tokens are believed, not texts."""
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        half = voice.tokenizer.encode("é", add_special_tokens=False)[:-1] or [5]
        real = server._completions

        def cut(body):
            found = real(body)
            for choice in found["choices"]:
                choice |= {"text": "", "token_ids": half, "finish_reason": "length"}
            return found | {"usage": found["usage"] | {"completion_tokens": len(half)}}

        server._completions = cut
        ids = voice.question_ids(PROBLEMS[0])
        ((one,),) = voice.continue_ids([ids], [1], DRAWING, [0])
    assert one.ids == tuple(half)
    assert one.completion.text == voice.tokenizer.decode(half)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": None}, "counts"),
        ({"token_ids": [5, 6], "usage": 2, "finish_reason": "stop"}, "ended a text with the token"),
        ({"token_ids": [], "usage": 0, "finish_reason": "stop"}, "ended a text with the token"),
    ],
)
def test_tokens_that_cannot_be_those_that_were_drawn_are_errors(tmp_path, change, message):
    with ReloadingServer(FOLDER) as server:
        voice = served(server, tmp_path)
        real = server._completions

        def odd(body):
            found = real(body)
            told = dict(change)
            if "usage" in told:
                found["usage"]["completion_tokens"] = told.pop("usage")
            for choice in found["choices"]:
                choice |= told
            return found

        server._completions = odd
        ids = voice.question_ids(PROBLEMS[0])
        with pytest.raises(PolicyError, match=message):
            voice.continue_ids([ids], [1], DRAWING, [0])


# What is refused.


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"dev_mode": False}, "VLLM_SERVER_DEV_MODE=1"),
        ({"shows_ids": False}, "return_token_ids"),
        ({"device": "cpu"}, "tie_word_embeddings"),
    ],
)
def test_a_server_that_cannot_is_refused_before_anything_is_loaded(tmp_path, server, message):
    with ReloadingServer(FOLDER, **server) as made:
        with pytest.raises(PolicyError, match=message):
            train_policy(PROBLEMS, by_server(plan(tmp_path / "out"), made), likes_short)
        assert not made.loaded
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"weights": Path("x")}, {"concurrency": 3}, {"timeout": 3.0}])
def test_settings_of_a_server_are_refused_without_one(change):
    with pytest.raises(InvalidSetting, match="without a server"):
        VoiceSettings(**change)


def test_a_path_on_the_server_is_a_whole_one():
    with pytest.raises(InvalidSetting, match="from / on"):
        VoiceSettings(server="http://x", weights_seen="there")


# Runs.


CHANGES = {"rollouts": {"max_new_tokens": 12}, "run": {"algorithm": "rloo"}}


def test_a_run_draws_each_step_with_the_weights_of_the_step_before(tmp_path):
    with ReloadingServer(FOLDER) as server:
        own = by_server(plan(tmp_path, **CHANGES), server)
        result = train_policy(PROBLEMS, own, likes_short, held_out=PROBLEMS[:2])
        # At the start and after each of three steps.
        assert len(server.loaded) == len(set(server.loaded)) == 4
        last = tmp_path / "served" / server.loaded[-1] / "model.safetensors"
        assert same(weights(result), load_file(last))
    assert [row["step"] for row in result.rows] == [0, 1, 2, 3]
    assert result.rows[-1]["sampled_tokens"] > 60


@pytest.mark.slow
def test_a_run_whose_server_dies_ends_with_a_reason_and_goes_on(tmp_path):
    with stamina.set_testing(True, attempts=1), ReloadingServer(FOLDER) as server:
        changes = {**CHANGES, "run": {"algorithm": "rloo", "save_every": 1, "steps": 4}}
        whole = by_server(plan(tmp_path / "whole", **changes), server)
        uncut = train_policy(PROBLEMS, whole, likes_short)
        own = by_server(plan(tmp_path / "torn", **changes), server)

        def kill(row):
            if row["step"] == 2:
                server.dies_after = 1

        with pytest.raises(PolicyError, match="nobody is here"):
            train_policy(PROBLEMS, own, likes_short, on_row=kill)
        assert [p.name for p in saving.points(own.run.out)] == ["step-1", "step-2"]
        # Another one, with the weights that it was started with.
        server.dies_after, server.begun = 10_000, server.begun + 60
        resumed = train_policy(PROBLEMS, own, likes_short)
    assert [row["step"] for row in resumed.rows] == [0, 1, 2, 3, 4]
    assert same(weights(uncut), weights(resumed))


def test_the_command_takes_a_server(prm, tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text(
        "".join(
            json.dumps({"question": p.text, "answer": f"So.\n#### {i}"}) + "\n"
            for i, p in enumerate(PROBLEMS)
        )
    )
    given = [
        *(
            "rl",
            file,
            "--steps",
            1,
            "--problems-per-step",
            2,
            "--samples",
            2,
            "--max-new-tokens",
            12,
        ),
        *("--device", "cpu", "--report-to", "none", "--json", "-o", tmp_path / "run"),
    ]
    with ReloadingServer(FOLDER) as server:
        code, out, err = prm(*given, "--server", server.url, "--weights", tmp_path / "weights")
        assert code == 0, err
        assert json.loads(out)["step"] == 1
        assert (tmp_path / "weights" / server.loaded[-1]).is_dir()
        # Where the server is does not matter to a run, nor how it is asked.
        given_by = [*given, "--server", server.url, "--attempts", 2]
        assert prm(*given_by, "--weights", tmp_path / "others")[0] == 0
        # What this process draws is another run.
        code, _, err = prm(*given)
        assert code == 1
        assert "drawn_by" in err
