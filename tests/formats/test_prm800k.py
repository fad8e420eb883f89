"""PRM800K: what is read is written again."""

from __future__ import annotations

import json

import pytest
from test_formats import ROWS

from prmkit.formats import read_records, write_records
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

ROW = ROWS["prm800k"]


def put(path, row):
    path.write_text(json.dumps(row) + "\n")
    return path


def only(path):
    (record,) = read_records(path)
    return record


def texts(record):
    return [step.text for step in record.trajectory.steps]


@pytest.mark.parametrize("ambiguous", [False, True])
def test_prm800k_writes_again_what_was_offered(tmp_path, ambiguous):
    row = json.loads(json.dumps(ROW)) | {"id": "p7"}
    if ambiguous:
        row["last_group_ambiguous"] = True
    record = only(put(tmp_path / "a.jsonl", row))
    assert record.trajectory.problem.id == "p7"
    labels = StepLabels(values=(-1,) if ambiguous else (-1, 1), kind="human")
    write_records([record, record.replace(labels=labels)], tmp_path / "b.jsonl", "prm800k")
    first, second = map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())
    assert first == row
    row["label"]["steps"][0]["completions"][0]["rating"] = -1
    if not ambiguous:
        row["label"]["steps"][1]["human_completion"]["rating"] = 1
    assert second == row
    assert next(iter(read_records(tmp_path / "b.jsonl"))) == record
    # Of other steps, only what they are is written.
    steps = record.trajectory.model_copy(update={"steps": record.trajectory.prefix(1).steps})
    other = record.replace(trajectory=steps, labels=StepLabels(values=(0,), kind="human"))
    if not ambiguous:
        write_records([other], tmp_path / "c.jsonl", "prm800k")
        again = only(tmp_path / "c.jsonl")
        assert (texts(again), again.labels.values) == (["Add."], (0,))
        assert "offered" not in again.meta


@pytest.mark.parametrize(
    ("values", "finish", "reason"),
    [
        ((1, 1), "answer", "solution"),
        ((1, 0), "open", "give_up"),
        ((1, -1), "eos", "found_error"),
        ((-1, None), "eos", "found_error"),
        ((-1, 1), "eos", "solution"),
        ((-1, 1), "open", "found_error"),
    ],
)
def test_prm800k_tells_why_labelling_ended(tmp_path, values, finish, reason):
    steps = (Step(text="a"), Step(text="b"))
    problem = Problem(id="x", prompt="q")
    trajectory = Trajectory(problem=problem, steps=steps, separator="\n", finish=finish)
    labels = StepLabels(values=values, kind="human")
    write_records([Record(trajectory=trajectory, labels=labels)], tmp_path / "a.jsonl", "prm800k")
    assert json.loads((tmp_path / "a.jsonl").read_text())["label"]["finish_reason"] == reason
