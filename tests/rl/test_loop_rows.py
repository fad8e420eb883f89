"""Rows of a run and what its steps draw, against what was seen of them on the way."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from test_loop import PROBLEMS, Counts, even, plan

from prmkit.policies.sampling import Outcome
from prmkit.rl import practice
from prmkit.rl.loop import train_policy


@pytest.fixture
def seen(monkeypatch):
    """All that is drawn: by whom, how, and what comes of it."""
    kept = {"roll_out": [], "are_right": []}

    def watched(name):
        original = getattr(practice, name)

        def call(drawing, problems, n, settings, seed, *more):
            found = original(drawing, problems, n, settings, seed, *more)
            voice = [w.clone() for w in drawing.policy._model.parameters()]
            ids = [p.id for p in problems]
            kept[name].append(
                {"n": n, "how": settings, "seed": seed, "ids": ids, "found": found, "voice": voice}
            )
            return found

        monkeypatch.setattr(practice, name, call)

    for name in kept:
        watched(name)
    return kept


def run(out, judge=even, held_out=(), scorer=None, **changes):
    changes["rollouts"] = {
        "problems": 3, "samples": 4, "max_new_tokens": 16, "temperature": 0.7, "split": "line",
    }  # fmt: skip
    found = train_policy(PROBLEMS, plan(out, **changes), judge, scorer=scorer, held_out=held_out)
    return [row for row in found.rows if row["step"]]


def test_what_steps_draw(tmp_path, seen):
    run(tmp_path / "a")
    drawn = seen["roll_out"]
    assert [one["n"] for one in drawn] == [4] * 3
    assert {(one["how"].temperature, one["how"].max_new_tokens) for one in drawn} == {(0.7, 16)}
    assert len({one["seed"] for one in drawn}) == 3
    # By the weights as they are after each step.
    for before, after in pairwise(drawn):
        assert not all(map(torch.equal, before["voice"], after["voice"]))
    run(tmp_path / "b", run={"seed": 1})
    assert {one["seed"] for one in drawn[:3]}.isdisjoint(one["seed"] for one in drawn[3:])
    # Another order of the problems, too.
    assert [one["ids"] for one in drawn[:3]] != [one["ids"] for one in drawn[3:]]


def test_what_is_watched_is_what_is_paid(tmp_path, seen):
    rows = run(tmp_path, scorer=Counts(), run={"algorithm": "rloo"}, rewards={"reward": "progress"})
    for row, one in zip(rows, seen["roll_out"], strict=True):
        # A sum of differences from even chances on.
        paid = [r.scores.values[-1] - 0.5 for r in one["found"] if r.trajectory.steps]
        assert row["prm"] == pytest.approx(sum(paid) / len(paid))
    lengths = [sum(len(r.ids) for r in one["found"]) for one in seen["roll_out"]]
    assert [row["sampled_tokens"] for row in rows] == [sum(lengths[: i + 1]) for i in range(3)]


@pytest.mark.parametrize(
    ("algorithm", "rewards"),
    [
        ("dpo", {"reward": "score", "threshold": 0.05, "aggregate": "mean"}),
        ("grpo", {"aggregate": "mean"}),
    ],
)
def test_what_is_not_paid_is_watched_as_it_is_put_together(tmp_path, seen, algorithm, rewards):
    rows = run(tmp_path, scorer=Counts(), run={"algorithm": algorithm}, rewards=rewards)
    for row, one in zip(rows, seen["roll_out"], strict=True):
        scores = [r.scores.values for r in one["found"] if r.trajectory.steps]
        assert row["prm"] == pytest.approx(sum(sum(s) / len(s) for s in scores) / len(scores))


def test_kept_is_the_share_of_problems_that_teach(tmp_path, seen):
    def judge(problem, text):
        # Of two problems all responses are alike.
        return Outcome(None, problem.id in ("p0", "p3") or len(text) % 2 == 0)

    rows = run(tmp_path, judge)
    kept = []
    for one in seen["roll_out"]:
        groups = [one["found"][at : at + 4] for at in range(0, 12, 4)]
        right = [{r.trajectory.correct for r in group if r.ids} for group in groups]
        kept.append(sum(len(own) == 2 for own in right) / 3)
    assert [row["kept"] for row in rows] == pytest.approx(kept)
    assert 0 < min(kept) < 1


def test_an_evaluation_is_of_the_likeliest_response_and_of_samples(tmp_path, seen):
    rows = run(tmp_path, held_out=PROBLEMS[4:], run={"eval_samples": 3, "eval_every": 2, "seed": 5})
    asked = seen["are_right"]
    # At the start, after the second step and after the third.
    assert [(one["n"], one["how"].temperature) for one in asked] == [(1, 0.0), (3, 0.7)] * 3
    assert {one["how"].max_new_tokens for one in asked} == {16}
    # Two evaluations differ by the policy alone.
    assert len({one["seed"] for one in asked}) == 1
    for i, row in enumerate([row for row in rows if "eval_problems" in row], 1):
        for name, one in zip(("eval_greedy", "eval_accuracy"), asked[2 * i :], strict=False):
            assert row[name] == sum(one["found"]) / len(one["found"])
        assert len(asked[2 * i + 1]["found"]) == 6


def test_an_implicit_reward_model_says_what_it_is_compared_with(tmp_path, seen):
    changes = {
        "run": {"algorithm": "prime", "steps": 1}, "rewards": {"reward": "implicit"},
        "implicit": {"beta": 0.3}, "update": {"low": 0.0, "high": 1.0},
    }  # fmt: skip
    run(tmp_path, **changes)
    own = plan(tmp_path, **changes)
    note = json.loads((tmp_path / "prm" / "prmkit.json").read_text())
    assert (note["family"], note["beta"]) == ("log_ratio", 0.3)
    assert note["reference"] == own.run.policy
