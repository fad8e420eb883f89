"""MR-GSM8K, and ReasonEval's rules on it, by hand."""

import json
import math

import pytest

import published_rows as rows
from by_hand import figures, from_file, of, scored
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.score_files import read_scores
from prmkit.records import Unscored


@of("mr_gsm8k")
def test_mr_gsm8k_by_hand(cases, tmp_path):
    said = {
        "a1": ("Correct", "N/A"),  # right, called right
        "b1": ("Incorrect", "Step 2"),  # found; the reason is accepted
        "c1": ("wrong", "2"),  # called wrong, another step
        "d1": ("correct", "N/A"),  # missed
        "e1": ("PARSE_ERROR", "PARSE_ERROR"),  # a miss
    }
    lines = [
        {
            **rows.mr_gsm8k_row(*row),
            "Evaluation_Result": {
                "evaluated_model": "m",
                "solution_correctness": said[row[0]][0],
                "first_error_step": said[row[0]][1],
                "error_reason": "…",
            },
            "Need_Error_Reason_Review": row[0] == "b1",
            **(
                {"Error_Reason_Correctness_Analysis": {"error_reason_correctness": "Correct"}}
                if row[0] == "b1"
                else {}
            ),
        }
        for row in rows.MR_GSM8K
    ]
    found = from_file("mr_gsm8k", cases, rows.as_json(tmp_path / "m_eval_results.json", lines))
    tp, fp, tn, fn = 1, 1, 2, 1
    mcc = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["mcc"] == pytest.approx(mcc)
    assert found["step_accuracy"] == pytest.approx(1 / 3)
    assert found["reason_accuracy"] == pytest.approx(1 / 3)
    assert found["mr_score"] == pytest.approx(0.2 * mcc + 0.3 / 3 + 0.5 / 3)
    assert found["true_positive_rate"] == 0.5
    assert found["true_negative_rate"] == pytest.approx(2 / 3)
    assert found["POT/true_negative_rate"] == 0


@of("mr_gsm8k")
def test_reasoneval_rules_by_hand(cases, tmp_path):
    # Triples: invalid, redundant, positive; validity is the sum of the last two.
    scores = {
        "a1": [[0.1, 0.5, 0.4], [0.2, 0.4, 0.4], [0.5, 0.25, 0.25]],  # 0.9, 0.8, 0.5: a tie
        "b1": [[0.1, 0.1, 0.8], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]],  # 0.9, 0.1, 0.1: found
        "c1": [[0.2, 0.2, 0.6], [0.1, 0.2, 0.7]],  # 0.8, 0.9: missed
        "d1": [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.7, 0.1, 0.2]],
        "e1": [[0.2, 0.2, 0.6], [0.1, 0.2, 0.7]],  # 0.8, 0.9
    }
    path = rows.jsonl(
        tmp_path / "reasoneval_x_eval_results.json",
        [{"id": case.id, "scores": scores[case.id]} for case in cases],
    )
    found = from_file("mr_gsm8k", cases, path)
    # Solutions: a right one is a tie and so a miss; b and d are below; c is missed; e is right.
    tp, fn, tn, fp = 1, 1, 2, 1
    assert found["solution_macro_f1"] == pytest.approx(
        (2 * tp / (2 * tp + fp + fn) + 2 * tn / (2 * tn + fp + fn)) / 2
    )
    # Steps up to the first wrong one: 5 + 4 right ones and 3 wrong ones; a tie is called wrong.
    # Right: a 2 of 3, b 1, d 2 of 3, e 2: 7 of 9. Wrong: b, d found, c missed: 2 of 3.
    assert found["step_macro_f1"] == pytest.approx((14 / (14 + 1 + 2) + 4 / (4 + 1 + 2)) / 2)
    # Lowest: right 0.5, 0.8; wrong 0.1, 0.8, 0.3. Pairs won: 2 + 2.5 of 6.
    assert found["solution_auc"] == pytest.approx(4.5 / 6)


def test_mr_gsm8k_csv_of_the_hub(tmp_path):
    row = rows.mr_gsm8k_row("b1", "original", 2, False, 2)
    row["model_output_steps"] = "['Step 1: it\\'s', \"Step 2: 2\"]"
    row["model_output_solution_first_error_step"] = "2.0"
    good = {**rows.mr_gsm8k_row("a1", "original", 2, True, "")}
    good["model_output_steps"] = str(good["model_output_steps"])
    lines = [",".join(row), *(",".join(_quoted(v) for v in r.values()) for r in (row, good))]
    path = tmp_path / "test.csv"
    path.write_text("\n".join(lines) + "\n")
    first, second = BENCHMARKS["mr_gsm8k"].read(path)
    assert [s.text for s in first.record.trajectory.steps] == ["Step 1: it's", "Step 2: 2"]
    assert first.record.labels.first_error == 1
    assert second.record.labels.values == (1.0, 1.0)


def _quoted(value):
    return '"' + str(value).replace('"', '""') + '"'


def test_scores_of_several_models_in_one_row(tmp_path):
    path = rows.mr_gsm8k(tmp_path / "data")
    cases = BENCHMARKS["mr_gsm8k"].read(path)
    row = {"uuid": "a1", "scores": {"x": [0.9, 0.8, 0.7], "roscoe": 0.5, "y": [[0, 0.1, 0.9]] * 3}}
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(row) + "\n")
    judges = read_scores(file, BENCHMARKS["mr_gsm8k"], cases)
    assert set(judges) == {"x", "y"}
    assert judges["y"]["a1"].redundancy == (0.1,) * 3


@of("mr_gsm8k")
def test_misses_of_what_is_not_scored_count_steps_too(cases):
    judgements = [scored(*[0.9] * len(c.record.trajectory.steps)) for c in cases]
    judgements[0] = Judgement(Unscored(reason="r"))
    found, _ = figures("mr_gsm8k", cases, judgements)
    # Of 9 right steps 6 are called so; the wrong ones are all missed.
    assert found["unscored_as_miss/step_macro_f1"] == pytest.approx((12 / (12 + 3 + 3) + 0) / 2)
    assert not any("unscored" in name and "auc" in name for name in found)
