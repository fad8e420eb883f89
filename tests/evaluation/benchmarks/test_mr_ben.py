"""Mr-Ben, by hand."""

import published_rows as rows
from by_hand import from_file, of
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.benchmarks.mr_ben import numbered_steps


@of("mr_ben")
def test_mr_ben_steps_are_those_that_are_numbered(cases):
    by_id = {case.id: case for case in cases}
    texts = [s.text for s in by_id["u1/A"].record.trajectory.steps]
    assert texts == ["Step 1: a\n* more", "Step 2: b\nSolution: B"]
    wrong = by_id["u1/B"].record
    assert [s.text for s in wrong.trajectory.steps] == ["So:\nStep 1: a\n- x", "Step 2: b"]
    assert wrong.labels.values == (1.0, 0.0)
    assert wrong.trajectory.problem.answer == "B"
    assert by_id["u3/A"].record.labels.first_error == 3
    assert by_id["u3/B"].record.labels.values == (None,) * 4
    assert by_id["u3/B"].record.meta["solution_correct"] is False
    assert by_id["u3/C"].record.labels.values == (1.0,) * 4
    assert {case.split for case in cases} == {"math", "coding"}


def test_lines_without_numbers_are_steps_themselves():
    assert numbered_steps(["a", "", "b"]) == ["a", "b"]
    assert numbered_steps([]) == []


@of("mr_ben")
def test_mr_ben_means_are_over_subjects(cases, tmp_path):
    result = {
        "math": [
            {
                "Question_UUID": "u1",
                "Sampled_Model": "A",
                "Evaluation_Result": {"solution_correctness": " correct", "first_error_step": ""},
            },
            {
                "Question_UUID": "u1",
                "Sampled_Model": "B",
                "Evaluation_Result": {
                    "solution_correctness": "Incorrect",
                    "first_error_step": " Step 2",
                },
            },
            {
                "Question_UUID": "u2",
                "Sampled_Model": "A",
                "Evaluation_Result": {"solution_correctness": "incorrect", "first_error_step": "2"},
            },
        ],
        "coding": [
            {
                "Question_UUID": "u3",
                "Sampled_Model": model,
                "Evaluation_Result": {"solution_correctness": "correct", "first_error_step": "N/A"},
            }
            for model in "ABC"
        ],
    }
    found = from_file("mr_ben", cases, rows.as_json(tmp_path / "eval.json", result, indent=1))
    assert found["math/mcc"] == 1
    assert found["coding/mcc"] == 0
    assert found["mcc"] == 0.5
    assert found["math/step_accuracy"] == 0.5
    # One of the two wrong programs has no wrong line: there is no place to find.
    assert found["step_accuracy"] == 0.25


@of("mr_ben")
def test_mr_ben_programs_are_found_by_reason(cases, tmp_path):
    def row(uuid, model, word, step, reason):
        return {
            "Question_UUID": uuid,
            "Sampled_Model": model,
            "Evaluation_Result": {"solution_correctness": word, "first_error_step": step},
            "Error_Reason_Correctness_Analysis": {"error_reason_correctness": reason},
        }

    lines = [
        row("u3", "A", "incorrect", "x", "correct"),
        row("u3", "B", "incorrect", "x", "Incorrect"),
        row("u3", "C", "correct", "N/A", "N/A"),
    ]
    found = from_file("mr_ben", cases, rows.jsonl(tmp_path / "r.jsonl", lines))
    assert found["coding/step_accuracy"] == found["coding/reason_accuracy"] == 0.5
    # Of the other subject nothing was judged: it is no part of the mean.
    assert found["step_accuracy"] == 0.5
    assert found["mcc"] == 1


def test_mr_ben_rows_of_the_hub(tmp_path):
    path = rows.jsonl(
        tmp_path / "train.jsonl",
        [
            rows.mr_ben_row("a", "A", ["Step 2: x", "Step 3: y"], False, "3"),
            {**rows.mr_ben_row("b", "A", ["x", "step 2 is fun"], False, "2"), "Subject": "logiqa"},
        ],
    )
    known = BENCHMARKS["mr_ben"]
    cases = known.read(path)
    assert [c.split for c in cases] == ["math", "logic"]
    assert [c.record.labels.first_error for c in cases] == [1, 1]
    line = {
        "Question_UUID": "a",
        "Sampled_Model": "A",
        "Evaluation_Result": {"solution_correctness": "incorrect", "first_error_step": "Step 3"},
    }
    found = from_file("mr_ben", cases, rows.jsonl(tmp_path / "r.jsonl", [line]))
    assert found["math/step_accuracy"] == 1
