"""Labels without reference answers, against what the same rollouts give with one."""

from __future__ import annotations

import json
import random

import pytest

from prmkit.errors import InvalidSetting
from prmkit.formats.files import read_records, write_records
from prmkit.labelling import (
    Rollout,
    RolloutStore,
    monte_carlo,
    run,
    self_consistency,
    sequential,
)
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Outcome, judge_by_answer
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Record, Step, Trajectory, Unscored

STEPS = (Step(text="a\n"), Step(text="b\n"))


def solution(reference=None, **about):
    return Trajectory(problem=Problem(id="p", prompt="?", answer=reference), steps=STEPS, **about)


def four(trajectory):
    return monte_carlo(trajectory, n_rollouts=4)


def by_hand(trajectory, votes, replies, estimator=four):
    """Send answers to the votes and to each prefix; what comes of it."""
    made = self_consistency(trajectory, estimator, votes=len(votes))
    try:
        (wish,) = next(made)
        assert (wish.prefix, wish.n) == (trajectory.prefix(0), len(votes))
        wishes = made.send([[Rollout(None, answer=a) for a in votes]])
        while True:
            assert all(w.prefix.problem == trajectory.problem for w in wishes)
            wishes = made.send(
                [[Rollout(None, answer=a) for a in replies[len(w.prefix.steps)]] for w in wishes]
            )
    except StopIteration as done:
        return done.value


def test_the_majority_takes_the_place_of_the_reference():
    replies = {1: ["8", "7", "8", None], 2: ["8", "8", "9", None]}
    found = by_hand(solution(), ["7", "8", "7.0", None, "7"], replies)
    assert (found.answer, found.share) == ("7", 0.6)
    assert found.labels.values == (1, 0)
    assert found.labels.successes == (1, 0)
    assert found.labels.trials == (4, 4)
    assert found.labels.certainty == (0.6, 0.6)
    assert found.labels.source == "self-consistency, 5 votes, monte_carlo, 4 rollouts"


def test_equal_answers_are_one_answer():
    found = by_hand(solution(), ["1/2", "3", "0.5"], {1: ["\\frac{1}{2}"] * 4, 2: ["2"] * 4})
    assert (found.answer, found.share) == ("1/2", pytest.approx(2 / 3))
    assert found.labels.values == (1, 0)


def test_the_reference_and_its_verdict_are_not_looked_at():
    """The reference says 8; the rollouts say 7, and so does the solution."""
    told = solution("8", finish="eos", answer="7", correct=False)
    found = by_hand(told, ["7"] * 3, {1: ["7", "8", "8", "8"]})
    assert found.labels.values == (1, 1)
    assert found.labels.trials == (4, 1)
    other = solution("7", finish="eos", answer="8", correct=False)
    assert by_hand(other, ["7"] * 3, {1: ["8"] * 4}).labels.values == (0, 0)


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ([None, None], "none of 2 votes has an answer"),
        (["7", "8", "8", "7", "9"], "'7' and '8' have 2 votes each"),
    ],
)
def test_without_a_majority_there_are_no_labels(votes, reason):
    found = by_hand(solution("7"), votes, {})
    assert isinstance(found.labels, Unscored)
    assert reason in found.labels.reason
    assert (found.answer, found.share) == (None, None)


def test_certainties_of_the_estimator_are_kept_below_the_share():
    told = solution(None, finish="eos", answer="8")
    found = by_hand(told, ["7", "7", "8", "7"], {0: ["7"] * 4, 1: ["8"]}, sequential)
    plain = sequential(solution("7", finish="eos", answer="8", correct=False))
    (wish,) = next(plain)
    wishes = plain.send([[Rollout(True)] * wish.n])
    try:
        while True:
            wishes = plain.send([[Rollout(False)] * w.n for w in wishes])
    except StopIteration as done:
        same = done.value
    assert found.labels.values == same.values
    assert found.labels.certainty == tuple(
        None if c is None else pytest.approx(0.75 * c) for c in same.certainty
    )


def coin(prefix, rng: random.Random) -> str:
    chance = {"a": 0.6, "b": 0.1}.get(prefix.text.strip()[-1:], 0.7)
    return f"#### {7 if rng.random() < chance else rng.choice([3, 8, 9])}"


def test_where_the_majority_is_right_the_labels_are_those_with_the_reference():
    items = [
        Trajectory(problem=Problem(id=f"p{i}", prompt=f"{i}?", answer="7"), steps=STEPS)
        for i in range(30)
    ]
    policy = ScriptedPolicy(coin)
    store = RolloutStore(policy, judge_by_answer, SamplingSettings())
    plain = run([monte_carlo(t) for t in items], store)
    drawn = store.drawn
    bare = [
        t.model_copy(update={"problem": t.problem.model_copy(update={"answer": None})})
        for t in items
    ]
    own = RolloutStore(ScriptedPolicy(coin), judge_by_answer, SamplingSettings())
    assert all(
        found.labels.trials == (8, 8) and found.labels.successes != (0, 0)
        for found in run([self_consistency(t, monte_carlo) for t in bare], own)
        if found.answer == "7"
    )
    # The same problems with their reference: the rollouts are the very same ones.
    kept = run([self_consistency(t, monte_carlo) for t in items], store)
    assert store.drawn == drawn + 8 * len(items)
    right = [(k, p) for k, p in zip(kept, plain, strict=True) if k.answer == "7"]
    assert len(right) > 20
    for k, p in right:
        assert k.labels.values == p.values
        assert k.labels.successes == p.successes


def test_votes_are_refused_below_one():
    with pytest.raises(InvalidSetting, match="votes is 0"):
        next(self_consistency(solution(), monte_carlo, votes=0))


def test_prm_label_tells_agreement_and_its_calibration(tmp_path, monkeypatch, prm):
    import prmkit.policies.hf as hf

    def script(prefix, rng):
        # Of four problems: agreed and right, agreed and wrong, split, silent.
        n = int(prefix.problem.text)
        if n == 3:
            return "no idea"
        if n == 2:
            return f"#### {rng.choice([5, 7])}"
        return f"#### {[7, 6][n] if rng.random() < 0.9 else 1}"

    monkeypatch.setattr(hf, "HFPolicy", lambda *args, **kw: ScriptedPolicy(script))
    items = [
        Trajectory(
            problem=Problem(id=f"p{n}", prompt=str(n), answer="7"),
            steps=(Step(text=f"{name}\n"),),
            finish="eos",
            answer="7",
        )
        for n in range(4)
        for name in "xy"
    ]
    write_records([Record(trajectory=t) for t in items], tmp_path / "a.jsonl")
    arguments = ("label", tmp_path / "a.jsonl", "--method", "self-consistency", "--votes", 16)
    code, _, err = prm(*arguments, "--out", tmp_path / "out")
    assert code == 3, err
    records = list(read_records(tmp_path / "out" / "records.jsonl"))
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())["self_consistency"]
    shares = {r.trajectory.problem.id: r.meta["self_consistency"] for r in records}
    assert shares["p3"] == {"answer": None, "share": None}
    assert (shares["p0"]["answer"], shares["p1"]["answer"]) == ("7", "6")
    assert told["problems"] == 4
    settled = [s for s in shares.values() if s["share"] is not None]
    assert told["with_a_majority"] == told["with_a_reference"] == len(settled)
    assert told["mean_share"] == pytest.approx(
        sum(s["share"] for s in settled) / len(settled), abs=1e-4
    )
    right = [s["answer"] == "7" for s in settled]
    assert told["majority_right"] == pytest.approx(sum(right) / len(right), abs=1e-4)
    brier = sum((s["share"] - r) ** 2 for s, r in zip(settled, right, strict=True)) / len(right)
    assert told["brier"] == pytest.approx(brier, abs=1e-4)
    assert [r.labels.values for r in records[:2]] == [(1,), (1,)]
    assert [r.labels.values for r in records[2:4]] == [(0,), (0,)]
    assert "none of 16 votes" in records[6].scores[0].reason


def test_outcomes_without_answers_do_not_vote():
    def silent(problem, text):
        return Outcome(None, None)

    store = RolloutStore(ScriptedPolicy(coin), silent, SamplingSettings())
    (found,) = run([self_consistency(solution(), monte_carlo)], store)
    assert isinstance(found.labels, Unscored)
