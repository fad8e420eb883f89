"""Models at the command line: scored, listed, calibrated, converted; and refused in clear words."""

from __future__ import annotations

import json
import shutil

import pytest

from prmkit.embedded.build import WEIGHTS
from prmkit.formats import read_records, write_records
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.families import DISCRIMINATIVE, GENERATIVE, IMPLICIT
from prmkit.testing import tiny_checkpoint

STEPS = ("--problem", "How many?", "--step", "So 3 + 4 = 7.", "--step", "The answer is 7.")
CODE = "gen_prm_code"


def scores(prm, *arguments):
    code, out, err = prm("score", *STEPS, "--device", "cpu", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["scores"]


@pytest.mark.parametrize("family", DISCRIMINATIVE)
def test_a_folder_of_each_discriminative_family_is_scored(prm, family, tmp_path):
    folder = tiny_checkpoint(family, tmp_path / "model")
    assert len(scores(prm, "--model", folder, "--family", family)) == 2


@pytest.mark.parametrize("family", IMPLICIT)
def test_a_folder_of_each_implicit_family_is_scored(prm, family, tmp_path):
    one, two = (tiny_checkpoint(family, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    named = ("--reference", two) if IMPLICIT[family].compares else ()
    assert len(scores(prm, "--model", one, "--family", family, *named)) == 2


@pytest.mark.parametrize("family", [name for name in GENERATIVE if name != CODE])
def test_a_folder_of_each_generative_family_is_scored(prm, family, tmp_path):
    folder = tiny_checkpoint(family, tmp_path / "model")
    few = ("--samples", 1, "--critique-tokens", 8)
    found = scores(prm, "--model", folder, "--family", family, *few)
    assert all(0 <= value <= 1 for value in found)


def test_programs_run_only_where_they_are_allowed(prm, tmp_path):
    folder = tiny_checkpoint(CODE, tmp_path / "model")
    how = ("--model", folder, "--family", CODE, "--critique-tokens", 4)
    code, _, err = prm("score", *STEPS, *how)
    assert code == 1
    assert "--allow-code" in err
    assert len(scores(prm, *how, "--allow-code")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shutil.rmtree(d), "is not a folder"),
        (lambda d: (d / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 99), "is damaged"),
        (lambda d: truncate(d / "model.safetensors"), "is damaged"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "is a pickle"),
        (lambda d: remote(d), "never runs a model's own code"),
    ],
)
def test_bad_folders_are_told_in_one_line_each(prm, change, message, tmp_path):
    folder = tiny_checkpoint("qwen_prm", tmp_path / "model")
    change(folder)
    code, out, err = prm("score", *STEPS, "--model", folder, "--family", "qwen_prm")
    assert code == 1
    assert out == ""
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err


def truncate(file):
    file.write_bytes(file.read_bytes()[:-4000])


def remote(folder):
    config = {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))


def test_an_unknown_model_is_told_how_to_go_on(prm, tmp_path):
    folder = tiny_checkpoint("qwen_prm", tmp_path / "model")
    code, _, err = prm("score", *STEPS, "--model", folder)
    assert code == 1
    assert "--family" in err
    code, _, err = prm("score", *STEPS, "--model", "Qwen/Qwen2.5-Math-PRM-7b")
    assert code == 1
    assert "Qwen/Qwen2.5-Math-PRM-7B" in err


def test_models_lists_and_tells_how_to_serve(prm, tmp_path):
    code, out, _ = prm("models")
    assert code == 0
    assert "Qwen/Qwen2.5-Math-PRM-7B" in out
    code, out, _ = prm("models", "versaprm", "--json")
    assert {row["family"] for row in json.loads(out)} == {"versa_prm"}
    code, out, _ = prm("models", "--families", "--json")
    rows = json.loads(out)
    assert {row["family"] for row in rows} == {*DISCRIMINATIVE, *IMPLICIT, *GENERATIVE}
    assert len({row["about"] for row in rows}) == len(rows)
    code, out, _ = prm("models", "Qwen/Qwen2.5-Math-PRM-7B", "--launch", "vllm", "--json")
    assert "--runner pooling" in json.loads(out)["start"]
    folder = tiny_checkpoint("qwen_prm", tmp_path / "mine")
    code, out, _ = prm("models", "--launch", "vllm", folder, "--family", "qwen_prm", "--json")
    lines = json.loads(out)
    assert f"vllm serve {folder} --runner pooling" in lines["start"]
    assert '"step_tag_id": ' in lines["start"]
    assert f"--model {folder} --family qwen_prm --server vllm=" in lines["score"]
    code, _, err = prm("models", "--launch", "vllm", folder)
    assert code == 1
    assert "--family NAME" in err.replace("\n", " ")
    code, _, err = prm("models", "sail/ActPRM", "--launch", "vllm")
    assert code == 1
    assert "without --server" in err.replace("\n", " ")
    code, _, err = prm("models", "nothing-like-it")
    assert code == 1


def labelled(n):
    """Solutions whose first half of steps is right, of as many problems."""
    return [
        Record(
            trajectory=Trajectory(
                problem=Problem(id=str(i), prompt=f"Mia has {i} apples. How many?"),
                steps=tuple(Step(text=f"So Mia has {i} + {j} = {i + j} apples.") for j in range(4)),
            ),
            labels=StepLabels(values=(1.0, 1.0, 0.0, 0.0), kind="hard"),
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_a_calibration_is_fitted_kept_and_used(prm, method, tmp_path):
    folder = tmp_path / "prm"
    shutil.copytree(WEIGHTS / "prm", folder)
    write_records(labelled(12), tmp_path / "a.jsonl")
    plain = scores(prm, "--model", folder)
    code, out, err = prm(
        "calibrate", tmp_path / "a.jsonl", "--model", folder, "--method", method, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    # 30 % of 12 problems are held out; the step after the first wrong one is left out.
    assert (told["fitted on steps"], told["measured on steps"]) == (27, 9)
    assert {"calibration error before", "brier after"} <= {*told}
    again = scores(prm, "--model", folder)
    assert again != plain
    assert all(0 <= value <= 1 for value in again)
    assert scores(prm, "--model", folder, "--uncalibrated") == plain


def test_a_head_is_folded_at_the_command_line(prm, tmp_path):
    folder = tiny_checkpoint("math_shepherd", tmp_path / "model")
    target = tmp_path / "folded"
    code, _, err = prm("convert-model", folder, target, "--family", "math_shepherd")
    assert code == 0, err
    expected = scores(prm, "--model", folder, "--family", "math_shepherd")
    assert scores(prm, "--model", target) == pytest.approx(expected, abs=1e-6)
    code, _, err = prm("convert-model", folder, target, "--family", "math_shepherd")
    assert code == 1
    assert "is there already" in err


def test_the_embedded_model_is_known_by_its_name(prm, tmp_path):
    code, _, err = prm("convert-model", "embedded/prm", tmp_path / "scalar", "--layout", "scalar")
    assert code == 0, err
    found = scores(prm, "--model", tmp_path / "scalar")
    assert found == pytest.approx(scores(prm, "--model", "embedded/prm"), abs=1e-5)
    code, _, err = prm("convert-model", "embedded/nothing", tmp_path / "other")
    assert code == 1
    assert "embedded/prm" in err


def test_separators_at_the_command_line(prm, tmp_path):
    folder = tiny_checkpoint("math_shepherd", tmp_path / "model")
    rows = [
        Record(trajectory=Trajectory(problem=Problem(id="1", prompt="q"), steps=(Step(text=t),)))
        for t in ("a ки b", "a b")
    ]
    write_records(rows, tmp_path / "a.jsonl")
    how = ("--model", folder, "--family", "math_shepherd", "--device", "cpu")
    out = tmp_path / "b.jsonl"
    code, _, _ = prm("score", tmp_path / "a.jsonl", *how, "--on-separator", "error", "-o", out)
    assert code == 3
    spoilt, fine = (record.scores[0] for record in read_records(out))
    assert "' ки'" in spoilt.reason
    assert len(fine.values) == 1
    assert prm("score", tmp_path / "a.jsonl", *how)[0] == 0
