"""``prm merge`` as it is typed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from prmkit.formats import read_records, write_records
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory


def row(*ratings, problem="1+1?", reason="solution", **outer):
    """A row of PRM800K; a solution of as many steps."""
    steps = [
        {
            "completions": [{"text": f"step {i}", "rating": rating, "flagged": False}],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for i, rating in enumerate(ratings)
    ]
    label = {"steps": steps, "total_time": 7, "finish_reason": reason}
    return {**outer, "question": {"problem": problem, "ground_truth_answer": "2"}, "label": label}


@pytest.fixture
def files(tmp_path):
    contents = {
        "mia": [row(1, 1, -1), row(1, 1, problem="2+2?")],
        "ben": [row(1, -1, reason="found_error"), row(1, 0, problem="2+2?")],
        "rest": [row(0, -1, -1, labeler="zoe"), row(1, 1, problem="3+3?", labeler="ada")],
    }
    paths = []
    for name, rows in contents.items():
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(r) + "\n" for r in rows))
    return paths


def test_merge(prm, files, tmp_path):
    folder = tmp_path / "out"
    code, out, err = prm("merge", *files, "--least", "2", "--out", folder)
    # Of 3+3? one annotator alone says anything.
    assert code == 3
    assert "all pairs" in out
    assert "records: " in err
    records = list(read_records(folder / "records.jsonl"))
    assert [r.labels.values for r in records] == [(1, -1, -1), (1, None), (None, None)]
    assert list(records[0].meta["annotators"]) == ["ben", "mia", "zoe"]
    assert records[0].labels.source == "majority of 3 annotators"
    again = list(read_records(folder / "prm800k.jsonl", "prm800k"))
    assert [r.labels.values for r in again] == [(1, -1, -1), (1, None)]
    assert [r.trajectory for r in again] == [r.trajectory for r in records[:2]]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {k: v for k, v in metrics.items() if k != "agreement"} == {
        "solutions": 3,
        "solutions_of_several_annotators": 2,
        "solutions_left_open": 1,
        "steps": 7,
        "steps_rated": 4,
        "steps_with_too_few_votes": 2,
        "steps_undecided": 1,
        "annotators": 4,
        "rows_skipped": 0,
    }
    agreement = json.loads((folder / "agreement.json").read_text())
    assert [p["annotators"] for p in agreement["pairs"]] == [
        ["ben", "mia"],
        ["ben", "zoe"],
        ["mia", "zoe"],
    ]
    # ben and mia: 1 1, -1 1; 1 1, 0 1.
    assert agreement["pairs"][0]["steps/same"]["value"] == 0.5
    assert metrics["agreement"] == agreement["pooled"]
    assert json.loads((folder / "config.json").read_text())["least"] == 2


def test_rules_json_and_the_order_of_files(prm, files, tmp_path):
    told = {}
    for name, given in (("there", files), ("back", files[::-1])):
        arguments = ("--rule", "strictest", "--out", tmp_path / name, "--json")
        code, out, _ = prm("merge", *given, *arguments)
        assert code == 0
        told[name] = {k: v for k, v in json.loads(out).items() if k != "out"}
        found = read_records(tmp_path / name / "records.jsonl")
        told[name]["labels"] = Counter(r.model_dump_json() for r in found)
    assert told["there"] == told["back"]
    assert told["there"]["steps_undecided"] == 0
    assert told["there"]["agreement"]["annotators"]["zoe"]["wrong"] == 2


def test_what_is_merged_is_merged_with_more(prm, files, tmp_path):
    assert prm("merge", *files, "--out", tmp_path / "all")[0] == 0
    assert prm("merge", *files[:2], "--out", tmp_path / "two")[0] == 0
    for part in ("records.jsonl", "prm800k.jsonl"):
        folder = tmp_path / f"more-{part}"
        assert prm("merge", tmp_path / "two" / part, files[2], "--out", folder)[0] == 0
        for file in ("agreement.json", "metrics.json"):
            assert (folder / file).read_text() == (tmp_path / "all" / file).read_text()
        labels = [r.labels for r in read_records(folder / "records.jsonl")]
        assert labels == [r.labels for r in read_records(tmp_path / "all" / "records.jsonl")]


def test_other_formats_and_files_of_the_same_name(prm, tmp_path):
    steps = tuple(Step(text=f"step {i}") for i in range(2))
    problem = Problem(id="x", prompt="1+1?")
    trajectory = Trajectory(problem=problem, steps=steps, separator="\n", finish="answer")
    for place, values in (("a", (1.0, 0.0)), ("b", (1.0, 1.0))):
        labels = StepLabels(values=values, kind="hard")
        write_records([Record(trajectory=trajectory, labels=labels)], tmp_path / place / "r.jsonl")
    files = [tmp_path / "a" / "r.jsonl", tmp_path / "b" / "r.jsonl"]
    assert prm("merge", *files, "--out", tmp_path / "out")[0] == 0
    (record,) = read_records(tmp_path / "out" / "records.jsonl")
    assert record.labels.values == (1, None)
    assert record.meta["annotators"] == {
        str(files[0]): {"ratings": [1, -1]},
        str(files[1]): {"ratings": [1, 1]},
    }


def test_refusals_leave_nothing(prm, files, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(row(1, 1)) + "\n" + json.dumps(row(5)) + "\n")
    soft = tmp_path / "soft.jsonl"
    soft.write_text(json.dumps({"prompt": "q", "completions": ["a"], "labels": [0.5]}) + "\n")
    twice = tmp_path / "twice.jsonl"
    twice.write_text(json.dumps(row(1, 1)) + "\n" + json.dumps(row(1, 0)) + "\n")
    for given, told in (
        ([bad], "bad.jsonl:2: a rating is 5"),
        ([soft], "soft.jsonl:1: the labels of the problem 'soft-1' are soft"),
        ([twice], "'twice' rates step 1 of the same solution ('twice-1' and 'twice-2')"),
        ([files[0], files[0]], "is given twice"),
        ([files[0], "--least", "0"], "least is 0"),
        ([], "--files"),
    ):
        code, _, err = prm("merge", *given, "--out", tmp_path / "out")
        assert code in (1, 2)
        assert told in " ".join(err.split())
        assert not (tmp_path / "out").exists()


def test_bad_rows_are_skipped_where_asked(prm, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(row(1, 1)) + "\n" + json.dumps(row(5)) + "\n")
    code, out, err = prm("merge", bad, "--skip-bad", "--out", tmp_path / "out")
    assert code == 3
    assert "bad.jsonl:2: a rating is 5" in err.replace("\n", "")
    assert "no agreement to measure" in err
    code, out, _ = prm("merge", bad, "--skip-bad", "--out", tmp_path / "out", "--json")
    assert json.loads(out)["skipped"] == {
        str(bad): [{"line": 2, "why": "a rating is 5; expected -1, 0, 1 or null"}]
    }


def test_another_run_in_the_folder_is_not_overwritten(prm, files, tmp_path):
    assert prm("merge", *files, "--out", tmp_path / "out")[0] == 0
    old = (tmp_path / "out" / "records.jsonl").read_bytes()
    code, _, err = prm("merge", *files, "--rule", "unanimous", "--out", tmp_path / "out")
    assert code == 1
    assert "other settings" in err
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == old


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_real_ratings(prm, shared_data, tmp_path):
    source = shared_data / "prm800k" / "phase1_test.jsonl"
    out = tmp_path / "out"
    # Three solutions have no rated step on their path.
    assert prm("merge", source, "--out", out)[0] == 3
    merged = list(read_records(out / "records.jsonl"))
    rated = sum(v is not None for r in merged for v in r.labels.values)
    given = {
        (r.trajectory.problem.prompt, tuple(s.text for s in r.trajectory.steps[: i + 1]))
        for r in read_records(source)
        for i, v in enumerate(r.labels.values)
        if v is not None
    }
    assert rated == len(given)
    # What was offered beside the path comes out as it went in.
    again = {r["id"]: r for r in rows(out / "prm800k.jsonl")}
    steps = {r["id"]: r["steps"] for r in rows(source)}
    same = [steps[name] == r["label"]["steps"] for name, r in again.items()]
    assert len(same) == len(merged) - 3
    assert sum(same) >= len(same) - 5
