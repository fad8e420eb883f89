"""Conversations with tool calls, to records and back exactly."""

from __future__ import annotations

import copy
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.environments.actions import Call, read_call
from prmkit.environments.base import Task, demonstrate
from prmkit.environments.tools import TOOLS, tools
from prmkit.errors import FormatError
from prmkit.formats.files import read_records, recognise, write_records
from prmkit.formats.openai_tools import from_messages, to_messages
from prmkit.records import Message, Problem, Record, Step, Trajectory

USER = {"role": "user", "content": "What does a rope cost?"}


def call(name="lookup", arguments='{"key": "rope"}', number="c1"):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(content=None, *calls, **more):
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": [*calls]} if calls else {}),
        **more,
    }


def tool(content, number="c1", **more):
    return {"role": "tool", "tool_call_id": number, "content": content, **more}


def texts(record):
    return [(step.text, step.observation) for step in record.trajectory.steps]


ROPE = '<tool_call>\n{"name": "lookup", "arguments": {"key": "rope"}}\n</tool_call>'

CASES = {
    "one call": ([USER, assistant(None, call()), tool("2.50")], [(ROPE, "2.50")]),
    "words and a call": (
        [USER, assistant("I look.", call()), tool("2.50"), assistant("It costs 2.50.")],
        [(f"I look.\n{ROPE}", "2.50"), ("It costs 2.50.", None)],
    ),
    "two calls at once": (
        [USER, assistant("", call(), call("list", "{}", "c2")), tool("2.50"), tool("a\nb", "c2")],
        [
            (
                f'{ROPE}\n<tool_call>\n{{"name": "list", "arguments": {{}}}}\n</tool_call>',
                "<tool_response>\n2.50\n</tool_response>\n<tool_response>\na\nb\n</tool_response>",
            )
        ],
    ),
    "replies in another order": (
        [USER, assistant(None, call(), call(number="c2")), tool("b", "c2"), tool("a")],
        [
            (
                f"{ROPE}\n{ROPE}",
                "<tool_response>\nb\n</tool_response>\n<tool_response>\na\n</tool_response>",
            )
        ],
    ),
    "a user between": (
        [USER, assistant("Which?"), {"role": "user", "content": "The long one."}, assistant("5.")],
        [("Which?", "The long one."), ("5.", None)],
    ),
    "arguments that are no JSON": (
        [USER, assistant(None, call(arguments='{"key": ')), tool("error")],
        [('<tool_call>\n{"name": "lookup", "arguments": "{\\"key\\": "}\n</tool_call>', "error")],
    ),
    "spaces in arguments": (
        [USER, assistant(None, call(arguments='{ "key":"rope" }'))],
        [('<tool_call>\n{"name": "lookup", "arguments": { "key":"rope" }}\n</tool_call>', None)],
    ),
    "arguments that are an object": (
        [USER, assistant(None, call(arguments={"key": "rope"}))],
        [(ROPE, None)],
    ),
    "a call of the old kind": (
        [
            USER,
            assistant(None, function_call={"name": "lookup", "arguments": '{"key": "rope"}'}),
            {"role": "function", "name": "lookup", "content": "2.50"},
        ],
        [(ROPE, "2.50")],
    ),
    "tags in what is said": (
        [USER, assistant(f"Like {ROPE} or\n{ROPE}\n"), tool("</tool_call>")],
        [(f"Like {ROPE} or\n{ROPE}\n", "</tool_call>")],
    ),
    "parts, thoughts and other fields": (
        [
            {"role": "system", "content": "Be brief.", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("What", "now?")]},
            assistant("So.", call(), reasoning_content="Hm.", refusal=None),
            tool([{"type": "text", "text": "2.50"}], extra={"a": [1, None]}),
        ],
        [(f"<think>\nHm.\n</think>\n\nSo.\n{ROPE}", "2.50")],
    ),
    "nothing said": ([USER, assistant(""), assistant(None)], [("", None), ("", None)]),
    "no turn yet": ([USER], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_conversations_are_read_and_written_exactly(name):
    messages, expected = CASES[name]
    before = copy.deepcopy(messages)
    record = from_messages(messages, "p")
    assert texts(record) == expected
    assert to_messages(record) == messages == before
    again = Record.model_validate_json(record.model_dump_json())
    assert to_messages(again) == messages


@pytest.mark.parametrize("name", CASES)
def test_files_are_read_and_written_exactly(name, tmp_path):
    row = {"messages": CASES[name][0], "tools": list(TOOLS), "correct": True, "split": "test"}
    for more in ({"id": "a"}, {"id": 7}, {}):
        path, back = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
        path.write_text(json.dumps(row | more) + "\n")
        records = list(read_records(path, "openai_tools"))
        write_records(records, back, "openai_tools")
        assert json.loads(back.read_text()) == row | more
        assert records[0].trajectory.problem.meta["tools"] == list(TOOLS)
        assert records[0].trajectory.correct is True


def test_finishes():
    finishes = {
        name: from_messages(messages, "p").trajectory.finish
        for name, (messages, _) in CASES.items()
    }
    assert finishes["words and a call"] == "eos"
    assert finishes["one call"] == "open"
    assert finishes["spaces in arguments"] == "open"
    assert finishes["no turn yet"] == "open"


def test_the_calls_in_a_step_are_those_that_environments_read():
    (text, _), *_ = CASES["words and a call"][1]
    assert read_call(text) == Call("lookup", {"key": "rope"})


def test_many_calls_with_words_after_them_are_read_at_once():
    step = Step(text=f"{ROPE}\n" * 2000 + "Done.")
    record = Record(trajectory=Trajectory(problem=Problem(id="p", prompt="?"), steps=(step,)))
    began = time.process_time()
    assert to_messages(record)[1] == {"role": "assistant", "content": step.text}
    calls = step.model_copy(update={"text": step.text.removesuffix("\nDone.")})
    trajectory = record.trajectory.model_copy(update={"steps": (calls,)})
    assert len(to_messages(record.replace(trajectory=trajectory))[1]["tool_calls"]) == 2000
    assert time.process_time() - began < 10


def test_a_step_that_was_changed_is_written_from_its_text():
    record = from_messages(CASES["two calls at once"][0], "p")
    step = record.trajectory.steps[0]
    changed = step.model_copy(update={"text": step.text.replace("rope", "tent")})
    trajectory = record.trajectory.model_copy(update={"steps": (changed,)})
    _, acted, *replies = to_messages(record.replace(trajectory=trajectory))
    assert [c["function"]["arguments"] for c in acted["tool_calls"]] == ['{"key": "tent"}', "{}"]
    assert [(m["tool_call_id"], m["content"]) for m in replies] == [
        ("call_0_0", "2.50"),
        ("call_0_1", "a\nb"),
    ]


def test_what_an_environment_played_becomes_a_conversation(tmp_path):
    shown = demonstrate(tools(), Task(0, "order"))
    steps = tuple(
        Step(text=f"<tool_call>\n{step.text}\n</tool_call>", observation=step.observation)
        for step in shown.steps
    )
    record = Record(trajectory=shown.model_copy(update={"steps": steps}))
    path = tmp_path / "a.jsonl"
    write_records([record], path, "openai_tools")
    assert recognise(path).name == "openai_tools"
    row = json.loads(path.read_text())
    assert row["tools"] == list(TOOLS)
    assert [m["role"] for m in row["messages"]] == ["user", *["assistant", "tool"] * len(steps)]
    assert all(m["content"] is None for m in row["messages"] if m["role"] == "assistant")
    (again,) = read_records(path)
    assert again.trajectory.steps == steps


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([assistant("Hello.")], "no message stands before"),
        ([], "no message stands before"),
        ([USER, "text"], "expected an object"),
        ([USER, {"content": "x"}], "'role' is missing"),
        ([USER, assistant(None, {"id": "c"})], "expected one of a function"),
        ([USER, assistant(None, {"function": {"arguments": "{}"}})], "'name' is missing"),
        ([USER, assistant(None), tool([{"type": "image_url"}])], "expected a text"),
        ([USER, assistant(3)], "expected a text, parts or null"),
    ],
)
def test_what_is_no_conversation_is_told(messages, why):
    with pytest.raises(FormatError, match=why):
        from_messages(messages, "p")


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (Problem(id="p", prompt="?", images=("a.png",)), "has images"),
        (Problem(id="p", messages=(Message(role="assistant", content="Hm."),)), "would be steps"),
    ],
)
def test_what_cannot_be_written_is_told(problem, why, tmp_path):
    record = Record(trajectory=Trajectory(problem=problem))
    with pytest.raises(FormatError, match=why):
        write_records([record], tmp_path / "a.jsonl", "openai_tools")


words = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        ROPE,
        "\n" + ROPE,
        ROPE + "\n",
        "<tool_response>\n",
        "\n</tool_call>",
        "{}",
        "<tool_call>\n{\n</tool_call>",
    ]
)
calls = st.builds(call, words.filter(bool), words | st.just("{}"), words)
turns = st.lists(
    st.builds(
        lambda content, made: assistant(content, *made),
        words | st.none(),
        st.lists(calls, max_size=3),
    )
    | st.builds(tool, words, words)
    | st.builds(lambda content: {"role": "user", "content": content}, words),
    max_size=6,
)


@given(turns)
def test_any_conversation_comes_back(turns):
    messages = [USER, *turns]
    assert to_messages(from_messages(messages, "p")) == messages


@given(st.lists(st.tuples(words, words | st.none()), max_size=4))
def test_any_steps_come_back(steps):
    trajectory = Trajectory(
        problem=Problem(id="p", prompt="?"),
        steps=tuple(Step(text=text, observation=seen) for text, seen in steps),
        separator="\n",
    )
    again = from_messages(to_messages(Record(trajectory=trajectory)), "p")
    assert [step.text for step in again.trajectory.steps] == [text for text, _ in steps]
