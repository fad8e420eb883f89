"""Labels by a judge's words, against verdicts worked out by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.embedded.judge import judge as world_judge
from prmkit.errors import InvalidSetting
from prmkit.labelling import Rollout, judge, label
from prmkit.labelling.critiques import with_verdicts
from prmkit.labelling.methods import MethodSettings
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import judge_by_answer
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory, Unscored

SOLUTION = Trajectory(
    problem=Problem(id="p", prompt="How many?", answer="SECRET"),
    steps=tuple(Step(text=t) for t in ("one", "two </paragraph_1>\n\\boxed{0}", "three", "four")),
    separator="\n",
)


def labels(*words, trajectory=SOLUTION):
    made = judge(trajectory, votes=len(words))
    (wish,) = next(made)
    assert wish.n == len(words)
    with pytest.raises(StopIteration) as done:
        made.send([[Rollout(None, text) for text in words]])
    return done.value.value


def test_the_judge_is_asked_of_the_whole_solution_and_not_told_the_answer():
    (wish,) = next(judge(SOLUTION, votes=3))
    (message,) = wish.prefix.problem.messages
    assert message.role == "user"
    for step in SOLUTION.steps:
        assert step.text in message.content
    assert "SECRET" not in message.content
    assert wish.prefix.problem.answer is None
    assert wish.prefix.steps == ()


@pytest.mark.parametrize(
    ("words", "values", "certainty"),
    [
        (["so \\boxed{2}"], (1, 1, 0, None), (1, 1, 1, None)),
        (["\\boxed{-1}"], (1, 1, 1, 1), (1, 1, 1, 1)),
        (["\\boxed{0}"], (0, None, None, None), (1, None, None, None)),
        # The last one counts: the step above holds one that a critique may quote.
        (["paragraph 1 says \\boxed{0}, but it is \\boxed{ 3 }"], (1, 1, 1, 0), (1, 1, 1, 1)),
        # Two of four see it at 2, one at 0, one nowhere: 3/4 beyond 0 and 1, and 2/4 at 2.
        (
            ["\\boxed{2}", "\\boxed{0}", "\\boxed{2}", "\\boxed{-1}"],
            (1, 1, 0, None),
            (0.75, 0.75, 0.5, None),
        ),
        # Without a verdict there is no vote.
        (["\\boxed{1}", "no idea", "\\boxed{4}"], (1, 0, None, None), (1, 1, None, None)),
    ],
)
def test_the_first_wrong_step_that_most_name(words, values, certainty):
    found = labels(*words)
    assert found.values == values
    assert found.certainty == certainty
    assert found.kind == "hard"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["it is 2"], "no critique gave a verdict: the critique names no paragraph"),
        (["\\boxed{4}", "\\boxed{-2}"], "the critique names paragraph 4 of 4"),
        (["\\boxed{two}"], "names no paragraph"),
        (["\\boxed{1}", "\\boxed{2}"], "1 and 2 right steps have 1 votes each"),
        (["\\boxed{-1}", "\\boxed{0}", "?"], "4 and 0 right steps have 1 votes each"),
    ],
)
def test_no_verdict_no_labels(words, reason):
    found = labels(*words)
    assert isinstance(found, Unscored)
    assert reason in found.reason


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12))
def test_certainties_are_shares_of_votes(places):
    found = labels(*[f"\\boxed{{{place}}}" for place in places])
    if isinstance(found, Unscored):
        ranked = sorted((places.count(p) for p in set(places)), reverse=True)
        assert ranked[0] == ranked[1]
        return
    first = found.values.index(0) if 0 in found.values else 4
    right = [4 if p == -1 else p for p in places]
    assert right.count(first) == max(right.count(p) for p in right)
    for i, sure in enumerate(found.certainty[:first]):
        assert sure == pytest.approx(sum(p > i for p in right) / len(right))


def test_a_solution_without_steps_needs_no_judge():
    made = judge(Trajectory(problem=Problem(id="p", prompt="?")), votes=1)
    with pytest.raises(StopIteration) as done:
        next(made)
    assert done.value.value.values == ()


def test_the_driver_asks_each_critique_once_and_keeps_why_there_is_no_label():
    def script(prefix, rng):
        text = prefix.problem.text
        return "I cannot tell." if "hopeless" in text else f"\\boxed{{{rng.choice([1, 1, 1, 2])}}}"

    hopeless = SOLUTION.model_copy(
        update={"problem": Problem(id="q", prompt="hopeless"), "finish": "length"}
    )
    policy = ScriptedPolicy(script)
    records = list(
        label(
            [SOLUTION, hopeless, SOLUTION],
            lambda t: judge(t, votes=9),
            policy,
            judge_by_answer,
            settings=SamplingSettings(),
        )
    )
    assert sum(n for _, n in policy.requests) == 18
    assert records[0] == records[2]
    assert records[0].labels.values == (1, 0, None, None)
    assert records[1].labels is None
    assert "no critique gave a verdict" in records[1].scores[0].reason
    assert records[1].trajectory == hopeless


def test_settings(tmp_path, prm):
    with pytest.raises(InvalidSetting, match="votes is 0"):
        next(judge(SOLUTION, votes=0))
    with pytest.raises(InvalidSetting, match="rollouts has no meaning for the method judge"):
        MethodSettings(method="judge", rollouts=3)
    arguments = ("label", "x.jsonl", "--method", "judge", "--temperature", 0)
    code, _, err = prm(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert "all 8 critiques are the same one" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_prm_label_by_a_judge(tmp_path, monkeypatch, prm):
    """The world's own judge speaks in the policy's place: its verdicts become the labels."""
    import prmkit.policies.hf as hf
    from prmkit.embedded.quickstart import split_lines
    from prmkit.formats.files import read_records

    sampled = ("sample", "--limit", 3, "--samples", 2, "--temperature", 1.2)
    assert prm(*sampled, "--out", tmp_path / "s")[0] == 0
    solutions = list(read_records(tmp_path / "s" / "records.jsonl"))
    truth = {
        r.trajectory.text: world_judge(r.trajectory.problem, split_lines(r.trajectory.text))
        for r in solutions
    }

    def script(prefix, rng):
        task = prefix.problem.text
        (found,) = {
            t.first_error
            for text, t in truth.items()
            if all(step.strip() in task for step in text.splitlines())
        }
        return "Hmm." if found == 0 else f"Thus \\boxed{{{-1 if found is None else found}}}."

    monkeypatch.setattr(hf, "HFPolicy", lambda *args, **kw: ScriptedPolicy(script))
    out = tmp_path / "out"
    file = tmp_path / "s" / "records.jsonl"
    code, _, _ = prm("label", file, "--method", "judge", "--votes", 3, "--out", out)
    n_open = sum(t.first_error == 0 for t in truth.values())
    assert n_open > 0
    assert code == 3
    for record in read_records(out / "records.jsonl"):
        first = truth[record.trajectory.text].first_error
        if first == 0:
            assert record.labels is None
            assert isinstance(record.scores[-1], Unscored)
        else:
            assert isinstance(record.labels, StepLabels)
            assert record.labels.first_error == first
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics.get("without_labels", 0) == n_open


def test_critiques_are_kept_as_what_a_judge_is_trained_on(tmp_path, monkeypatch, prm):
    """Labelled first, kept later: nothing is drawn twice, and `prm train` takes what agrees."""
    import prmkit.policies.hf as hf
    from prmkit.formats.files import read_records, write_records
    from prmkit.tiny_checkpoints import tiny_checkpoint

    def solution(i):
        steps = tuple(Step(text=text) for text in (f"{i} + 1 = 3.", "The answer is 3."))
        return Trajectory(problem=Problem(id=f"p{i}", prompt=f"{i} + 1?"), steps=steps)

    file, out = tmp_path / "solutions.jsonl", tmp_path / "out"
    write_records([Record(trajectory=solution(i)) for i in range(4)], file)
    # Of three critiques of each: agreed at 0, nobody finds a fault, a vote without a verdict, a tie
    # of two beside a paragraph that is not there.
    said = {
        0: ["\\boxed{0}", "\\boxed{0}", "\\boxed{1}"],
        1: ["\\boxed{-1}"] * 3,
        2: ["\\boxed{1}", "no idea", "\\boxed{1}"],
        3: ["\\boxed{0}", "\\boxed{1}", "\\boxed{7}"],
    }
    asked = []

    def script(prefix, rng):
        (i,) = (i for i in said if f"{i} + 1?" in prefix.problem.text)
        asked.append(i)
        return said[i][asked.count(i) - 1]

    monkeypatch.setattr(hf, "HFPolicy", lambda *args, **kw: ScriptedPolicy(script))
    command = ("label", file, "--method", "judge", "--votes", 3, "--out", out)
    assert prm(*command)[0] == 3
    assert all("critiques" not in r.meta for r in read_records(out / "records.jsonl"))
    assert prm(*command, "--keep-critiques")[0] == 3
    assert len(asked) == 12
    found = list(read_records(out / "records.jsonl"))
    assert [r.meta["critiques"] for r in found] == [[[text] for text in said[i]] for i in said]
    assert [r.meta["verdicts"] for r in found] == [[0, 0, 1], [-1] * 3, [1, None, 1], [0, 1, None]]
    assert found[3].labels is None

    base = tiny_checkpoint("judge", tmp_path / "base")
    code, told, err = prm(
        "train", out / "records.jsonl", "--kind", "generative", "--base", base, "--out",
        tmp_path / "judge", "--dry-run", "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(told)
    assert told["solutions"] == 3
    assert (told["dropped"]["disagree"], told["dropped"]["unreadable"]) == (1, 1)
    assert told["dropped"]["unlabelled"] == 1
    assert any("boxed" in example and "⟦1⟧" in example for example in told["examples"])


def test_critiques_go_behind_those_that_are_there():
    trajectory = SOLUTION
    record = Record(trajectory=trajectory, meta={"critiques": [["before"]], "verdicts": [None]})
    drawn = [Rollout(None, "\\boxed{2}"), Rollout(None, error="the server fell over")]
    kept = with_verdicts(record, drawn)
    assert kept.meta == {"critiques": [["before"], ["\\boxed{2}"]], "verdicts": [None, 2]}
    with pytest.raises(InvalidSetting, match="keep_critiques has no meaning for the method mc"):
        MethodSettings(keep_critiques=True)
