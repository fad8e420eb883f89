"""The commands as they are typed, in this process but for what needs one of its own."""

import json
import os
import subprocess
import sys

import pytest

from prmkit.cli import app
from prmkit.cli.console import safe
from prmkit.formats import read_records, write_records
from prmkit.records import Problem, Record, Step, Trajectory

STEPWISE = {"prompt": "q", "completions": ["a", "b"], "labels": [0.25, 1.0]}

NAMES = (
    "quickstart", "score", "sample", "label", "train", "convert", "calibrate", "models",
    "convert-model", "doctor", "evaluate", "compare", "merge", "recut", "search", "evaluate-search",
    "rl", "play",
)  # fmt: skip


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_names_every_command_and_loads_no_model_library():
    code = (
        "import sys\nfrom prmkit.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in NAMES:
        assert name in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described(prm, name):
    code, out, _ = prm(name, "--help")
    assert code == 0
    group = app[name].assemble_argument_collection(parse_docstring=True)
    leaves = [a for a in group if a.show]
    assert leaves
    for argument in leaves:
        assert argument.parameter.help, argument.names
        assert argument.names[0] in out


def test_wrong_usage_is_code_2(prm):
    for arguments in (["convert", "a"], ["nothing"], ["score", "--colour", "red"]):
        code, out, err = prm(*arguments)
        assert (code, out) == (2, "")
        assert "Error" in err


def test_convert(prm, tmp_path):
    source = put(tmp_path / "a.jsonl", STEPWISE)
    code, out, err = prm("convert", source, tmp_path / "b.jsonl", "--to", "openrlhf")
    assert (code, out) == (0, "")
    assert "1 records from" in err
    code, out, _ = prm(
        "convert", source, tmp_path / "c.jsonl", "--to", "math_shepherd", "--threshold", "0.5",
        "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == {
        "records": 1,
        "from": "stepwise",
        "to": "math_shepherd",
        "target": str(tmp_path / "c.jsonl"),
        "skipped": [],
    }


def test_errors_are_told_without_a_traceback(prm, tmp_path):
    source = put(tmp_path / "a.jsonl", STEPWISE, {"prompt": "q"})
    code, out, err = prm("convert", source, tmp_path / "b.jsonl", "--from", "stepwise")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "a.jsonl:2: the key 'completions' is missing" in err.replace("\n", "")
    assert not (tmp_path / "b.jsonl").exists()
    code, _, err = prm("convert", source, tmp_path / "b.jsonl", "--from", "stepwise", "--json")
    assert json.loads(err)["type"] == "FormatError"


def test_skipped_rows_are_listed_and_code_3(prm, tmp_path):
    source = put(tmp_path / "a.jsonl", STEPWISE, {"prompt": "q"}, STEPWISE)
    options = ("convert", source, tmp_path / "b.jsonl", "--from", "stepwise", "--skip-bad")
    code, _, err = prm(*options)
    assert code == 3
    assert "a.jsonl:2: the key 'completions' is missing" in err.replace("\n", "")
    code, out, _ = prm(*options, "--json")
    assert json.loads(out)["skipped"][0]["line"] == 2


def test_score_from_the_command_line(prm):
    code, out, err = prm("score", "--problem", "q [red]?", "--step", "one", "--step", "two\x1b[31m")
    assert code == 0
    assert "q [red]?" in out
    assert "one" in out
    # What would colour the screen does not reach it.
    assert "\x1b[31m" not in out
    assert "embedded/prm, which knows the stories of the embedded world alone" in err
    code, out, _ = prm("score", "--problem", "q", "--step", "one", "--json", "--aggregate", "mean")
    told = json.loads(out)
    assert told["mean"] == pytest.approx(told["scores"][0])
    assert set(told) == {"id", "scores", "mean", "first_suspected", "unscored", "model"}


def test_score_marks_the_first_suspected_step(prm):
    told = {}
    for threshold in ("0.0", "1.0"):
        _, out, _ = prm("score", "--problem", "q", "--step", "a", "--threshold", threshold)
        told[threshold] = out
    assert "first suspected error" not in told["0.0"]
    assert "first suspected error" in told["1.0"]


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 3 apples.\n\nHe buys 4, so 3 + 4 = 7.\nThe answer is 7.\n",
        json.dumps({"prompt": "q", "completions": ["one", "two"], "labels": [True, True]}),
    ],
)
def test_score_from_standard_input(prm, tmp_path, monkeypatch, text):
    (tmp_path / "typed").write_text(text)
    before = os.dup(0)
    with (tmp_path / "typed").open() as typed:
        os.dup2(typed.fileno(), 0)
        monkeypatch.setattr(sys, "stdin", typed)
        try:
            code, out, err = prm("score", "-", "--json")
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert code == 0, err
    assert len(json.loads(out)["scores"]) == 2


def test_score_refuses_two_sources_and_none(prm, tmp_path):
    for arguments in ([], ["a.jsonl", "--problem", "q"]):
        code, _, err = prm("score", *arguments)
        assert code == 1
        assert "give either a file" in err
    assert "--step TEXT" in prm("score", "--problem", "q")[2]
    assert "written as .jsonl" in prm("score", "--problem", "q", "--step", "a", "-o", "a.csv")[2]


def test_score_writes_records_and_a_report(prm, tmp_path):
    source = put(tmp_path / "a.jsonl", STEPWISE, STEPWISE)
    out, page = tmp_path / "b.jsonl", tmp_path / "r.html"
    code, printed, _ = prm("score", source, "-o", out, "--report", page)
    assert (code, printed) == (0, "")
    records = list(read_records(out))
    assert [len(r.scores[0].values) for r in records] == [2, 2]
    assert "first wrong step" not in page.read_text()
    # The ledger has gone with the end of the run.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "r.html"]


def test_a_solution_too_long_is_told_not_dropped(prm, tmp_path):
    long = {"prompt": "q", "completions": ["word " * 3000], "labels": [True]}
    code, out, err = prm("score", put(tmp_path / "a.jsonl", STEPWISE, long), "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [row["unscored"] is None for row in rows] == [True, False]
    assert "the model reads at most 1024" in rows[1]["unscored"]
    code, out, err = prm("score", tmp_path / "a.jsonl")
    assert "not scored: 1" in err


def test_score_goes_on_where_it_was(prm, tmp_path, monkeypatch):
    """Stopped half way, the same command ends with the same file, scoring the rest alone."""
    from prmkit.scorers.discriminative import DiscriminativeScorer

    rows = [{**STEPWISE, "prompt": f"q{i}"} for i in range(200)]
    source, out = put(tmp_path / "a.jsonl", *rows), tmp_path / "b.jsonl"
    original = DiscriminativeScorer.score

    def score(stop_at, to):
        n_scored = 0

        def watched(self, trajectories):
            nonlocal n_scored
            if n_scored >= stop_at:
                raise KeyboardInterrupt
            n_scored += len(trajectories)
            return original(self, trajectories)

        monkeypatch.setattr(DiscriminativeScorer, "score", watched)
        code, _, err = prm("score", source, "-o", to)
        return code, err, n_scored

    code, err, n_scored = score(100, out)
    assert (code, n_scored) == (130, 128)
    assert "give the same command again" in err
    assert not out.exists()
    code, err, n_scored = score(1000, out)
    assert (code, n_scored) == (0, 72), err
    whole = tmp_path / "c.jsonl"
    assert score(1000, whole)[2] == 200
    assert out.read_bytes() == whole.read_bytes()


def test_sample_label_train_score(prm, tmp_path):
    """The road by hand, each command on what the one before it left."""
    sampled, labelled = tmp_path / "sampled", tmp_path / "labelled"
    code, out, _ = prm("sample", "--limit", 4, "--samples", 3, "--out", sampled, "--json")
    metrics = json.loads(out)
    assert code == 0
    assert set(metrics) == {"problems", "not_judged", "pass@1", "pass@3", "majority@3", "out"}
    assert len(list(read_records(sampled / "records.jsonl"))) == 12
    first = (sampled / "records.jsonl").read_bytes()
    assert prm("sample", "--limit", 4, "--samples", 3, "--out", sampled)[0] == 0
    assert (sampled / "records.jsonl").read_bytes() == first
    code, _, err = prm("sample", "--limit", 4, "--samples", 4, "--out", sampled)
    assert code == 1
    assert "samples: 3 there, 4 now" in err.replace("\n", "")
    code, out, _ = prm(
        "label", sampled / "records.jsonl", "--rollouts", 2, "--kind", "soft", "--limit", 5,
        "--out", labelled, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["solutions"] == 5
    records = list(read_records(labelled / "records.jsonl"))
    assert {r.labels.kind for r in records} == {"soft"}
    code, out, err = prm(
        "train", labelled / "records.jsonl", "--base", "embedded/policy", "--out",
        tmp_path / "prm", "--batch-size", 4, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["examples"] == 5
    code, out, _ = prm("score", sampled / "records.jsonl", "--model", tmp_path / "prm", "--json")
    assert (code, len(out.splitlines())) == (0, 12)


def test_sample_of_a_file_judges_by_answers(prm, tmp_path):
    problems = [Problem(id=str(i), prompt="How many?", answer="7") for i in range(2)]
    write_records(
        [Record(trajectory=Trajectory(problem=p)) for p in problems], tmp_path / "p.jsonl"
    )
    code, out, _ = prm(
        "sample", tmp_path / "p.jsonl", "--samples", 2, "--max-new-tokens", 20, "--out",
        tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["problems"] == 2
    for record in read_records(tmp_path / "out" / "records.jsonl"):
        assert record.trajectory.correct is not None


def test_two_problems_of_one_id_are_refused(prm, tmp_path):
    two = [
        Record(trajectory=Trajectory(problem=Problem(id="p", prompt=q), steps=(Step(text="a"),)))
        for q in ("q1", "q2")
    ]
    write_records(two, tmp_path / "p.jsonl")
    code, _, err = prm("sample", tmp_path / "p.jsonl", "--out", tmp_path / "out")
    assert code == 1
    assert "two different problems have the id 'p'" in err.replace("\n", "")


def test_labelling_needs_reference_answers(prm, tmp_path):
    code, _, err = prm("label", put(tmp_path / "a.jsonl", STEPWISE), "--out", tmp_path / "out")
    assert code == 1
    assert "has no reference answer" in err.replace("\n", "")


def test_train_needs_a_decision_on_neutral_ratings(prm, tmp_path):
    row = {
        "id": "x",
        "problem": "q",
        "steps": [
            {"completions": [{"text": "a", "rating": 0}], "chosen_completion": 0},
            {"completions": [{"text": "b", "rating": -1}], "chosen_completion": 0},
        ],
    }
    arguments = ("train", put(tmp_path / "a.jsonl", row), "--base", "embedded/policy", "--out")
    code, _, err = prm(*arguments, tmp_path / "prm")
    assert code == 1
    assert "decide what a neutral one means" in err.replace("\n", " ")
    assert prm(*arguments, tmp_path / "prm", "--neutral", "positive")[0] == 0


def test_quickstart(prm, tmp_path):
    small = ("--problems", 4, "--samples", 4, "--label-problems", 2, "--rollouts", 2)
    out = tmp_path / "run"
    code, printed, err = prm("quickstart", "--out", out, *small)
    assert code == 0, err
    assert str(out / "report.html") in printed.replace("\n", "")
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["policy"]) == {"pass@1", "pass@4", "majority@4"}
    assert {"best_of_4", "weighted_vote_4", "first_error_f1", "step_auc"} <= set(metrics["prm"])
    assert {"rollouts", "first_error_accuracy"} <= set(metrics["labelling"])
    assert set(metrics["seconds"]) == {"sample", "label", "train", "score", "evaluate"}
    assert len(list(read_records(out / "records.jsonl"))) == 16
    assert json.loads((out / "config.json").read_text())["samples"] == 4
    # Given again it finds everything done, and comes to the same.
    code, printed, _ = prm("quickstart", "--out", out, *small, "--json")
    again = json.loads(printed)
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0, "report": str(out / "report.html")}


def test_doctor(prm, monkeypatch):
    code, out, _ = prm("doctor")
    assert code == 0
    assert "torch" in out
    code, out, _ = prm("doctor", "--json")
    found = json.loads(out)
    assert found["ok"]
    assert found["packages"]["pydantic"]
    from prmkit.cli import doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda p: None if p == "jinja2" else real(p))
    found = json.loads(prm("doctor", "--json")[1])
    assert found["missing"]["report"] == {
        "packages": ["jinja2"],
        "install": "pip install 'prmkit[report]'",
    }


def test_unknown_models(prm, tmp_path):
    score = ("score", "--problem", "q", "--step", "a", "--model")
    assert "Did you mean 'embedded/prm'" in prm(*score, "embedded/prn")[2]
    code, _, err = prm(*score, tmp_path / "none")
    assert code == 1
    assert "is not a folder" in err


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m prmkit.cli doctor --json | head -c 1"
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert ran.stdout == "{"
    assert ran.stderr == ""


def test_control_characters_are_made_harmless():
    assert safe("a\x1b[2Jb\x07\x9bc\n\td") == "a\ufffd[2Jb\ufffd\ufffdc\n\td"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstart", "--rollouts", "0"], "rollouts is 0; it must be at least 1"),
        (["quickstart", "--problems", "-1"], "problems is -1; it must be at least 1"),
        (["sample", "--temperature", "-1"], "temperature is -1.0; it must be at least 0"),
        (["sample", "--samples", "0"], "samples is 0; it must be at least 1"),
        (["label", "a.jsonl", "--rollouts", "0"], "rollouts is 0; it must be at least 1"),
        (
            ["train", "a.jsonl", "--base", "embedded/policy", "--epochs", "0"],
            "epochs is 0.0; it must be above 0",
        ),
    ],
)
def test_settings_out_of_range_are_told_before_any_work(prm, tmp_path, arguments, message):
    code, _, err = prm(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert message in err.replace("\n", " ")
    assert not (tmp_path / "out").exists()
