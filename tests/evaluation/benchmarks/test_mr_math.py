"""MR-MATH, by hand."""

import pytest

import published_rows as rows
from by_hand import figures, from_file, of, scored
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.score_files import read_scores


@of("mr_math")
def test_mr_math_lines_of_a_step_count_as_their_lowest(cases, tmp_path):
    path = rows.jsonl(
        tmp_path / "math-shepherd_eval_results.json",
        [
            {"id": 0, "scores": [0.9, 0.8]},
            {"id": 1, "scores": [0.9, 0.7, 0.2, 0.9, 0.1]},
            {"id": 2, "scores": [0.9, 0.9, 0.6]},
        ],
    )
    judges = read_scores(path, BENCHMARKS["mr_math"], cases)
    assert list(judges) == ["math-shepherd"]
    assert judges["math-shepherd"]["1"].scores.values == (0.9, 0.2, 0.1)
    found = from_file("mr_math", cases, path)
    assert found["solution_macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found["solution_auc"] == 1
    # Right steps: 2 + 1 + 2 are all called so; of two wrong ones one is.
    assert found["step_macro_f1"] == pytest.approx((10 / 11 + 2 / 3) / 2)


@of("mr_math_redundant")
def test_mr_math_redundancy(cases, tmp_path):
    path = rows.jsonl(
        tmp_path / "reasoneval.json",
        [
            {"id": 0, "scores": [[0.0, 0.1, 0.9], [0.0, 0.15, 0.85]]},
            {"id": 1, "scores": [[0.0, 0.1, 0.9], [0.0, 0.4, 0.6], [0.0, 0.2, 0.8]]},
            {"id": 2, "scores": [[0.0, 0.3, 0.7], [0.0, 0.05, 0.95]]},
        ],
    )
    found = from_file("mr_math_redundant", cases, path)
    # The worst step of the fine one is at the threshold: a miss. The others are flagged.
    assert found["solution_macro_f1"] == pytest.approx((0 + 4 / 5) / 2)
    # Useful: 0.1 twice kept, 0.15 (the threshold) and 0.2 flagged; redundant: one of three kept.
    assert found["step_macro_f1"] == pytest.approx(4 / 7)
    assert found["solution_auc"] == 1
    # Useful above redundant, by -P(redundant): of 4 x 3 pairs.
    pairs = [(u < r) + (u == r) / 2 for u in (0.1, 0.15, 0.1, 0.2) for r in (0.4, 0.3, 0.05)]
    assert found["step_auc"] == pytest.approx(sum(pairs) / 12)


@of("mr_math")
def test_a_step_at_the_threshold_is_called_wrong(cases):
    judgements = [scored(0.9, 0.9), scored(0.9, 0.5, 0.9), scored(0.9, 0.9, 0.5)]
    found, _ = figures("mr_math", cases, judgements)
    assert found["step_macro_f1"] == 1
    # The two wrong solutions are at the threshold: misses.
    assert found["solution_macro_f1"] == pytest.approx((2 / 4 + 0) / 2)


@of("mr_math")
def test_chat_models_on_mr_math(cases, tmp_path):
    lines = [
        {"id": 0, "response": "", "correctness_pred": "Correct", "error_step_pred": "N/A"},
        {"id": 1, "response": "", "correctness_pred": "wrong", "error_step_pred": "Step 2: b."},
        {"id": 2, "response": "", "correctness_pred": "Incorrect", "error_step_pred": "Step 9"},
    ]
    found = from_file("mr_math", cases, rows.jsonl(tmp_path / "gpt4.jsonl", lines))
    # "Incorrect" is a miss whatever the truth; a step that is not there leaves all right.
    assert found["solution_macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    # Right steps 2 + 1 + 2, all called right; wrong ones: one found, one called right.
    assert found["step_macro_f1"] == pytest.approx((10 / 11 + 2 / 3) / 2)
    assert "solution_auc" not in found


@of("mr_math_redundant")
def test_chat_models_on_redundancy(cases, tmp_path):
    lines = [
        {"id": 0, "response": "", "correctness_pred": "Absent", "error_step_pred": "N/A"},
        {"id": 1, "response": "", "correctness_pred": "Present", "error_step_pred": "[2]"},
        {"id": 2, "response": "", "correctness_pred": "present", "error_step_pred": "Steps 1, 2"},
    ]
    found = from_file("mr_math_redundant", cases, rows.jsonl(tmp_path / "gpt4.jsonl", lines))
    assert found["solution_macro_f1"] == found["step_macro_f1"] == 1
