"""Ratings of several annotators: what is gathered, and what the votes come to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import InvalidRecord, InvalidSetting, LabelPolicyNeeded, UnknownName
from prmkit.formats import read_records, write_records
from prmkit.labelling import annotated, gather, merged
from prmkit.labelling.human import decide
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from strategies import TEXTS

RULES = ("majority", "unanimous", "strictest")


def rated(ratings, kind="human", *, name="p", text="step", finish="open", **meta):
    steps = tuple(Step(text=f"{text} {i}") for i in range(len(ratings)))
    return Record(
        trajectory=Trajectory(
            problem=Problem(id=name, prompt="How many?"), steps=steps, separator="\n", finish=finish
        ),
        labels=StepLabels(values=tuple(ratings), kind=kind, source="PRM800K"),
        meta=meta,
    )


def gathered(*records):
    """Records, each by an annotator of its own where it names none."""
    return gather(a for who, r in zip("abcdefgh", records, strict=False) for a in annotated(r, who))


def values(*records, rule="majority", least=1):
    (solution,) = gathered(*records)
    return merged(solution, rule=rule, least=least).labels.values


@pytest.mark.parametrize(
    ("votes", "majority", "unanimous", "strictest"),
    [
        ([], None, None, None),
        ([0], 0, 0, 0),
        ([1, 1], 1, 1, 1),
        ([1, -1], None, None, -1),
        ([1, 0, -1], None, None, -1),
        ([1, 1, -1], 1, None, -1),
        ([0, 1, 0], 0, None, 0),
        ([1, 1, -1, -1], None, None, -1),
        ([1, 1, -1, 0], None, None, -1),
        ([-1, -1, -1, 1], -1, None, -1),
    ],
)
def test_what_votes_come_to(votes, majority, unanimous, strictest):
    for rule, expected in zip(RULES, (majority, unanimous, strictest), strict=True):
        assert decide(votes, rule) == expected


def test_a_record_worked_by_hand():
    given_by = [
        rated((1, 0, -1, None), labeler="mia", total_time=5, split="x"),
        rated((1, 1, -1, None), labeler="ben", total_time=9, split="x"),
        rated((1, 1, 1, 0), labeler="zoe", split="x"),
    ]
    (solution,) = gathered(*given_by)
    assert solution.votes == [[1, 1, 1], [1, 0, 1], [-1, -1, 1], [0]]
    record = merged(solution, least=2)
    assert record.labels == StepLabels(
        values=(1, 1, -1, None),
        kind="human",
        certainty=(1, 2 / 3, 2 / 3, None),
        source="majority of 3 annotators",
    )
    assert record.meta == {
        "split": "x",
        "annotators": {
            "ben": {"ratings": [1, 1, -1, None], "meta": {"total_time": 9}},
            "mia": {"ratings": [1, 0, -1, None], "meta": {"total_time": 5}},
            "zoe": {"ratings": [1, 1, 1, 0]},
        },
    }
    assert record.trajectory == given_by[0].trajectory


def test_who_stopped_at_the_first_error_has_no_vote_behind_it():
    went_on = rated((1, 1, -1, -1), finish="answer")
    stopped = rated((1, -1))
    left_out = rated((1, -1, None, None))
    for other in (stopped, left_out):
        assert values(other, went_on, other) == (1, -1, -1, -1)
        assert values(other, went_on, other, least=2) == (1, -1, None, None)
    (solution,) = gathered(stopped, went_on)
    assert solution.trajectory == went_on.trajectory
    assert solution.ratings == {"a": (1, -1, None, None), "b": (1, 1, -1, -1)}


def test_how_the_solution_ended_is_told_by_whom_who_saw_its_end():
    pair = [rated((1, 1), labeler="ann"), rated((1, 1), labeler="ben", finish="answer")]
    for given_by in (pair, pair[::-1]):
        (solution,) = gathered(*given_by)
        assert solution.trajectory.finish == "answer"


def test_a_finished_solution_is_no_beginning_of_a_longer_one():
    short, long = rated((1, 1), finish="answer"), rated((1, 1, 1), finish="answer")
    assert [len(s.trajectory.steps) for s in gathered(short, long)] == [2, 3]


def test_a_beginning_is_part_of_every_whole_solution_and_of_no_other_beginning():
    whole = [
        rated((1, 1, 1, value), finish="answer").model_copy(
            update={
                "trajectory": rated((1,) * 4, finish="answer").trajectory.model_copy(
                    update={"steps": (*rated((1,) * 3).trajectory.steps, Step(text=end))}
                )
            }
        )
        for value, end in ((1, "so 7"), (-1, "so 8"))
    ]
    for order in itertools.permutations([rated((0,)), rated((1, 0)), *whole]):
        found = gathered(*order)
        assert sorted(s.trajectory.steps[-1].text for s in found) == ["so 7", "so 8"]
        assert [s.votes[:2] for s in found] == [[s.votes[0], s.votes[1]] for s in found]
        assert {tuple(sorted(s.votes[0])) for s in found} == {(0, 1, 1)}
        assert {tuple(sorted(s.votes[1])) for s in found} == {(0, 1)}


def test_solutions_are_known_by_their_text_and_not_by_their_ids():
    assert len(gathered(rated((1,), name="x-1"), rated((0,), name="y-9"))) == 1
    assert len(gathered(rated((1,)), rated((0,), text="other"))) == 2
    other = Problem(id="p", prompt="How few?")
    moved = rated((1,))
    moved = moved.replace(trajectory=moved.trajectory.model_copy(update={"problem": other}))
    assert len(gathered(rated((1,)), moved)) == 2


def test_the_later_of_two_sittings_holds():
    early = rated((1, 1), labeler="mia", timestamp="2022-08-29T18:41:34.1")
    late = rated((1, -1), labeler="mia", timestamp="2022-08-29T19:41:34+00:00")
    for pair in ((early, late), (late, early)):
        assert values(*pair) == (1, -1)
    assert len(gathered(early, late)[0].by) == 1


def test_two_sittings_that_no_timestamp_orders():
    first = rated((1, None, 0), labeler="mia", name="x-1")
    assert values(first, rated((1, 1), labeler="mia")) == (1, 1, 0)
    at = "2022-08-29T18:41:34"
    for one, other in (({}, {}), ({"timestamp": at}, {}), ({"timestamp": at}, {"timestamp": at})):
        pair = [
            rated((1, 1), labeler="mia", name="x-1", **one),
            rated((1, -1), labeler="mia", name="x-2", **other),
        ]
        with pytest.raises(InvalidRecord, match=r"'mia' rates step 1 .*'x-1' and 'x-2'.* 1 and -1"):
            gathered(*pair)
    with pytest.raises(InvalidRecord, match="timestamp of the problem 'p' is 'noon'"):
        gathered(rated((1,), timestamp="noon"))


def test_hard_labels_are_ratings_and_soft_ones_are_refused():
    assert values(rated((1, 0, None), "hard")) == (1, -1, None)
    with pytest.raises(LabelPolicyNeeded, match="are soft, .*--threshold"):
        annotated(rated((0.5, 1), "soft"), "a")
    with pytest.raises(InvalidRecord, match="'p' has no labels"):
        annotated(rated((1,)).replace(labels=None), "a")


def test_bad_settings():
    (solution,) = gathered(rated((1,)))
    with pytest.raises(UnknownName, match="'majority'"):
        merged(solution, rule="majorty")
    with pytest.raises(InvalidSetting, match="least is 0"):
        merged(solution, least=0)


def test_somebody_elses_annotators_are_data():
    (solution,) = gathered(rated((1, 0), annotators=["x"], labeler=7))
    record = merged(solution)
    assert record.meta["annotators"] == {"7": {"ratings": [1, 0], "meta": {"annotators": ["x"]}}}


RATINGS = st.sampled_from([-1.0, 0.0, 1.0, None])


@st.composite
def annotations(draw, least=1):
    """Files of several annotators, each with some solutions or their beginnings."""
    found = []
    for who in "abcd"[: draw(st.integers(least, 4))]:
        for text in draw(st.sets(st.sampled_from("xyz"), min_size=1)):
            ratings = draw(st.lists(RATINGS, min_size=1, max_size=4))
            finish = "answer" if len(ratings) == 4 else "open"
            found.append(rated(ratings, text=text, finish=finish, labeler=who))
    return found


def results(records, **settings):
    solutions = gather(a for r in records for a in annotated(r, "nobody"))
    return {r.model_dump_json() for r in (merged(s, **settings) for s in solutions)}


@given(st.data(), st.sampled_from(RULES), st.integers(1, 3))
def test_the_order_of_files_does_not_matter(data, rule, least):
    records = data.draw(annotations())
    shuffled = data.draw(st.permutations(records))
    assert results(records, rule=rule, least=least) == results(shuffled, rule=rule, least=least)


@given(annotations())
def test_rules_are_ordered(records):
    for solution in gather(a for r in records for a in annotated(r, "nobody")):
        majority, unanimous, strictest = (merged(solution, rule=r).labels.values for r in RULES)
        for votes, m, u, s in zip(solution.votes, majority, unanimous, strictest, strict=True):
            assert u in (None, m)
            assert (s is None) == (not votes)
            assert m is None or s <= m


@given(annotations(), st.sampled_from(RULES))
def test_one_annotator_is_taken_at_his_word(records, rule):
    for solution in gather(a for r in records[:1] for a in annotated(r, "nobody")):
        assert merged(solution, rule=rule).labels.values == records[0].labels.values


@given(annotations(2), st.sampled_from(RULES), st.integers(1, 3))
def test_what_is_merged_can_be_merged_with_more(records, rule, least):
    cut = len(records) // 2
    first = [merged(s) for s in gather(a for r in records[:cut] for a in annotated(r, "x"))]
    assert results([*first, *records[cut:]], rule=rule, least=least) == results(
        records, rule=rule, least=least
    )


@given(st.lists(st.tuples(TEXTS, RATINGS), min_size=1, max_size=5), TEXTS, TEXTS)
def test_ratings_and_annotators_survive_prm800k(tmp_path_factory, steps, question, who):
    ratings = tuple(rating for _, rating in steps)
    trajectory = Trajectory(
        problem=Problem(id="p", prompt=question, answer="7"),
        steps=tuple(Step(text=text) for text, _ in steps),
        separator="\n",
    )
    if all(r is None for r in ratings):
        return
    record = Record(
        trajectory=trajectory,
        labels=StepLabels(values=ratings, kind="human", source="PRM800K"),
        meta={"labeler": who, "timestamp": "2022-08-29T18:41:34"},
    )
    other = record.replace(
        labels=StepLabels(values=(1.0,) * len(ratings), kind="human"), meta={"labeler": f"{who}!"}
    )
    (solution,) = gather([*annotated(record, "x"), *annotated(other, "y")])
    path = tmp_path_factory.mktemp("prm800k") / "a.jsonl"
    both = [record, merged(solution, rule="strictest")]
    write_records(both, path, "prm800k")
    again = list(read_records(path))
    assert [r.labels.values for r in again] == [r.labels.values for r in both]
    assert [r.trajectory.steps for r in again] == [trajectory.steps] * 2
    assert [r.trajectory.problem for r in again] == [trajectory.problem] * 2
    assert again[0].meta["labeler"] == who
    (back,) = gather(annotated(again[1], "z"))
    assert back.ratings == solution.ratings
