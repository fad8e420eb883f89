"""Pools of samples, by hand."""

import pytest

import published_rows as rows
from by_hand import figures, of, scored
from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.score_files import in_order, read_scores


@of("best_of_n")
def test_best_of_n_by_hand(cases, tmp_path):
    judges = in_order(
        read_scores(tmp_path / "x_step_scores.jsonl", BENCHMARKS["best_of_n"], cases), cases
    )
    assert list(judges) == ["one", "two"]
    found, model = figures("best_of_n", cases, judges["one"])
    assert found["pass_1"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["pass_3"] == 1
    # Lowest steps: 0.8, 0.5, 0.1 and 0.7, 0.6, 0.2: the first is right in p0 and wrong in p1.
    assert found["best_of_3/min"] == 0.5
    # Of 2 in p0: always a right one is best. In p1: only without the first, of 3 pairs one.
    assert found["best_of_2/min"] == pytest.approx((1 + 1 / 3) / 2)
    # Highest steps: ties of 0.9 in p0 (right and wrong), 0.7 twice and 0.9 in p1 (wrong).
    assert found["best_of_3/max"] == pytest.approx((0.5 + 0) / 2)
    assert found["majority_3"] == 0.5
    # Votes: p0 1.3 against 0.1; p1: "1" 0.7 + 0.2 against "2" 0.6.
    assert found["weighted_vote_3/min"] == 0.5
    # By the last step: p1 "1" 0.7 + 0.9 against 0.6.
    assert found["weighted_vote_3/last"] == 0.5
    assert model.facts["problems"] == 2
    first, _ = figures("best_of_n", cases, judges["one"], sampling="first")
    assert first["best_of_1/min"] == 0.5
    assert first["best_of_2/min"] == 0.5
    assert first["best_of_3/max"] == 0.25  # p0: a right and a wrong one are equal, and share
    assert first["majority_2"] == 0.75  # p1: "1" and "2" tie, and share


@of("best_of_n")
def test_of_tied_answers_the_first_seen_may_win(cases):
    judgements = [scored(*[0.5] * len(c.record.trajectory.steps)) for c in cases]
    found, _ = figures("best_of_n", cases, judgements, sampling="first", ties="first")
    assert found["majority_2"] == 0.5  # p0 right; p1: "1" was seen before "2"
    assert found["best_of_3/min"] == 0.5  # all are equal: the first is right in p0 alone
    shared, _ = figures("best_of_n", cases, judgements, sampling="first")
    assert shared["majority_2"] == 0.75


def test_prompt_steps_are_dropped_from_steps_and_scores(tmp_path):
    rows.jsonl(tmp_path / "m_problems.jsonl", [{"problem_id": "p", "question": "q"}])
    candidate = {"steps": ["prompt", "a", "b"], "answer": "1", "is_correct": True}
    rows.jsonl(
        tmp_path / "m_candidates.jsonl",
        [{"problem_id": "p", "candidates": [{**candidate, "n_prompt_steps": 1}, candidate]}],
    )
    rows.jsonl(
        tmp_path / "m_step_scores.jsonl",
        [{"problem_id": "p", "scores": {"x": [[0.1, 0.8, 0.9], [0.3, 0.8, 0.9]]}}],
    )
    known = BENCHMARKS["best_of_n"]
    cases = known.read(tmp_path)
    assert [len(c.record.trajectory.steps) for c in cases] == [2, 3]
    assert cases[0].record.scores[0].values == (0.8, 0.9)
    judges = read_scores(tmp_path / "m_step_scores.jsonl", known, cases)
    assert judges["x"]["p/0"].scores.values == (0.8, 0.9)
    assert judges["x"]["p/1"].scores.values == (0.3, 0.8, 0.9)


def test_problems_of_pools_are_kept_apart(tmp_path):
    known = BENCHMARKS["best_of_n"]

    def row(question):
        return {"idx": 0, "question": question, "code": ["a"], "pred": ["1"], "score": [True]}

    rows.jsonl(tmp_path / "two" / "a.jsonl", [row("x")])
    rows.jsonl(tmp_path / "two" / "b.jsonl", [row("x")])
    with pytest.raises(
        FormatError, match=r"b\.jsonl:1: the problem '0' is there twice, first in a"
    ):
        known.read(tmp_path / "two")
    with pytest.raises(FormatError, match=r"c\.jsonl:2: the problem '0' is there twice"):
        known.read(rows.jsonl(tmp_path / "c.jsonl", [row("x"), row("x")]))
    sample = {"problem": "q", "answer": "1", "prm_score": 0.5, "is_correct": True}
    cases = known.read(
        rows.jsonl(
            tmp_path / "s.jsonl",
            [{**sample, "unique_id": None}, sample, {**sample, "problem": "r"}],
        )
    )
    assert [c.id for c in cases] == ["q/0", "q/1", "r/0"]


def test_samples_are_graded_where_it_is_not_told_which_are_right(tmp_path):
    row = {
        "problem": "q",
        "answer": "1/2",
        "completions": ["So it is \\boxed{0.5}.", "So it is \\boxed{2}."],
        "scores": [[0.9], [0.1]],
    }
    cases = BENCHMARKS["best_of_n"].read(rows.jsonl(tmp_path / "a.jsonl", [row]))
    assert [c.record.trajectory.correct for c in cases] == [True, False]
