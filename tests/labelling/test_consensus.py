"""Consensus of two labellers, against a table worked by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.cli import main
from prmkit.cli.label import ConsensusSettings
from prmkit.errors import InvalidRecord, InvalidSetting
from prmkit.formats.files import read_records, write_records
from prmkit.labelling import confident, consensus, places
from prmkit.labelling.consensus import right_steps
from prmkit.records import Problem, Record, Step, StepLabels, StepScores, Trajectory


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


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Solutions labelled by two rollouts of each prefix; then somebody else's labels."""
    tmp_path = tmp_path_factory.mktemp("labelled")
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_disagreement": "mark"}, "no meaning without consensus"),
        ({"sure": 0.8}, "no meaning without uncertain"),
        ({"uncertain": True, "sure": 0.4}, "it must be from 0.5 to 1"),
        ({"uncertain": True, "spread": -1}, "spread is -1"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        ConsensusSettings(**settings)


# ── what an ensemble is sure of ───────────────────────────────────────────────────────────


def scores(*values, semantics="correctness"):
    return StepScores(values=values, semantics=semantics, model="m")


def test_an_ensemble_is_sure_by_hand():
    # Means .94 and .06, deviations .008 and .008: sure of both, and the rest is not asked.
    pair = scores(0.948, 0.068, 0.5), scores(0.932, 0.052, 0.1)
    assert confident(pair)
    assert not confident(pair, spread=0.0079)
    assert not confident(pair, sure=0.945)
    # All steps right: each has to be sure.
    assert not confident([scores(0.95, 0.7), scores(0.95, 0.7)])
    assert confident([scores(0.95, 0.7), scores(0.95, 0.7)], sure=0.7)
    # Three models: the deviation of .9, .9 and .99 is the square root of .0018.
    three = [scores(0.9), scores(0.9), scores(0.99)]
    assert confident(three, spread=0.0425)
    assert not confident(three, spread=0.0424)


def test_no_ensemble_no_certainty():
    with pytest.raises(InvalidRecord, match="two models at least, and there are 1"):
        confident([scores(1.0)])
    with pytest.raises(InvalidRecord, match="of the kind log_ratio"):
        confident([scores(1.0), scores(3.0, semantics="log_ratio")])


def test_prm_label_leaves_out_what_an_ensemble_is_sure_of(labelled, capsys):
    arguments, folder, records = labelled
    n = len(records)

    def of(record, *means):
        steps = len(record.labels.values)
        return record.replace(
            labels=None, scores=[scores(*[mean] * steps) for mean in means], meta={"k": 1}
        )

    file = folder / "scored.jsonl"
    write_records(
        [of(r, 0.95, 0.95) if i < 4 else of(r, 0.6, 0.9) for i, r in enumerate(records)], file
    )
    again = [file if str(a).endswith(".jsonl") else a for a in arguments]
    assert run(*again, folder / "gated", "--uncertain") == 0
    kept = list(read_records(folder / "gated" / "records.jsonl"))
    assert [r.labels for r in kept] == [r.labels for r in records[4:]]
    assert [len(r.scores) for r in kept] == [2] * (n - 4)
    dropped = list(read_records(folder / "gated" / "dropped.jsonl"))
    assert [(d.labels, d.meta) for d in dropped] == [(None, {"k": 1, "consensus": "sure"})] * 4
    metrics = json.loads((folder / "gated" / "metrics.json").read_text())
    assert (metrics["solutions"], metrics["labelled"], metrics["sure"]) == (n, n - 4, 4)
    marks = ("--uncertain", "--on-disagreement", "mark")
    assert run(*again, folder / "sure", *marks) == 0
    marked = list(read_records(folder / "sure" / "records.jsonl"))
    assert [m.labels for m in marked] == [r.labels for r in records]
    assert ["consensus" in m.meta for m in marked] == [i < 4 for i in range(n)]
    write_records([records[0]], folder / "bare.jsonl")
    bare = [folder / "bare.jsonl" if str(a).endswith(".jsonl") else a for a in arguments]
    assert run(*bare, folder / "refused", "--uncertain") == 1
    assert "two models at least" in " ".join(capsys.readouterr().err.split())
    assert not (folder / "refused").exists()
