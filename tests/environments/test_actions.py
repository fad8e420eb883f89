"""From a step's text to the action in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.environments.actions import (
    Call,
    action_of,
    check_arguments,
    parts_of,
    read_call,
    whole_text,
)
from prmkit.environments.laws import UGLY_ACTIONS
from prmkit.environments.tools import TOOLS

CALL = Call("lookup", {"table": "prices", "key": "rope"})


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("go forward", "go forward"),
        ("  go forward \n", "go forward"),
        ("Thought: it is to the left.\nAction: turn left", "turn left"),
        ("Thought:\nIt is near.\n\nAction:\npick up\n", "pick up"),
        ("REASON: near\nACTION: pick up", "pick up"),
        ("**Action:** drop", "drop"),
        ("### Action: drop\nand more words", "drop"),
        ("Action: a\nObservation: b\nAction: c", "a"),
        ("Action: a\nno, better\nAction: b", "b"),
        ("My action: is not at the start of a line", "My action: is not at the start of a line"),
        ("Action:", ""),
        ("Thought: hm\nAction:   \n  ", ""),
        ("", ""),
        (
            'Thought: x\nAction:\n{"name": "a",\n "arguments": {}}',
            '{"name": "a",\n "arguments": {}}',
        ),
    ],
)
def test_the_action_of_a_text(text, action):
    assert action_of(text) == action


def test_the_whole_text_is_the_action():
    assert whole_text(" Action: x \n") == "Action: x"


INNER = json.dumps({"table": "prices", "key": "rope"})


@pytest.mark.parametrize(
    "text",
    [
        CALL.text,
        f"I look it up.\n{CALL.text}",
        f"<tool_call>\n{CALL.text}\n</tool_call>",
        f"<tool_call>{CALL.text}",
        f"```json\n{CALL.text}\n```",
        f'{{"note": 1}} then {CALL.text}',
        json.dumps({"name": "lookup", "arguments": INNER}),
        json.dumps({"id": "c1", "function": {"name": "lookup", "arguments": INNER}}),
        json.dumps({"tool_calls": [{"function": {"name": "lookup", "arguments": INNER}}]}),
    ],
)  # fmt: skip
def test_calls_are_read(text):
    assert read_call(text) == CALL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("look up the price", "no JSON object"),
        ('{"name": "lookup"', "no JSON"),
        ('{"arguments": {}}', "no 'name'"),
        ('{"name": 3}', "no 'name'"),
        ('{"name": "a", "arguments": [1]}', "'arguments' is array"),
        ('{"name": "a", "arguments": "{"}', "no JSON"),
        ('{"name": "a", "arguments": {"x": NaN}}', "no JSON"),
        ('{"tool_calls": [{"name": "a"}, {"name": "b"}]}', "2 calls"),
        ('{"name": "a", "arguments": {"x": "\\ud800"}}', "what no text can"),
        ("x" * 200_000, "at most"),
    ],
)
def test_what_is_no_call_is_told(text, why):
    assert why in read_call(text)


@given(st.text())
def test_any_text_is_read_or_told(text):
    for one in (text, f'{{"name": "{text}"}}', f'{{"name": "a", "arguments": {text}}}'):
        assert isinstance(read_call(one), Call | str)
        assert isinstance(action_of(one), str)


@pytest.mark.parametrize("text", UGLY_ACTIONS, ids=range(len(UGLY_ACTIONS)))
def test_ugly_texts_are_told(text):
    call = read_call(text)
    assert isinstance(call, str) or check_arguments(call, TOOLS)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Call("lok", {}), "no tool 'lok'"),
        (Call("lookup", {"table": "prices"}), "needs the argument 'key'"),
        (Call("list_files", {"x": 1}), "takes no argument 'x'; it takes: none"),
        (Call("calculator", {"expression": 3}), "'expression' of calculator is number"),
        (Call("calculator", {"expression": True}), "is boolean"),
        (Call("calculator", {"expression": None}), "is null"),
    ],
)
def test_arguments_are_checked(call, why):
    assert why in check_arguments(call, TOOLS)


def test_a_right_call_passes():
    assert check_arguments(CALL, TOOLS) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go left", ("", "go left", "")),
        ("  I think.\n**Action:** go left\n", ("I think.", "go left", "")),
        ("Action: a\nObservation: b", ("", "a", "Observation: b")),
        ("Thought: none.\nAction:", ("Thought: none.", "", "")),
        ("", ("", "", "")),
        ("t\nAction: a\nb\nObservation: c\nAction: a", ("t", "a", "b\nObservation: c\nAction: a")),
        ('Action: {"a":\n 1}\n', ("", '{"a":\n 1}', "")),
    ],
)
def test_thought_and_action_apart(text, expected):
    assert parts_of(text) == expected
