"""PRMBench, by hand."""

import pytest

import published_rows as rows
from by_hand import figures, from_file, of, scored
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.score_files import read_scores


@of("prmbench")
def test_prmbench_by_hand(cases):
    # Counts of steps: valid 15, invalid 9 (the number 5 of a case of 2 steps is not counted).
    values = [[0.9] * len(c.record.trajectory.steps) for c in cases]
    values[0] = [0.9, 0.5, 0.9]  # the threshold itself is wrong: found
    values[3] = [0.2, 0.9]  # a valid one called wrong, and the wrong one missed
    found, model = figures("prmbench", cases, [scored(*v) for v in values])
    assert model.facts["steps_counted"] == 24
    assert found["NR"] == 1
    assert found["SC"] == 0  # both ratios are of nothing or 0
    # Of 3 steps the last is wrong and missed: F1 4/5 of valid ones, 0 of invalid ones.
    assert found["ES"] == pytest.approx(0.4)
    assert found["simplicity"] == pytest.approx((1 + found["NCL"]) / 2)
    assert found["MS"] == 1
    tp, fp, tn, fn = 14, 8, 1, 1
    valid, invalid = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    assert found["prm_score"] == pytest.approx((valid + invalid) / 2)
    assert found["correct_step_accuracy"] == pytest.approx(tp / 15)
    assert found["wrong_step_accuracy"] == pytest.approx(tn / 9)
    assert found["total_step_accuracy"] == pytest.approx(15 / 24)
    # Eight cases have a wrong step that is there; the first is flagged in one.
    assert found["first_error_accuracy"] == pytest.approx(1 / 8)


@of("prmbench")
def test_prmbench_labels_scores_and_redundancy(cases, tmp_path):
    lines = []
    for case in cases:
        n = len(case.record.trajectory.steps)
        truth = [bool(v) for v in case.record.labels.values]
        scores = {"step_level_validity_labels": truth, "step_level_validity_scores": [0.5] * n}
        if case.split in ("redundency", "circular"):
            scores["step_level_redundancy_labels"] = [not t for t in truth]
            scores["step_level_validity_labels"] = [True] * n
        lines.append({"scores": scores, "idx": case.id})
    lines.append({"scores": {"step_level_validity_labels": [True]}, "idx": "correct_prm_test_p1_0"})
    path = rows.jsonl(tmp_path / "judge.jsonl", lines)
    labels = from_file("prmbench", cases, path)
    assert labels["prm_score"] == 1
    assert labels["NR"] == labels["NCL"] == 1  # by redundancy
    strict = from_file("prmbench", cases, path, use="scores")
    assert strict["correct_step_accuracy"] == 0
    assert strict["MS"] == 0
    loose = from_file("prmbench", cases, path, use="scores", equal="right")
    assert loose["correct_step_accuracy"] == 1
    assert loose["MS"] == 1


def test_prmbench_repeated_ids(tmp_path):
    first = rows.prmbench_row("multi_solutions", "prm_test_p2_863", 2, [])
    second = rows.prmbench_row("multi_solutions", "prm_test_p2_863", 4, [])
    data = rows.jsonl(tmp_path / "data" / "x.jsonl", [first, second])
    known = BENCHMARKS["prmbench"]
    cases = known.read(data)
    assert [c.id for c in cases] == [
        "multi_solutions_prm_test_p2_863",
        "multi_solutions_prm_test_p2_863#2",
    ]
    lines = [
        {"idx": cases[0].id, "scores": {"step_level_validity_labels": [True, True]}},
        {"idx": cases[0].id, "scores": {"step_level_validity_labels": [True, False, False, True]}},
    ]
    found = from_file("prmbench", cases, rows.jsonl(tmp_path / "s.jsonl", lines))
    assert found["MS"] == 1
    assert found["repeats_counted/MS"] == pytest.approx(8 / 10)


@of("prmbench")
def test_prmbench_first_errors_of_redundancy_and_short_labels(cases, tmp_path):
    lines = []
    for case in cases:
        truth = [bool(v) for v in case.record.labels.values]
        scores = {"step_level_validity_labels": truth}
        if case.split == "redundency":
            scores = {
                "step_level_validity_labels": [True] * 3,
                "step_level_redundancy_labels": [not t for t in truth],
            }
        if case.split == "missing_condition":
            scores = {
                "step_level_validity_labels": truth[:3],
                "step_level_validity_scores": [0.9] * 3,
            }
        lines.append(
            {"task_name": "t", "model_name": "j", "results": {"idx": case.id, "scores": scores}}
        )
    path = rows.jsonl(tmp_path / "j.jsonl", lines)
    (name,) = read_scores(path, BENCHMARKS["prmbench"], cases)
    assert name == "j"
    found = from_file("prmbench", cases, path)
    # The fourth step, which is wrong, was not reached: it is not counted.
    assert found["first_error_accuracy"] == 1
    assert found["prm_score"] == 1
