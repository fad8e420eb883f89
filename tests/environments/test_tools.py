"""The world of tools: what each tool does, and when a task is solved."""

from __future__ import annotations

import json

import pytest

from prmkit.environments.base import Task, demonstrate
from prmkit.environments.tools import KINDS, LONGEST_FILE, MOST_FILES, Goal, State, ToolWorld, tools
from prmkit.records import Problem

PROBLEM = Problem(id="any", prompt="")
STATE = State(
    {"prices": {"rope": "2.50"}}, {"a.txt": "hello", "empty.txt": ""}, Goal("7.5", None, ())
)


def did(name, state=STATE, /, **arguments):
    state, reply = ToolWorld().act(state, json.dumps({"name": name, "arguments": arguments}))
    return state, reply


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("calculator", {"expression": "3 * 2.50"}, "7.5"),
        ("calculator", {"expression": "1/0"}, "error: division by zero"),
        ("lookup", {"table": "prices", "key": "rope"}, "2.50"),
        (
            "lookup", {"table": "prices", "key": "tent"},
            "error: no entry 'tent' in prices; there are: rope",
        ),
        ("lookup", {"table": "x", "key": "tent"}, "error: no table 'x'; there are: prices"),
        ("list_files", {}, "a.txt, empty.txt"),
        ("read_file", {"name": "a.txt"}, "hello"),
        ("read_file", {"name": "empty.txt"}, "(the file is empty)"),
        ("read_file", {"name": "../etc"}, "error: no file '../etc'; there are: a.txt, empty.txt"),
        (
            "write_file", {"name": "b", "content": "x" * (LONGEST_FILE + 1)},
            "error: a file has at most 10000 characters",
        ),
        (
            "write_file", {"name": "", "content": ""},
            "error: a file's name has 1 to 60 printable characters",
        ),
        (
            "nothing", {},
            "error: there is no tool 'nothing'; known: calculator, lookup, list_files, read_file, "
            "write_file, answer",
        ),
    ],
)  # fmt: skip
def test_what_tools_answer(name, arguments, said):
    state, reply = did(name, **arguments)
    assert reply == (said, False, None, 0.0)
    assert state is STATE


def test_files_are_written_and_replaced_in_a_new_state():
    state, reply = did("write_file", name="b.txt", content="one")
    state, _ = did("write_file", state, name="a.txt", content="two")
    assert reply.observation == "'b.txt' is written."
    assert state.files == {"a.txt": "two", "b.txt": "one", "empty.txt": ""}
    assert STATE.files == {"a.txt": "hello", "empty.txt": ""}


def test_there_is_an_end_of_files():
    state = STATE
    for i in range(MOST_FILES - 2):
        state, reply = did("write_file", state, name=f"{i}", content="")
        assert not reply.observation.startswith("error")
    assert did("write_file", state, name="x", content="")[1].observation.startswith(
        "error: there are"
    )
    assert "written" in did("write_file", state, name="a.txt", content="")[1].observation


@pytest.mark.parametrize(
    ("given", "expected", "right"),
    [
        ("7.5", "7.5", True),
        (" 7.50 ", "7.5", True),
        ("15/2", "7.5", True),
        ("7.4", "7.5", False),
        ("", "7.5", False),
        ("seven", "7.5", False),
        ("ada", "Ada", True),
        ("0123", "123", True),
    ],
)
def test_when_an_answer_is_right(given, expected, right):
    _, reply = did("answer", STATE._replace(goal=Goal(expected, None, ())), answer=given)
    assert (reply.done, reply.success, reply.reward) == (True, right, float(right))


def test_where_a_file_counts_the_answer_does_not():
    state = STATE._replace(goal=Goal("7.5", "invoice.txt", ()))
    assert did("answer", state, answer="7.5")[1].success is False
    state, _ = did("write_file", state, name="invoice.txt", content="7.50\n")
    assert did("answer", state, answer="done")[1].success is True


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_way_that_gets_there(kind):
    seen = set()
    for seed in range(25):
        shown = demonstrate(tools(), Task(seed, kind))
        assert shown.correct
        assert not any(step.observation.startswith("error") for step in shown.steps)
        seen.add(shown.model_copy(update={"problem": PROBLEM}).key)
    assert len(seen) == 25
