"""Training on episodes by command, and figures of held-out ones by their outcomes."""

from __future__ import annotations

import json

import pytest

from prmkit.checkpoints import read_note
from prmkit.cli.held_out import judged_by_outcomes
from prmkit.formats.files import write_records
from prmkit.records import Problem, Record, Step, StepScores, Trajectory, Unscored
from prmkit.training.episodes import PromiseSettings


def episode(moves, correct=None, problem="Mia?", finish="eos"):
    steps = tuple(Step(text=f"Mia has 3 {m}.\n") for m in moves)
    question = Problem(id=problem, prompt=problem)
    return Record(
        trajectory=Trajectory(problem=question, steps=steps, correct=correct, finish=finish)
    )


def scored(*values):
    return StepScores(values=values, semantics="value", model="m")


def test_figures_by_hand():
    records = [episode("ab", True), episode("a", False), episode("ab", False)]
    scores = [scored(0.5, 0.75), scored(0.25), Unscored(reason="too long")]
    found = judged_by_outcomes(records, scores, PromiseSettings(targets="temporal", gamma=0.5))
    # Discounted outcomes .5, 1 and 0. Temporal targets .5 · .5 + .475 · (1 - .5) = .4875, 1 and 0:
    # off by .0125, -.25 and .25, and by -.2625 in what the second turn changed.
    assert found["brier"] == pytest.approx((0 + 0.0625 + 0.0625) / 3)
    loss = (0.0125**2 + 0.25**2 + 0.25**2 + 0.2625**2) / 2 / 3
    assert found["temporal_loss"] == pytest.approx(loss)
    assert found["auc_within_problems"] == 1
    assert found["unscored"] == 1
    alone = judged_by_outcomes(records[:1], scores[:1], PromiseSettings())
    assert {*alone} == {"brier", "temporal_loss", "unscored"}
    assert judged_by_outcomes(records[2:], scores[2:], PromiseSettings()) == {"unscored": 1}


@pytest.fixture
def files(tmp_path):
    """Recorded episodes without labels: one way of each pair succeeds."""
    data, held = tmp_path / "episodes.jsonl", tmp_path / "held.jsonl"
    pair = [episode(["apples", "cups"], True), episode(["pens"], False)]
    write_records([*pair * 4, episode(["cups"])], data)
    write_records([episode(["apples"], True), episode(["pens", "pens"], False)], held)
    return data, held


def test_episodes_train_a_model_that_is_judged_by_outcomes(prm, tmp_path, tiny_lm, files):
    data, held = files
    how = ("--base", tiny_lm, "--kind", "value", "--loss", "progress", "--targets", "temporal")
    more = ("--lam", 0.9, "--eval", held, "--epochs", 20, "--learning-rate", 3e-3, "--json")
    code, out, err = prm("train", data, *how, *more, "-o", tmp_path / "prm")
    # One episode has no outcome.
    assert code == 3, err
    told = json.loads(out)
    assert (told["examples"], told["labels"], told["unlabelled"]) == (8, 12, 1)
    assert told["figures"]["brier"] < 0.1
    assert told["figures"]["auc_within_problems"] == 1
    note = read_note(tmp_path / "prm")
    assert (note["targets"], note["lam"]) == ("temporal", 0.9)
    card = (tmp_path / "prm" / "README.md").read_text()
    assert "lambda 0.9" in card
    assert "temporal_loss" in card.replace("\\", "")


def test_what_has_no_meaning_is_refused(prm, tmp_path, tiny_lm, files):
    data, held = files
    for options, message in (
        (("--targets", "temporal"), "mean nothing to the kind step"),
        (("--kind", "value", "--targets", "temporal", "--eval", data), "also trained on"),
        (
            ("--kind", "value", "--targets", "temporal", "--eval", held, "--best-by",
             "first_error_f2"),
            "first_error_f2",
        ),
        (("--kind", "value", "--loss", "inverse"), "--learner"),
        (("--kind", "value"), "has no labels"),
    ):  # fmt: skip
        code, _, err = prm("train", data, "--base", tiny_lm, *options, "-o", tmp_path / "prm")
        assert code == 1
        assert message in " ".join(err.split())
    write_records([episode(["apples"])], tmp_path / "open.jsonl")
    options = ("--kind", "value", "--targets", "temporal", "--eval", tmp_path / "open.jsonl")
    code, _, err = prm("train", data, "--base", tiny_lm, *options, "-o", tmp_path / "prm")
    assert code == 1
    assert "no outcome to be judged by" in " ".join(err.split())


def test_demonstrations_and_a_learners_episodes_train_a_model(prm, tmp_path, tiny_lm):
    shown, first, second = (tmp_path / f"{name}.jsonl" for name in ("shown", "first", "second"))
    write_records([episode(["apples", "apples"])] * 3, shown)
    write_records([episode(["pens", "apples"])], first)
    write_records([episode(["apples", "pens"])], second)
    how = ("--base", tiny_lm, "--kind", "value", "--loss", "inverse", "--gamma", 0.9)
    files = ("--learner", first, "--learner", second)
    code, out, err = prm("train", shown, *how, *files, "--dry-run", "--json")
    assert code == 0, err
    # Of each demonstration a row more: what the learner did behind its first turn.
    assert json.loads(out)["solutions"] == 5
    code, out, err = prm("train", shown, *how, *files, "-o", tmp_path / "prm", "--json")
    assert code == 0, err
    assert read_note(tmp_path / "prm")["loss"] == "inverse"
    card = (tmp_path / "prm" / "README.md").read_text()
    assert "3 of 3 demonstrated turns" in card
    for file in (shown, first, second):
        assert f"trained on: {file.name}" in card
