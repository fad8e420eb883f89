"""Files of scores in every form, and what is wrong with them."""

import gzip
import json

import pytest

import published_rows as rows
from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import data_files
from prmkit.evaluation.judgements import Judgement, Verdict, from_json, to_json
from prmkit.evaluation.score_files import in_order, read_scores, stored_scores
from prmkit.records import StepScores, Unscored

KNOWN = BENCHMARKS["processbench"]
FIRST = "model_output_solution_first_error_step"


@pytest.fixture
def cases(tmp_path):
    return KNOWN.read(rows.processbench(tmp_path / "data"))


def one(tmp_path, cases, *lines, name="scores.jsonl"):
    return read_scores(rows.jsonl(tmp_path / name, lines), KNOWN, cases)


def test_plain_rows(tmp_path, cases):
    judges = one(
        tmp_path,
        cases,
        {"id": "gsm8k-0", "scores": [0.9, 0.1, 1]},
        {"id": "gsm8k-1", "scores": {"a": [0.9, 0.1], "b": [0.2, 0.3]}},
        {"case": "gsm8k-2", "labels": [1, None, 0, -1], "model": "critic"},
        {"id": "gsm8k-3", "first_error": -1},
        {"id": "math-0", "first_error": 1},
    )
    assert set(judges) == {"scores", "a", "b", "critic"}
    assert judges["scores"]["gsm8k-0"].scores.values == (0.9, 0.1, 1.0)
    assert judges["b"]["gsm8k-1"].scores.values == (0.2, 0.3)
    assert judges["critic"]["gsm8k-2"].verdict == Verdict((1, None, 0, -1), False, 3)
    assert judges["scores"]["gsm8k-3"].verdict == Verdict((1,), True, None)
    assert judges["scores"]["math-0"].verdict == Verdict((1, -1), False, 1)
    ordered = in_order(judges, cases)["scores"]
    assert [j.unscored for j in ordered] == [False, True, True, False, False, True, True]
    assert "does not hold this case" in ordered[1].scores.reason


def test_records_of_prm_score_find_their_cases(tmp_path, cases):
    lines = []
    for case in reversed(cases):
        n = len(case.record.trajectory.steps)
        scores = (StepScores(values=(0.5,) * n, semantics="value", model="m"),)
        lines.append(json.loads(case.record.replace(scores=scores).model_dump_json()))
    judges = one(tmp_path, cases, *lines)
    assert set(judges) == {"m"}
    assert set(judges["m"]) == {case.id for case in cases}


def test_equal_solutions_are_taken_in_order(tmp_path):
    known = BENCHMARKS["best_of_n"]
    rows.best_of_n(tmp_path)
    cases = known.read(tmp_path)
    twin = cases[0].record.replace(scores=())
    cases = [cases[0]._replace(record=twin), cases[1]._replace(record=twin)]
    lines = [
        json.loads(
            twin.replace(
                scores=(StepScores(values=(v, v), semantics="value", model="m"),)
            ).model_dump_json()
        )
        for v in (0.1, 0.2)
    ]
    judges = read_scores(rows.jsonl(tmp_path / "s.jsonl", lines), known, cases)
    assert judges["m"]["p0/0"].scores.values == (0.1, 0.1)
    assert judges["m"]["p0/1"].scores.values == (0.2, 0.2)


def test_a_folder_of_judges(tmp_path, cases):
    for judge, label in (("A ", -1), ("B", 0)):
        lines = [{"id": c.id, "first_error": label} for c in cases]
        rows.jsonl(tmp_path / "results" / judge / "gsm8k.jsonl", lines[:4])
        rows.jsonl(tmp_path / "results" / judge / "math.jsonl", lines[4:])
    judges = read_scores(tmp_path / "results", KNOWN, cases)
    assert set(judges) == {"A", "B"}
    assert len(judges["A"]) == 7


def test_gzip_and_lists(tmp_path, cases):
    path = tmp_path / "m.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump([{"id": c.id, "first_error": None} for c in cases], file)
    assert set(read_scores(path, KNOWN, cases)) == {"m"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"scores": [0.1]}, "needs the id of its case"),
        ({"id": "gsm8k-0"}, "needs 'scores', 'labels' or 'first_error'"),
        ({"id": "gsm8k-0", "scores": [0.1, 0.2]}, "2 scores for 'gsm8k-0', which has 3 steps"),
        ({"id": "gsm8k-0", "scores": [0.1, "x", 0.2]}, "expected a number per step"),
        ({"id": "gsm8k-0", "scores": [True, 0.1, 0.2]}, "expected a number per step"),
        ({"id": "gsm8k-0", "scores": 0.5}, "expected a number per step"),
        (
            {"id": "gsm8k-0", "labels": [1, 2, 1]},
            "each is 1 .right., 0 .neutral., -1 .wrong. or null",
        ),
        ({"id": "gsm8k-0", "labels": [True, 1, 1]}, "each is 1 .right."),
        ({"id": "gsm8k-0", "labels": [1, 1, 1], "first_error": 0}, "different first wrong steps"),
        ({"id": "gsm8k-0", "scores": [0.1, 2.5, 0.1]}, "a score is 2.5, outside of"),
        ({"id": "gsm8k-0", "scores": [0.1, 2.5, 0.1], "semantics": "odds"}, "no row of scores"),
        ({"id": "gsm8k-0", "scores": [0.1, 0.5, 0.1], "model": " \u202e"}, "expected some letters"),
        ({"id": "gsm8k-0", "labels": [1, 1]}, "'gsm8k-0' has 3 steps"),
        ({"id": "gsm8k-0", "first_error": 3}, "from 0 to 2, or -1"),
        ({"id": "gsm8k-0", "first_error": "1"}, "expected an index, -1 or null"),
        ({"id": "gsm8k-0", "prediction": 1.5}, "expected the 0-based index"),
        ({"id": "gsm8k-0", "prediction": -2}, "expected the 0-based index"),
        ({"id": "gsm8k-0", "responses": [0.1]}, "1 scores for 'gsm8k-0', which has 3 steps"),
        ({"id": "gsm8k-77", "scores": [0.1]}, "no case 'gsm8k-77'.*ids are like 'gsm8k-0'"),
        ({"case": "gsm8k-0", "scored": {"type": "scores"}}, "no judgement of prmkit"),
        ({"case": "gsm8k-0", "verdict": {"steps": [7]}}, "each is -1, 0, 1 or null"),
        ({"version": 1, "trajectory": {}}, "no row of scores"),
        ({"id": "gsm8k-0", "scores": [0.1, 0.2, 10**400]}, "no row of scores"),
        ({"id": "gsm8k-0", "scores": [0.1, 0.2, 0.3], "model": ["m"]}, "expected a name"),
        (
            {"case": "gsm8k-0", "verdict": {"steps": [1]}},
            "1 labels for 'gsm8k-0', which has 3 steps",
        ),
        (
            {"case": "gsm8k-0", "verdict": {"steps": [1, 1, 1], "redundant": [True]}},
            "1 redundant for 'gsm8k-0'",
        ),
        (
            {
                "case": "gsm8k-0",
                "scored": {"type": "scores", "values": [1], "semantics": "value", "model": "m"},
            },
            "1 scores for 'gsm8k-0', which has 3 steps",
        ),
        ({"case": "gsm8k-0", "verdict": {"steps": [1, 1, 1], "right": "no"}}, "no judgement"),
        ({"case": "gsm8k-0", "verdict": {"steps": [1, 1, 1], "first_error": "x"}}, "no judgement"),
    ],
)
def test_bad_rows_are_told_with_file_and_line(tmp_path, cases, line, told):
    good = {"id": "gsm8k-3", "scores": [0.1]}
    with pytest.raises(FormatError, match=rf"scores\.jsonl:2: .*{told}"):
        one(tmp_path, cases, good, line)


def test_a_case_twice_is_an_error(tmp_path, cases):
    line = {"id": "gsm8k-3", "scores": [0.1]}
    with pytest.raises(FormatError, match=r"scores\.jsonl:2: the case 'gsm8k-3' is there twice"):
        one(tmp_path, cases, line, line)
    other = {"id": "gsm8k-3", "scores": [0.2], "model": "b"}
    assert len(one(tmp_path, cases, line, other)) == 2


def test_bad_files(tmp_path, cases):
    with pytest.raises(FormatError, match="no file of scores is there"):
        read_scores(tmp_path / "none", KNOWN, cases)
    (tmp_path / "broken.jsonl").write_text('{"id": "gsm8k-0",')
    with pytest.raises(FormatError, match=r"broken\.jsonl:1: this line is no JSON"):
        read_scores(tmp_path / "broken.jsonl", KNOWN, cases)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(FormatError, match="there is no score"):
        read_scores(tmp_path / "empty.jsonl", KNOWN, cases)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("processbench", {"label": 9}, "'label' is 9; with 3 steps it must be from -1"),
        ("processbench", {"label": None}, "'label' is None; expected a whole number"),
        ("processbench", {"steps": "abc"}, "'steps' is 'abc'; expected a list"),
        ("processbench", {"problem": ...}, "the key 'problem' is missing"),
        ("processbench", {"id": ...}, "the key 'id' is missing"),
        ("processbench", {"id": "gsm8k-1"}, "the id 'gsm8k-1' is there twice, first in"),
        ("prmbench", {"error_steps": [0]}, "'error_steps' holds 0; steps are counted from 1"),
        ("prmbench", {"classification": "odd"}, "'classification' is 'odd'; expected one of"),
        ("prmbench", {"modified_process": [1]}, "item 0 of 'modified_process' is 1"),
        ("mr_gsm8k", {FIRST: 0}, "counted from 1, and there are 3"),
        ("mr_gsm8k", {FIRST: 4}, "counted from 1, and there are 3"),
        ("mr_gsm8k", {FIRST: "two"}, "expected the number of a step, counted from 1"),
        ("mr_gsm8k", {"model_output_solution_correctness": "maybe"}, "'correct' or 'wrong'"),
        ("mr_gsm8k", {"model_output_steps": "Step 1"}, "expected a list of texts"),
        ("mr_math", {FIRST: 9}, "counted from 1, and there are 3"),
        ("mr_math", {"model_output_step_format": ["a"]}, "expected a list of lines"),
        ("mr_math_redundant", {"rating": [1]}, "useful.*for each of 3 steps"),
        ("mr_math_redundant", {"rating": [1, -1, 1]}, "expected 1 .useful. or 0"),
        ("bigbench_mistake", {"mistake_index": 3}, "from 0 to 2, or null for none"),
        ("bigbench_mistake", {"mistake_index": ...}, "null says that there is no mistake"),
        ("agent_process_bench", {"step_labels": {"2": 2}}, "expected -1, 0 or 1"),
        ("agent_process_bench", {"step_labels": {"x": 1}}, "keys are indices of messages"),
        ("agent_process_bench", {"step_labels": {"0": 1}}, "none of the assistant's"),
        ("agent_process_bench", {"total_index": 1000}, "from 0 to 999"),
        ("agent_process_bench", {"step_labels": {"--1": 1}}, "keys are indices of messages"),
        ("agent_process_bench", {"step_labels": {"2": 1e999}}, "expected -1, 0 or 1|no JSON"),
        ("mr_gsm8k", {FIRST: "²"}, "expected the number of a step"),
        ("mr_gsm8k", {FIRST: "--1"}, "expected the number of a step"),
        ("mr_gsm8k", {"model_output_steps": "{[]:1}"}, "expected a list of texts"),
        ("prm800k", {"question": 5}, "'question' is 5|no question|missing"),
    ],
)
def test_bad_data_is_told_with_file_and_line(tmp_path, name, change, told):
    folder = rows.WRITERS[name](tmp_path)
    file = data_files(folder)[0]
    text = file.read_text()
    whole = json.loads(text) if text.lstrip().startswith("[") else None
    found = whole if whole is not None else [json.loads(line) for line in text.splitlines()]
    index = 1 if name in ("mr_gsm8k", "mr_math", "mr_math_redundant") else 0
    for key, value in change.items():
        if value is ...:
            del found[index][key]
        else:
            found[index][key] = value
    # A repeated id is found at its second place.
    line = 2 if change.get("id") == "gsm8k-1" else index + 1
    (rows.as_json if whole is not None else rows.jsonl)(file, found)
    with pytest.raises(FormatError, match=rf"{file.name}:{line}: .*{told}"):
        BENCHMARKS[name].read(folder)


def test_bad_data_in_objects_over_several_lines(tmp_path):
    folder = rows.who_and_when(tmp_path)
    file = next(folder.rglob("Algorithm-Generated/1.json"))
    data = json.loads(file.read_text())
    for change, told in (
        ({"mistake_step": "3"}, "the history has 3 entries, counted from 0"),
        ({"history": [{"role": "x"}]}, "it needs a 'content'"),
        ({"mistake_agent": None}, "'mistake_agent' is None"),
    ):
        rows.as_json(file, {**data, **change}, indent=2)
        with pytest.raises(FormatError, match=rf"1\.json:1: .*{told}"):
            BENCHMARKS["who_and_when"].read(folder)
    folder = rows.mr_ben(tmp_path / "ben")
    data = json.loads((folder / "math.json").read_text())
    data["u2"][0]["Model_Solution_First_Error_Step"] = "7"
    rows.as_json(folder / "math.json", data, indent=2)
    with pytest.raises(FormatError, match=r"math\.json:1: .*numbered 1 to 3"):
        BENCHMARKS["mr_ben"].read(folder)


def test_no_data(tmp_path):
    with pytest.raises(FormatError, match="no data is there.*gsm8k, math"):
        KNOWN.read(tmp_path)
    with pytest.raises(FormatError, match="no data is there"):
        BENCHMARKS["prmbench"].read(tmp_path / "nowhere")


def test_judgements_travel_as_json():
    for judgement in (
        Judgement(StepScores(values=(0.5, 1.0), semantics="value", model="m"), None, (0.1, 0.2)),
        Judgement(Unscored(reason="why", model="m")),
        Judgement(None, Verdict((1, None, -1), False, 2, (True, None, False), "agent", True)),
        Judgement(None, Verdict((None,), None, None)),
    ):
        row = json.loads(json.dumps(to_json(judgement)))
        assert from_json(row) == judgement


def test_stored_scores(tmp_path):
    cases = BENCHMARKS["best_of_n"].read(rows.best_of_n(tmp_path))
    judges = stored_scores(cases)
    assert set(judges) == {"one", "two"}
    assert judges["two"]["p0/1"].scores.values == (0.5,)


def test_a_record_of_other_steps_is_an_error(tmp_path, cases):
    record = cases[0].record
    steps = record.trajectory.steps[:2]
    other = record.replace(
        labels=None,
        trajectory=record.trajectory.model_copy(update={"steps": steps}),
        scores=(StepScores(values=(0.5, 0.5), semantics="value", model="m"),),
    )
    with pytest.raises(FormatError, match="no case has the question and the steps"):
        one(tmp_path, cases, json.loads(other.model_dump_json()))


def test_one_judge_in_several_files(tmp_path, cases):
    lines = [{"id": c.id, "prediction": -1} for c in cases]
    for name, part in (("gsm8k_error", lines[:2]), ("gsm8k_correct", lines[2:4])):
        rows.jsonl(tmp_path / "critic" / f"{name}.jsonl", part)
    rows.jsonl(tmp_path / "critic" / "math_error.jsonl", lines[4:])
    judges = read_scores(tmp_path / "critic", KNOWN, cases)
    assert {name: len(given) for name, given in judges.items()} == {"critic": 7}


def test_models_of_rows_in_folders(tmp_path, cases):
    line = {"id": "gsm8k-0", "scores": {"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.4]}}
    rows.jsonl(tmp_path / "out" / "run1" / "x.jsonl", [line])
    assert set(read_scores(tmp_path / "out", KNOWN, cases)) == {"a", "b"}


def test_repeated_cases_of_several_judges_and_plain_rows(tmp_path):
    known = BENCHMARKS["prmbench"]
    data = [
        rows.prmbench_row("multi_solutions", "p2", 2, []),
        rows.prmbench_row("multi_solutions", "p2", 3, []),
    ]
    cases = known.read(rows.jsonl(tmp_path / "d.jsonl", data))
    name = cases[0].id
    own = [
        {"model": m, "case": c.id, **to_json(Judgement(None, Verdict((1,) * n, True, None)))}
        for m in ("A", "B")
        for c, n in zip(cases, (2, 3), strict=True)
    ]
    judges = read_scores(rows.jsonl(tmp_path / "s.jsonl", own), known, cases)
    assert {m: len(g) for m, g in judges.items()} == {"A": 2, "B": 2}
    plain = [{"id": name, "scores": [0.1, 0.2]}, {"id": name, "scores": [0.1, 0.2, 0.3]}]
    judges = read_scores(rows.jsonl(tmp_path / "p.jsonl", plain), known, cases)
    assert {k: len(j.scores.values) for k, j in judges["p"].items()} == {name: 2, f"{name}#2": 3}
    with pytest.raises(FormatError, match="there twice"):
        read_scores(rows.jsonl(tmp_path / "q.jsonl", [*plain, plain[1]]), known, cases)


def test_labels_beside_scores_are_kept_and_semantics_too(tmp_path, cases):
    judges = one(
        tmp_path,
        cases,
        {"id": "gsm8k-0", "scores": [0.1, 0.1, 0.1], "labels": [1, 1, 1], "first_error": -1},
        {"id": "gsm8k-1", "scores": [-0.5, 2.5], "semantics": "log_ratio"},
        {"id": "gsm8k-2", "model": "a\x1b[31m\u202eb", "first_error": 0},
    )
    assert judges["scores"]["gsm8k-0"].verdict.right is True
    assert judges["scores"]["gsm8k-0"].scores.values == (0.1, 0.1, 0.1)
    assert judges["scores"]["gsm8k-1"].scores.semantics == "log_ratio"
    assert "a[31mb" in judges
