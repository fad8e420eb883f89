"""Benchmarks of agents, by hand."""

import json

import pytest

import published_rows as rows
from by_hand import figures, from_file, of, scored
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.score_files import read_scores


@of("agent_process_bench")
def test_agent_process_bench_by_hand(cases, tmp_path):
    first = cases[0].record
    assert [step.text for step in first.trajectory.steps] == [
        "assistant 2",
        "assistant 4",
        "assistant 10",
    ]
    assert first.trajectory.steps[0].observation == "tool 3"
    assert [m.role for m in first.trajectory.problem.messages] == ["system", "user"]
    assert cases[2].record.meta["labels_only"] is True
    lines = [
        # "10" comes after "4": keys are numbers. A wrong label at 4, an unknown message at 3.
        {
            "dataset": "hotpotqa",
            "query_index": 0,
            "sample_index": 0,
            "annotator": "j",
            "step_labels": {"2": 1, "10": -1, "4": 0, "3": None},
        },
        {
            "dataset": "tau2",
            "query_index": 1,
            "sample_index": 2,
            "annotator": "j",
            "step_labels": {"2": None, "5": None},
            "comment": "llm_annotate_failed",
        },
    ]
    found = from_file("agent_process_bench", cases, rows.jsonl(tmp_path / "j.jsonl", lines))
    assert found["hotpotqa/step_accuracy"] == pytest.approx(2 / 5)
    assert found["tau2/step_accuracy"] == 0
    assert found["step_accuracy"] == pytest.approx(2 / 7)
    # A missing trajectory without a first error is credited, a failed one with one is not.
    assert found["first_error_accuracy"] == pytest.approx(2 / 3)
    assert found["hotpotqa/first_error_accuracy"] == 1
    assert found["scored_only/first_error_accuracy"] == 0.5


@of("agent_process_bench")
def test_an_error_at_a_message_of_nobody_is_no_hit(cases, tmp_path):
    lines = [
        {"total_index": 0, "step_labels": {"2": 1, "4": 1, "7": -1, "10": -1}},
        {"total_index": 1, "step_labels": {"2": 0, "3": 1}},
        {"total_index": 757, "step_labels": [-1, 1, 1]},
    ]
    found = from_file("agent_process_bench", cases, rows.jsonl(tmp_path / "j.jsonl", lines))
    assert found["hotpotqa/step_accuracy"] == 1
    assert found["hotpotqa/first_error_accuracy"] == 0.5
    # A list is of places, and place 0 is none of the messages that are labelled.
    assert found["tau2/first_error_accuracy"] == 0


@of("who_and_when")
def test_who_and_when_by_hand(cases, tmp_path):
    assert [c.id for c in cases] == ["algorithm_generated/1", "hand_crafted/1"]
    assert cases[0].record.trajectory.steps[1].text == "Solver: 2 + 2 = 5"
    assert cases[1].record.meta["agents"][:2] == ["human", "Orchestrator"]
    # A scorer blames its lowest step, and with it who took it.
    lowest = [scored(0.9, 0.3, 0.2), scored(0.9, *[0.8] * 10, 0.1)]
    found, _ = figures("who_and_when", cases, lowest)
    assert found["agent_accuracy"] == 0
    assert found["step_accuracy"] == 0
    right = [scored(0.9, 0.6, 0.7), scored(0.9, 0.2, *[0.8] * 9, 0.7)]
    found, _ = figures("who_and_when", cases, right)
    assert found["agent_accuracy"] == found["step_accuracy"] == 1
    log = tmp_path / "all_at_once_m_handcrafted.txt"
    log.write_text(
        "--- Starting Analysis: all_at_once ---\nPrediction for 1.json:\n"
        "Agent Name: Solver\nStep Number: 3\n==\n"
        "Prediction for 1.json:\nAgent Name: Orchestrator (thought)\nStep Number: 10\n"
        "Reason for Mistake: x\n==================\n"
    )
    found = from_file("who_and_when", cases, log)
    # The last prediction of a file counts, for the part that the log's name says.
    assert found["hand_crafted/agent_accuracy"] == 1
    assert found["hand_crafted/step_accuracy"] == 0
    assert found["hand_crafted/containing/step_accuracy"] == 1  # "1" is in "10"
    assert found["agent_accuracy"] == 0.5


@of("agent_process_bench")
def test_the_newest_result_of_a_trajectory_counts(cases, tmp_path):
    lines = [
        {"total_index": 0, "step_labels": {"2": 1}, "updated_at": "2026-02-04T15:00:00+00:00"},
        {"total_index": 0, "step_labels": {"2": 0}, "updated_at": "2026-02-04T14:00:00+00:00"},
    ]
    (tmp_path / "run" / "_raw").mkdir(parents=True)
    (tmp_path / "run" / "_raw" / "log.jsonl").write_text('{"judge_content": "x"}\n')
    rows.jsonl(tmp_path / "run" / "hotpotqa__blind.jsonl", lines)
    judges = read_scores(tmp_path / "run", BENCHMARKS["agent_process_bench"], cases)
    (given,) = judges.values()
    assert given["hotpotqa:0"].verdict.steps == (1, None, None)


def test_who_and_when_rows_with_null_names(tmp_path):
    (algorithm, hand) = BENCHMARKS["who_and_when"].read(rows.who_and_when(tmp_path))
    file = next(tmp_path.rglob("Hand-Crafted/1.json"))
    data = json.loads(file.read_text())
    data["history"] = [{**entry, "name": None} for entry in data["history"]]
    rows.as_json(file, data)
    assert BENCHMARKS["who_and_when"].read(tmp_path)[1] == hand
    assert algorithm.split == "algorithm_generated"
