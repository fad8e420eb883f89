"""Several processes learn what one does, replicated or sharded; real ones, under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torchrun_child
from safetensors.torch import load_file

from prmkit.errors import InvalidSetting
from prmkit.tiny_checkpoints import tiny_checkpoint
from prmkit.training.settings import MachineSettings

CHILD = Path(torchrun_child.__file__)


def trained(tiny_lm, place: Path, processes: int, *, expect=0, **told) -> dict:
    """Train in so many processes; what the first one noted, and the weights."""
    place.mkdir(exist_ok=True)
    settings = {
        "base": str(tiny_lm), "out": str(place / "prm"), "epochs": 1, "learning_rate": 3e-3,
        "save_every": 2, **told.pop("settings", {}),
    }  # fmt: skip
    batches = {"batch_size": 8, "pass_tokens": 300, **told.pop("batches", {})}
    notes = place / "notes.json"
    told = {"n": 48, "settings": settings, "batches": batches, "notes": str(notes), **told}
    if processes == 1 and not expect:
        torchrun_child.main(told)
        return noted(place, notes)
    command = [sys.executable, str(CHILD), json.dumps(told)]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command = [sys.executable, *launch, str(processes), *command[1:]]
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if expect:
        assert done.returncode != 0, done.stderr
        return {}
    assert done.returncode == 0, done.stderr
    return noted(place, notes)


def noted(place: Path, notes: Path) -> dict:
    weights = load_file(place / "prm" / "model.safetensors")
    assert [f.name for f in place.iterdir() if "checkpoints" in f.name] == []
    return {**json.loads(notes.read_text()), "weights": weights}


def assert_alike(one: dict, other: dict, tolerance: float, weights: float) -> None:
    assert len(one["norms"]) == len(other["norms"]) > 2
    assert [n for n, _ in one["losses"]] == [n for n, _ in other["losses"]]
    assert [x for _, x in one["losses"]] == pytest.approx(
        [x for _, x in other["losses"]], rel=tolerance
    )
    assert one["norms"] == pytest.approx(other["norms"], rel=10 * tolerance)
    assert one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        assert (value - other["weights"][name]).abs().max() < weights, name


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tiny_lm, tmp_path):
    one = trained(tiny_lm, tmp_path / "one", 1)
    two = trained(tiny_lm, tmp_path / "two", 2)
    assert_alike(one, two, 1e-6, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"settings": {"kind": "tokens"}},
        {"settings": {"kind": "outcome"}},
        {"adapters": {"lora_rank": 4}},
        {"settings": {"checkpoint_gradients": True}},
    ],
    ids=["step", "tokens", "outcome", "lora", "checkpointing"],
)
def test_a_sharded_model_learns_what_a_whole_one_does(tiny_lm, tmp_path, how):
    base = tiny_lm
    if "kind" in how.get("settings", {}) and how["settings"]["kind"] == "tokens":
        base = tiny_checkpoint("math_shepherd", tmp_path / "base")
    one = trained(base, tmp_path / "one", 1, **how)
    sharded = trained(base, tmp_path / "sharded", 2, machine={"parallel": "sharded"}, **how)
    assert_alike(one, sharded, 1e-5, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicated", "sharded"])
def test_several_processes_judge_a_model_together(tiny_lm, tmp_path, parallel):
    how = {"watch": {"eval_every": 2}, "batches": {"pass_tokens": 150}}
    one = trained(tiny_lm, tmp_path / "one", 1, **how)
    two = trained(tiny_lm, tmp_path / "two", 2, machine={"parallel": parallel}, **how)
    assert_alike(one, two, 1e-5, 1e-4)
    assert one["figures"].keys() >= {"first_error_f1", "brier"}
    assert one["figures"] == pytest.approx(two["figures"], abs=1e-5)
    curves = [
        [
            json.loads(line)
            for line in (tmp_path / name / "prm" / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    ]
    assert [e["step"] for e in curves[0]] == [e["step"] for e in curves[1]]
    assert sum("eval_brier" in e for e in curves[1]) == 3


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tiny_lm, tmp_path):
    whole = trained(tiny_lm, tmp_path / "whole", 2)
    sharded = {"parallel": "sharded"}
    for name, before, after in (
        ("same", (2, {}), (2, {})),
        ("fewer", (2, {}), (1, {})),
        ("more", (1, {}), (2, {})),
        ("to sharded", (1, {}), (2, sharded)),
        ("from sharded", (2, sharded), (1, {})),
        ("sharded", (2, sharded), (2, sharded)),
    ):
        place = tmp_path / name
        trained(tiny_lm, place, before[0], machine=before[1], stop=4, expect=7)
        assert (place / "prm.checkpoints" / "checkpoint-2").is_dir()
        again = trained(tiny_lm, place, after[0], machine=after[1])
        assert len(again["norms"]) < len(whole["norms"])
        apart = [
            (value - again["weights"][key]).abs().max().item()
            for key, value in whole["weights"].items()
        ]
        assert max(apart) < 1e-4, name
        if name == "same":
            assert max(apart) == 0


def test_one_process_has_nothing_to_spread_a_model_over():
    with pytest.raises(InvalidSetting, match="torchrun"):
        MachineSettings(parallel="sharded").check(1)
