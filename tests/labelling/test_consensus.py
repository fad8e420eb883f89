"""Consensus of two labellers, against a table worked by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.cli import main
from prmkit.errors import InvalidRecord, InvalidSetting
from prmkit.formats.files import read_records, write_records
from prmkit.labelling import consensus, places
from prmkit.labelling.consensus import right_steps
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory


def record(values, kind="hard", name="p", text="step", n=None):
    steps = tuple(Step(text=f"{text} {i}\n") for i in range(n or len(values or ())))
    labels = None if values is None else StepLabels(values=values, kind=kind)
    problem = Problem(id=name, prompt="How many?", answer="7")
    return Record(trajectory=Trajectory(problem=problem, steps=steps), labels=labels)


def outcome(first, other):
    (agreed,) = consensus([first], places([other]))
    assert agreed.record == first
    return agreed.outcome


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ((1, 0, 0), (1, 0, None), "agree"),
        ((1, 0, 1), (1, 0, 0), "agree"),
        ((1, 1, 1), (1, 1, 1), "agree"),
        ((0, 0, 0), (0, None, None), "agree"),
        ((1, 1, 0), (1, 0, 0), "earlier"),
        ((0, 0, 0), (1, 0, 0), "later"),
        ((1, 1, 0), (1, 1, 1), "no error"),
        ((1, 1, 1), (1, 1, 0), "an error"),
        ((1, None, 0), (1, 1, 0), "undecided"),
        ((1, 1, 1), (1, 1, None), "undecided"),
        ((), (), "agree"),
    ],
)
def test_outcomes(first, other, expected):
    assert outcome(record(first), record(other)) == expected


def test_kinds_are_compared_by_their_first_wrong_step():
    assert outcome(record((0.5, 0.125, 0), "soft"), record((1, 0, -1), "human")) == "agree"
    assert outcome(record((0.5, 0, 0), "soft"), record((1, 0, -1), "human")) == "later"


def test_solutions_are_known_by_their_text():
    ours = [record((1, 0), text="a"), record((1, 0), text="b"), record(None, text="a", n=2)]
    others = [record(None, text="b", n=2), record((1, 0), text="a"), record((1, 0), text="a")]
    assert [a.outcome for a in consensus(ours, places(others))] == ["agree", *["not labelled"] * 2]
    assert outcome(record((1, 0), name="p"), record((1, 0), name="q")) == "not labelled"


def test_contradictory_labels_of_one_solution_are_refused():
    twice = [record((1, 0)), record((1, 1))]
    with pytest.raises(InvalidRecord, match="labelled twice, with 1 right steps and 2 right steps"):
        places(twice)
    with pytest.raises(InvalidRecord, match="with 1 right steps and an open step"):
        places([record((1, 0)), record((1, None))])


VALUES = st.lists(st.sampled_from([0.0, 1.0, None]), max_size=6).map(tuple)
MIRRORED = {"earlier": "later", "later": "earlier", "no error": "an error", "an error": "no error"}


@given(st.data())
def test_it_is_symmetric(data):
    first = data.draw(VALUES)
    other = data.draw(st.tuples(*[st.sampled_from([0.0, 1.0, None])] * len(first)))
    found = outcome(record(first), record(other))
    assert outcome(record(other), record(first)) == MIRRORED.get(found, found)
    assert (found == "agree") == (
        right_steps(record(first).labels) is not None
        and right_steps(record(first).labels) == right_steps(record(other).labels)
    )


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code


@pytest.fixture
def labelled(tmp_path):
    """Solutions labelled by two rollouts of each prefix; then somebody else's labels."""
    assert run("sample", "--limit", 3, "--samples", 3, "--out", tmp_path / "sampled") == 0
    once = tmp_path / "once"
    arguments = ("label", tmp_path / "sampled" / "records.jsonl", "--rollouts", 2, "--out")
    assert run(*arguments, once) == 0
    records = list(read_records(once / "records.jsonl"))
    flipped = [
        r.replace(labels=StepLabels(values=(0.0,) * len(r.trajectory.steps), kind="hard"))
        for r in records[:4]
    ]
    write_records([*flipped, *records[4:8]], tmp_path / "others.jsonl")
    return arguments, tmp_path, records


def expected_outcomes(records):
    known = [0] * 4 + [right_steps(r.labels) for r in records[4:8]]
    found = [
        "agree" if right_steps(r.labels) == k else None
        for r, k in zip(records, known, strict=False)
    ]
    return [*found, "not labelled"]


def test_prm_label_drops_what_others_do_not_agree_with(labelled):
    arguments, folder, records = labelled
    others = ("--consensus", folder / "others.jsonl")
    assert run(*arguments, folder / "dropped", *others) == 0
    kept = list(read_records(folder / "dropped" / "records.jsonl"))
    dropped = list(read_records(folder / "dropped" / "dropped.jsonl"))
    expected = expected_outcomes(records)
    assert kept == [r for r, e in zip(records, expected, strict=False) if e == "agree"]
    assert len(kept) >= 4
    assert [d.replace(meta={}) for d in dropped] == [
        r.replace(meta={}) for r, e in zip(records, expected, strict=False) if e != "agree"
    ]
    assert dropped[-1].meta["consensus"] == "not labelled"
    metrics = json.loads((folder / "dropped" / "metrics.json").read_text())
    assert metrics["solutions"] == 9
    assert metrics["consensus: agree"] == len(kept)
    assert sum(v for k, v in metrics.items() if k.startswith("consensus")) == 9


def test_prm_label_marks_them(labelled):
    arguments, folder, records = labelled
    others = ("--consensus", folder / "others.jsonl", "--on-disagreement", "mark")
    assert run(*arguments, folder / "marked", *others) == 0
    marked = list(read_records(folder / "marked" / "records.jsonl"))
    assert not (folder / "marked" / "dropped.jsonl").exists()
    assert [m.labels for m in marked] == [r.labels for r in records]
    assert ["consensus" not in m.meta for m in marked] == [
        e == "agree" for e in expected_outcomes(records)
    ]


def test_others_that_label_none_of_the_solutions_are_refused_before_any_work(labelled, capsys):
    arguments, folder, records = labelled
    write_records([r.replace(labels=None) for r in records], folder / "bare.jsonl")
    write_records([record((1, 0), name="elsewhere")], folder / "elsewhere.jsonl")
    for name in ("bare.jsonl", "elsewhere.jsonl"):
        assert run(*arguments, folder / "refused", "--consensus", folder / name) == 1
        told = " ".join(capsys.readouterr().err.split())
        assert "labels none of the 9 solutions" in told
        assert not (folder / "refused").exists()


def test_marking_without_others_is_refused(tmp_path):
    from prmkit.cli.label import LabelSettings

    with pytest.raises(InvalidSetting, match="no meaning without consensus"):
        LabelSettings(tmp_path / "x", on_disagreement="mark")
