"""``prm recut`` as it is typed."""

from __future__ import annotations

import json

import pytest

from prmkit.formats.files import read_records, write_records
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

TEXTS = ("Mia has 12 + 5 = 17 apples.\n", "So Mia has 17 - 9 = 8 apples.\n", "The answer is 8.\n")


def solutions(labels=None):
    problem = Problem(
        id="p",
        prompt="Mia has 12 apples. Mia finds 5 more apples. Mia sells 9 apples. How many apples "
        "does Mia have now?",
        answer="8",
    )
    steps = tuple(Step(text=t) for t in TEXTS)
    return [Record(trajectory=Trajectory(problem=problem, steps=steps), labels=labels)] * 3


def test_by_confidence_the_text_stays(prm, tmp_path):
    write_records(solutions(), tmp_path / "a.jsonl")
    told = {}
    for at, share in (("tokens", 0.1), ("tokens", 0.3), ("steps", 0.1)):
        out = tmp_path / f"{at}{share}.jsonl"
        code, printed, err = prm(
            "recut", tmp_path / "a.jsonl", "--at", at, "--share", share, "-o", out, "--json"
        )
        assert code == 0, err
        told[at, share] = json.loads(printed)
        for record in read_records(out):
            assert record.trajectory.text == "".join(TEXTS)
    assert told["tokens", 0.3]["steps_after"] > told["tokens", 0.1]["steps_after"] > 3
    assert told["steps", 0.1]["steps_after"] <= told["steps", 0.1]["steps_before"] == 9


def test_by_count_labels_stay(prm, tmp_path):
    labels = StepLabels(values=(1, 1, 0), kind="hard")
    write_records(solutions(labels), tmp_path / "a.jsonl")
    code, out, err = prm(
        "recut", tmp_path / "a.jsonl", "--by", "count", "--size", 2, "-o", tmp_path / "b.jsonl"
    )
    assert code == 0, err
    assert "steps_after" in out
    assert {r.labels.values for r in read_records(tmp_path / "b.jsonl")} == {(1, 0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "have labels or scores, which are of the steps that they have now"),
        (("--by", "count", "--at", "steps"), "have no meaning by count"),
        (("--size", 3), "size has no meaning by confidence"),
        (("--share", 1), "share is 1"),
    ],
)
def test_what_has_no_meaning_is_refused(prm, tmp_path, arguments, message):
    labels = StepLabels(values=(1, 1, 0), kind="hard")
    write_records(solutions(labels), tmp_path / "a.jsonl")
    out = tmp_path / "b.jsonl"
    code, _, err = prm("recut", tmp_path / "a.jsonl", *arguments, "-o", out)
    assert code == 1
    assert message in " ".join(err.split())
    assert not out.exists()
    assert prm("recut", tmp_path / "a.jsonl", "--drop-labels", "-o", out)[0] == 0
