"""BIG-Bench Mistake and PRM800K, by hand."""

import pytest

import published_rows as rows
from by_hand import figures, of, scored
from prmkit.evaluation.benchmarks import BENCHMARKS


@of("bigbench_mistake")
def test_bigbench_mistake_counts_all_chains(cases):
    judgements = [
        scored(0.9, 0.1, 0.9),  # found
        scored(0.9, 0.9, 0.9),  # none, and there is none
        scored(0.9, 0.1, 0.9),  # elsewhere
        scored(0.9, 0.9, 0.9),  # missed
    ]
    found, _ = figures("bigbench_mistake", cases, judgements)
    assert found["word_sorting/accuracy"] == pytest.approx(2 / 3)
    assert found["dyck_languages/accuracy"] == 0
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert [c.record.trajectory.correct for c in cases] == [True, True, True, False]


@of("prm800k_completions")
def test_prm800k_completions_after_one_prefix_are_compared(cases):
    assert [c.id.split("/", 1)[1] for c in cases][:4] == ["0/0", "0/1", "1/0", "1/1"]
    assert not any("problem 9" in c.record.trajectory.problem.text for c in cases)
    judgements = []
    for case in cases:
        n = len(case.record.trajectory.steps)
        # The last step is the one that is rated: 0.8 for the chosen, 0.9 for the other.
        chosen = case.record.meta["completion"] == 0
        judgements.append(scored(*[0.9] * (n - 1), 0.8 if chosen else 0.9))
    found, _ = figures("prm800k_completions", cases, judgements)
    # Seven rated completions, three of them wrong (two others, one chosen): all are called right.
    assert found["step_accuracy"] == pytest.approx(4 / 7)
    assert found["wrong_step_accuracy"] == 0
    # After each of two prefixes the wrong one is above the right one.
    assert found["steps/within_prefix_auc"] == 0


@of("prm800k")
def test_prm800k_ratings_of_zero_are_right(cases):
    assert [c.record.labels.values for c in cases] == [(1.0, 0.0), (1.0, 1.0, -1.0)]
    found, _ = figures("prm800k", cases, [scored(0.9, 0.2), scored(0.9, 0.9, 0.2)])
    assert found["step_accuracy"] == pytest.approx(4 / 5)
    assert found["right_step_accuracy"] == pytest.approx(3 / 4)
    assert found["wrong_step_accuracy"] == 1
    assert found["first_error/accuracy_wrong"] == 1
    assert found["first_error/accuracy_right"] == 0


def test_an_ambiguous_last_group_is_left_out(tmp_path):
    group = {"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0}
    row = {"id": "t", "problem": "p", "steps": [group, group], "last_group_ambiguous": True}
    path = rows.jsonl(tmp_path / "test.jsonl", [row])
    for name in ("prm800k", "prm800k_completions"):
        (case,) = BENCHMARKS[name].read(path)
        assert len(case.record.trajectory.steps) == 1
