"""Searches at equal cost, against a hand calculation."""

from __future__ import annotations

import json

import pytest

from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.evaluation.searches import compare_searches
from prmkit.policies.sampling import Outcome
from prmkit.search.trace import VERSION


def judge(problem, text):
    return Outcome(text, text == problem.answer)


def trace(folder, name, solutions, *, scorer=True, answer="right", end=True):
    """A best-of-N by hand: texts with their scores and costs in tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    events = [
        {
            "event": "start", "version": VERSION,
            "problem": {"id": name, "prompt": "?", "answer": answer},
            "algorithm": {"name": "best_of_n", "n": len(solutions)},
            "settings": {"split": "line", "answers": "text", "choice": "best"},
            "budget": {}, "policy": "p", "scorer": "s" if scorer else None,
            "semantics": "correctness" if scorer else None,
        }
    ]  # fmt: skip
    for i, (text, _, tokens) in enumerate(solutions):
        events.append(
            {
                "event": "child", "path": [i], "text": text, "finish": "eos", "ids": None,
                "whole": True, "cost": [1, tokens, 0, 0, 0, 0], "t": 1.0,
            }
        )  # fmt: skip
    for i, (_, score, tokens) in enumerate(solutions):
        if scorer:
            events.append(
                {
                    "event": "score", "path": [i], "values": [score], "length": 1,
                    "cost": [0, 0, 0, 0, 1, tokens], "t": 2.0,
                }
            )  # fmt: skip
    best = max(range(len(solutions)), key=lambda i: solutions[i][1])
    if end:
        events.append(
            {
                "event": "end", "ended": "done", "chosen": [best], "answer": solutions[best][0],
                "correct": solutions[best][0] == answer,
                "candidates": [[i] for i in range(len(solutions))],
                "weights": [1.0] * len(solutions), "share": 1.0, "cost": [], "t": 3.0,
            }
        )  # fmt: skip
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


@pytest.fixture
def runs(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    # Right after 20 tokens; at 60 a better scored one is wrong.
    trace(one, "a", [("right", 0.6, 10), ("wrong", 0.5, 10), ("worse", 0.9, 10)])
    trace(one, "b", [("wrong", 0.6, 10), ("right", 0.7, 10), ("worse", 0.1, 10)])
    trace(other, "a", [("right", 0.9, 20)])
    trace(other, "b", [("wrong", 0.9, 20)])
    trace(other, "c", [("right", 0.9, 20)])
    return {"one": one, "other": other}


def test_figures_by_hand(runs):
    found = compare_searches(runs, judge)
    assert found.n_problems == 2
    one, other = found.runs
    assert one.right.tolist() == [0, 1]
    assert one.oracle.tolist() == [1, 1]
    assert one.gap.mean == 0.5
    assert one.costs.tokens == 60
    assert (one.costs.policy_tokens, one.costs.scorer_tokens, one.costs.calls) == (30, 30, 6)
    assert other.right.tolist() == [1, 0]
    assert other.difference.mean == 0
    assert one.difference is None
    assert one.algorithm == "best_of_n(n=3)"


def test_curves_by_hand(runs):
    found = compare_searches(runs, judge)
    points = found.points["tokens"]
    assert points[0] == 20
    assert points[-1] == 60
    one, other = (run.curves["tokens"] for run in found.runs)

    # At 20: a is right, b wrong. At 40: both. At 60: b alone.
    def wanted(point):
        return (point >= 20) * 0.5 + (point >= 40) * 0.5 - (point >= 60) * 0.5

    assert [x.mean for x in one.accuracy] == [wanted(p) for p in points]
    assert [x.mean for x in other.accuracy] == [0.5 * (p >= 40) for p in points]
    assert [x.mean for x in other.difference] == [0.5 * (p >= 40) - wanted(p) for p in points]
    assert one.oracle == [0.5 * (p >= 20) + 0.5 * (p >= 40) for p in points]


def test_problems_without_reference_or_end_are_left_out(tmp_path):
    trace(tmp_path, "a", [("right", 0.5, 5)], answer=None)
    trace(tmp_path, "b", [("right", 0.5, 5)], end=False)
    with pytest.raises(NothingToMeasure, match="no problem with a reference answer"):
        compare_searches({"x": tmp_path}, judge)
    with pytest.raises(InvalidSetting, match="one or more runs"):
        compare_searches({}, judge)


def test_a_vote_without_scores_counts_its_texts(tmp_path):
    trace(tmp_path, "a", [("right", 0.5, 5), ("right", 0.4, 7)], scorer=False)
    (run,) = compare_searches({"x": tmp_path}, judge).runs
    assert run.costs.tokens == 12
    assert run.right.tolist() == [1]
