"""Several processes learn what one does; real ones, under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rl_child
import torch
from reloading_server import ReloadingServer
from safetensors.torch import load_file
from test_loop import PROBLEMS, plan

from prmkit.embedded.build import WEIGHTS
from prmkit.errors import InvalidSetting
from prmkit.rl.team import Team, open_team

CHILD = Path(rl_child.__file__)
RUN = {"steps": 2, "save_every": 1}


def environment() -> dict[str, str]:
    paths = [Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2] / "src"]
    joined = os.pathsep.join(map(str, paths))
    return {**os.environ, "PYTHONPATH": joined, "OMP_NUM_THREADS": "1"}


def launched(processes: int, *command) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    given = [str(part) for part in (sys.executable, *launch, *command)]
    return subprocess.run(given, env=environment(), capture_output=True, text=True, timeout=300)


def learnt(place: Path, processes: int, *, expect=0, **told) -> dict:
    """Learn in so many processes: rows, gradients and weights."""
    told = {"out": str(place), "changes": {}, **told}
    if processes == 1 and not expect:
        rl_child.main(told)
    else:
        done = launched(processes, CHILD, json.dumps(told))
        if expect:
            assert done.returncode != 0, done.stderr
            return {"stderr": done.stderr}
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    models = {f.parent.name: load_file(f) for f in place.glob("p*/model.safetensors")}
    gradients = torch.load(place / "gradients.pt", weights_only=True)
    return {"rows": rows, "gradients": gradients, "models": models}


def assert_alike(one: dict, other: dict) -> None:
    assert len(one["rows"]) == len(other["rows"])
    for ours, theirs in zip(one["rows"], other["rows"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "alarms"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name
    # Adam makes a whole step of the least gradient; so gradients of the first step are compared
    # tightly, and what the weights come to loosely.
    assert len(one["gradients"]) == len(other["gradients"]) > 0
    ours, theirs = one["gradients"][0], other["gradients"][0]
    assert ours.keys() == theirs.keys()
    assert any(gradient.abs().max() > 1e-5 for gradient in ours.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-6)
    assert one["models"].keys() == other["models"].keys()
    for name, weights in one["models"].items():
        for key, weight in weights.items():
            assert (weight - other["models"][name][key]).abs().max() < 1e-4, (name, key)


WAYS = {
    "grpo": {"run": {"algorithm": "grpo"}, "update": {"scale": "batch", "kl": 0.1}},
    "ppo": {
        "run": {"algorithm": "ppo"}, "rewards": {"reward": "score", "outcome_weight": 1.0},
        "update": {"minibatches": 2, "average": "response"},
    },
    "reinforce": {"run": {"algorithm": "reinforce"}, "update": {"average": "max_tokens"}},
    "reinforce++": {
        "run": {"algorithm": "reinforce++"}, "rewards": {"reward": "score"},
        "update": {"epochs": 2},
    },
    "prime": {
        "run": {"algorithm": "prime"}, "rewards": {"reward": "implicit"},
        "implicit": {"forward": "double"}, "update": {"low": 0.0, "high": 1.0},
    },
    "implicit": {
        "run": {"algorithm": "grpo"}, "rewards": {"reward": "implicit"},
        "implicit": {"prm_learning_rate": 2e-5},
    },
    "step-dpo": {
        "run": {"algorithm": "step-dpo"}, "rewards": {"reward": "score", "margin": 0.02},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_two_processes_learn_what_one_does(tmp_path, name):
    changes = {**WAYS[name]}
    changes["run"] = {**RUN, **changes["run"], "eval_samples": 2}
    changes["update"] = {"learning_rate": 1e-5, "tokens_per_pass": 400, **changes.get("update", {})}
    told = {"changes": changes, "scored": True, "held_out": 1}
    one = learnt(tmp_path / "one", 1, **told)
    two = learnt(tmp_path / "two", 2, **told)
    assert_alike(one, two)
    if name != "step-dpo":
        assert {"kl", "entropy", "grad_norm", "eval_greedy", "prm"} <= one["rows"][-1].keys()


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tmp_path):
    changes = {
        "run": {**RUN, "steps": 3, "algorithm": "rloo"}, "update": {"learning_rate": 1e-5},
    }  # fmt: skip
    whole = learnt(tmp_path / "whole", 2, changes=changes)
    for name, before, after in (("same", 2, 2), ("fewer", 2, 1), ("more", 1, 3)):
        place = tmp_path / name
        learnt(place, before, changes=changes, stop=2, expect=7)
        assert [p.name for p in (place / "checkpoints").iterdir()] == ["step-1"]
        again = learnt(place, after, changes=changes)
        assert len(again["gradients"]) == 2
        # Steps 0 and 1, then 2 and 3 once more; each is in the rows once.
        again["gradients"] = whole["gradients"]
        assert_alike(whole, again)


@pytest.mark.slow
def test_several_processes_draw_on_one_server(tmp_path):
    changes = {
        "run": {**RUN, "algorithm": "rloo"}, "update": {"learning_rate": 1e-5},
        "rollouts": {"max_new_tokens": 12},
    }  # fmt: skip
    found = {}
    for processes in (1, 2):
        with ReloadingServer(WEIGHTS / "policy") as server:
            told = {"changes": changes, "voice": {"server": server.url}}
            found[processes] = learnt(tmp_path / str(processes), processes, **told)
            # The first process hands weights over, for all: at the start and after each step.
            assert len(server.loaded) == 3
    assert_alike(found[1], found[2])


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all_with_its_reason(tmp_path):
    told = learnt(tmp_path, 2, changes={"run": RUN}, fails=PROBLEMS[0].id, expect=1)
    assert "prmkit.errors.PrmkitError: this verifier is out of order" in told["stderr"]
    assert "prmkit.errors.PolicyError: process" in told["stderr"]


@pytest.mark.slow
def test_the_command_runs_in_several_processes_and_speaks_once(tmp_path):
    given = [
        *(
            "rl",
            "--limit",
            8,
            "--steps",
            1,
            "--problems-per-step",
            4,
            "--samples",
            2,
            "--device",
            "cpu",
        ),
        *("--report-to", "none", "--json", "--max-new-tokens", 30, "--eval-samples", 0),
        *("-o", tmp_path / "run"),
    ]
    done = launched(2, "-m", "prmkit.cli", *given)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["eval_problems"] == 8
    assert (tmp_path / "run" / "report.html").is_file()
    done = launched(5, "-m", "prmkit.cli", *given[:-1], tmp_path / "other")
    assert done.returncode != 0
    assert done.stderr.count("5 processes cannot share 4 problems") == 1


# What cannot be shared.


@pytest.mark.parametrize(
    ("device", "n_problems", "environment", "message"),
    [
        ("cpu", 8, {"LOCAL_WORLD_SIZE": "2"}, "several machines"),
        ("cpu", 3, {}, "--problems-per-step"),
        ("cuda:1", 8, {}, "cpu or cuda"),
        ("cuda", 8, {}, "GPUs"),
    ],
)
def test_what_cannot_be_shared_is_refused(monkeypatch, device, n_problems, environment, message):
    if device == "cuda" and torch.cuda.device_count() >= 4:
        pytest.skip("there are as many GPUs")
    told = {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**told, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting, match=message):
        open_team(device, n_problems)


def test_a_run_refuses_what_cannot_be_shared_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InvalidSetting, match="cannot share 3 problems"):
        rl_child.train_policy(PROBLEMS, plan(tmp_path / "out"), rl_child.likes_short)
    assert not (tmp_path / "out").exists()


# Shares.


@pytest.mark.parametrize(
    "weights", [[5, 1, 1, 1, 5, 9, 2], [1] * 8, [100, 1, 1], [3], [3, 0], [], [0, 0]]
)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_thing_is_one_process_and_shares_are_about_equal(weights, size):
    shares = [Team(rank, size).share_by(weights) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(len(weights)))
    held = [sum(weights[i] for i in share) for share in shares]
    assert max(held) <= sum(weights) / size + max(weights, default=0)
    plain = [Team(rank, size).share(len(weights)) for rank in range(size)]
    assert [i for share in plain for i in share] == list(range(len(weights)))
    assert max(map(len, plain)) - min(map(len, plain)) <= 1
