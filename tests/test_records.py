import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prmkit.records import (
    Problem,
    Record,
    Step,
    StepLabels,
    StepScores,
    Trajectory,
    json_schema,
)
from strategies import TEXTS, records, trajectories

PROBLEM = Problem(id="p", prompt="1 + 1?")


@given(records())
def test_written_then_read_is_the_same(record):
    text = record.model_dump_json()
    json.loads(text)
    assert Record.model_validate_json(text) == record


@given(st.lists(TEXTS), st.sampled_from(["", "\n", " ки\n"]))
def test_steps_join_back_exactly(texts, separator):
    trajectory = Trajectory(
        problem=PROBLEM, steps=tuple(Step(text=t) for t in texts), separator=separator
    )
    assert trajectory.text == separator.join(texts)
    again = Trajectory.model_validate_json(trajectory.model_dump_json())
    assert again.text == trajectory.text


@given(trajectories(min_steps=1), st.data())
def test_prefixes(trajectory, data):
    n = data.draw(st.integers(0, len(trajectory.steps)))
    prefix = trajectory.prefix(n)
    assert prefix.steps == trajectory.steps[:n]
    assert (prefix.finish, prefix.answer, prefix.correct) == ("open", None, None)
    with pytest.raises(ValueError, match=f"prefix of {len(trajectory.steps) + 1} steps"):
        trajectory.prefix(len(trajectory.steps) + 1)


@given(trajectories(), trajectories())
def test_keys_are_equal_for_equal_trajectories_alone(a, b):
    assert (a.key == b.key) == (a == b)
    assert Trajectory.model_validate_json(a.model_dump_json()).key == a.key


def test_the_key_is_what_another_machine_gets():
    # Computed once by hand from the JSON: a change breaks every ledger there is.
    import hashlib

    trajectory = Trajectory(problem=PROBLEM, steps=(Step(text="2"),))
    assert trajectory.model_dump_json() == (
        '{"version":1,"problem":{"id":"p","prompt":"1 + 1?","messages":null,"answer":null,'
        '"images":[],"meta":{}},"steps":[{"text":"2","observation":null}],"separator":"",'
        '"finish":"open","answer":null,"correct":null,"generator":null}'
    )
    assert trajectory.key == hashlib.sha256(trajectory.model_dump_json().encode()).hexdigest()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Problem(id="p"), "exactly one of 'prompt'"),
        (lambda: Problem(id="p", prompt="q", messages=()), "exactly one of 'prompt'"),
        (lambda: Problem(id="p", prompt="q", colour="red"), "Extra inputs"),
        (lambda: Problem(id="p", prompt="\ud800"), "half of a surrogate pair"),
        (lambda: Problem(id="p", prompt="", meta={"a": ["\ud800"]}), "half of a surrogate pair"),
        (lambda: Problem(id="p", prompt="q", meta={"a": [float("nan")]}), "finite number"),
        (lambda: StepLabels(values=(0.5,), kind="hard"), "hard labels are 0 or 1"),
        (lambda: StepLabels(values=(2.0,), kind="soft"), r"soft labels are in \[0, 1\]"),
        (lambda: StepLabels(values=(0.5,), kind="human"), "-1, 0 or 1"),
        (lambda: StepLabels(values=(1,), kind="hard", trials=(1,)), "come together"),
        (
            lambda: StepLabels(values=(1,), kind="hard", successes=(3,), trials=(2,)),
            "3 successes of 2 trials",
        ),
        (
            lambda: StepScores(values=(1.5,), semantics="correctness", model="m"),
            r"probability in \[0, 1\]",
        ),
        (
            lambda: StepScores(values=(float("inf"),), semantics="value", model="m"),
            "finite number",
        ),
        (
            lambda: Record(
                trajectory=Trajectory(problem=PROBLEM),
                labels=StepLabels(values=(1,), kind="hard"),
            ),
            "1 labels for 0 steps",
        ),
        (
            lambda: Record(
                trajectory=Trajectory(problem=PROBLEM),
                scores=(StepScores(values=(1,), semantics="value", model="m"),),
            ),
            "1 scores by 'm' for 0 steps",
        ),
    ],
)
def test_what_breaks_a_contract_is_refused(build, message):
    with pytest.raises(ValidationError, match=message):
        build()


def test_records_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        PROBLEM.prompt = "2 + 2?"


def test_first_error():
    assert StepLabels(values=(1, 0, 0), kind="hard").first_error == 1
    assert StepLabels(values=(1, 0.0, 0.3), kind="soft").first_error == 1
    assert StepLabels(values=(1, 0, -1), kind="human").first_error == 2
    assert StepLabels(values=(1, None), kind="hard").first_error is None


@given(records())
def test_json_schema_names_every_field(record):
    schema = json_schema()
    definitions = {**schema["$defs"], "Record": schema}
    dumped = record.model_dump(mode="json")
    assert set(dumped) == set(definitions["Record"]["properties"])
    assert set(dumped["trajectory"]) == set(definitions["Trajectory"]["properties"])
    assert set(dumped["trajectory"]["problem"]) == set(definitions["Problem"]["properties"])
    assert all(
        d.get("additionalProperties") is False for n, d in definitions.items() if "properties" in d
    )
