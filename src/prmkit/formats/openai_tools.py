r"""OpenAI's chat messages with tool calls: what an agent did, and what it was answered.

    {"messages": [{"role": "user", "content": "…"},
                  {"role": "assistant", "content": null, "tool_calls": [{"id": "c1",
                   "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
                  {"role": "tool", "tool_call_id": "c1", "content": "A door."}, …],
     "tools": […]}

What stands before the first turn of the assistant is the problem; the tools are in its ``meta``.
Each turn of the assistant is a step, and what follows it up to the next one is its observation. A
step's text is the content and then each call between tags, as models write them:

    I look.
    <tool_call>
    {"name": "look", "arguments": {}}
    </tool_call>

Several replies are each between ``<tool_response>`` tags; one stands for itself. Whatever this does
not keep, such as the numbers of calls, is noted in the record's ``meta``, so that a record that was
read is written exactly as it was. Steps that were changed or made elsewhere are written from their
text.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, need
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Message, Problem, Record, Step, Trajectory

_KEYS = ("messages", "id", "answer", "correct", "model", "tools")
_KEPT = "openai_tools"
"""The key in a record's `meta` for what its text does not keep."""

_OPEN, _CLOSE = "<tool_call>\n", "\n</tool_call>"
_RESPONSE = re.compile(r"<tool_response>\n(.*?)\n</tool_response>\n?", re.S)
_BEFORE_ARGUMENTS = ', "arguments": '


def _matches(row: Mapping[str, Any]) -> bool:
    messages = row.get("messages")
    return (
        isinstance(messages, list)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
        and any(calls_tools(m) for m in messages)
    )


def calls_tools(message: Any) -> bool:
    """Whether a message calls tools or is a tool's reply."""
    return isinstance(message, Mapping) and bool(
        message.get("tool_calls")
        or message.get("function_call")
        or message.get("role") in ("tool", "function")
    )


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    data = _from_table(row.data) if row.path.suffix == ".parquet" else row.data
    record = from_messages(need(data, "messages", list), str(data.get("id", row.id)))
    kept = dict(_kept(record))
    if data.get("id") != record.trajectory.problem.id:
        kept["id"] = data.get("id")
    tools = {"tools": data["tools"]} if data.get("tools") is not None else {}
    problem = record.trajectory.problem.model_copy(
        update={"answer": data.get("answer"), "meta": tools}
    )
    trajectory = record.trajectory.model_copy(
        update={"problem": problem, "correct": data.get("correct"), "generator": data.get("model")}
    )
    meta = {**extras(data, _KEYS), **({_KEPT: kept} if kept else {})}
    found = Record(trajectory=trajectory, meta=meta)
    return [Record.model_validate(found.model_dump())]


def _from_table(data: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table, in which every message has every column, without those that it has not."""
    found: dict[str, Any] = _without_nulls(data)
    for message in found.get("messages", ()):
        if calls_tools(message):
            message.setdefault("content", None)
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def from_messages(messages: Sequence[Mapping[str, Any]], name: str) -> Record:
    """A conversation as a record.

    Args:
        messages: as OpenAI's API takes them.
        name: of the problem.

    Raises:
        FormatError: if nothing stands before the assistant's first turn, or a message cannot be
            held by a record.
    """
    for message in messages:
        if not isinstance(message, Mapping):
            raise FormatError(f"a message is {message!r:.80}; expected an object with a role")
        need(message, "role", str)
    limits = [i for i, m in enumerate(messages) if m["role"] == "assistant"] + [len(messages)]
    before = messages[: limits[0]]
    if not before:
        raise FormatError("no message stands before the assistant's; expected the question there")
    question = tuple(Message(role=m["role"], content=_content(m)) for m in before)
    kept: dict[str, Any] = {}
    if [m.model_dump() for m in question] != [dict(m) for m in before]:
        kept["question"] = [dict(m) for m in before]
    steps: list[Step] = []
    turns: dict[str, Any] = {}
    for number, (here, there) in enumerate(itertools.pairwise(limits)):
        turn = messages[here:there]
        steps.append(_step(turn))
        if _messages(steps[-1], number) != [dict(m) for m in turn]:
            turns[str(number)] = [dict(m) for m in turn]
    if turns:
        kept["turns"] = turns
    over = bool(steps) and steps[-1].observation is None and not _calls(steps[-1].text)[1]
    return Record(
        trajectory=Trajectory(
            problem=Problem(id=name, messages=question),
            steps=tuple(steps),
            separator="\n",
            finish="eos" if over else "open",
        ),
        meta={_KEPT: kept} if kept else {},
    )


def to_messages(record: Record) -> list[dict[str, Any]]:
    """The conversation that a record is: exactly the one that it was read from, if it was."""
    trajectory, kept = record.trajectory, _kept(record)
    problem = trajectory.problem
    asked = problem.messages or (Message(role="user", content=problem.text),)
    messages = [m.model_dump() for m in asked]
    there = kept.get("question")
    if there is not None and [_content(m) for m in there] == [m.content for m in asked]:
        messages = [dict(m) for m in there]
    turns = kept.get("turns", {})
    for number, step in enumerate(trajectory.steps):
        turn = turns.get(str(number))
        if turn is None or _step(turn) != step:
            turn = _messages(step, number)
        messages += [dict(m) for m in turn]
    return messages


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    trajectory, problem = record.trajectory, record.trajectory.problem
    if problem.images:
        raise FormatError(f"problem {problem.id!r} has images, which this format does not write")
    if any(message.role == "assistant" for message in problem.messages or ()):
        raise FormatError(
            f"problem {problem.id!r} has turns of the assistant: read again, they would be steps"
        )
    kept = _kept(record)
    known = {
        "id": kept.get("id", problem.id),
        "answer": problem.answer,
        "correct": trajectory.correct,
        "model": trajectory.generator,
        "tools": problem.meta.get("tools"),
    }
    meta = {key: value for key, value in record.meta.items() if key != _KEPT}
    present = {key: value for key, value in known.items() if value is not None}
    return {**meta, **present, "messages": to_messages(record)}


def _kept(record: Record) -> Mapping[str, Any]:
    kept = record.meta.get(_KEPT)
    return kept if isinstance(kept, dict) else {}


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise FormatError(f"a content is {content!r:.60}; expected a text, parts or null")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise FormatError(f"a part of a message is {part!r:.60}; expected a text")
        texts.append(need(part, "text", str))
    return "\n".join(texts)


def _step(turn: Sequence[Mapping[str, Any]]) -> Step:
    """A turn of the assistant and what follows it."""
    message, *replies = turn
    said = _content(message)
    thought = message.get("reasoning_content")
    if isinstance(thought, str) and thought:
        said = f"<think>\n{thought}\n</think>\n\n{said}"
    calls = [_rendered(call) for call in message.get("tool_calls") or ()]
    if message.get("function_call"):
        calls.append(_rendered({"function": message["function_call"]}))
    text = "\n".join([*([said] if said else []), *calls])
    if not replies:
        return Step(text=text)
    if len(replies) == 1:
        return Step(text=text, observation=_content(replies[0]))
    answers = [
        f"<tool_response>\n{_content(m)}\n</tool_response>"
        if m["role"] in ("tool", "function")
        else _content(m)
        for m in replies
    ]
    return Step(text=text, observation="\n".join(answers))


def _rendered(call: Any) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise FormatError(f"a tool call is {call!r:.80}; expected one of a function")
    name, arguments = need(function, "name", str), function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not _is_json(arguments):
        # What a model wrote instead of JSON stays to be seen.
        arguments = json.dumps(arguments, ensure_ascii=False)
    return _block(name, arguments)


def _block(name: str, arguments: str) -> str:
    called = f'{{"name": {json.dumps(name, ensure_ascii=False)}{_BEFORE_ARGUMENTS}{arguments}}}'
    return f"{_OPEN}{called}{_CLOSE}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What is said in a step's text, and its calls: names, and arguments as JSON text."""
    said, calls = text, list[tuple[str, str]]()
    while said.endswith(_CLOSE):
        at = said.rfind(_OPEN)
        if at < 0 or (at > 0 and said[at - 1] != "\n"):
            break
        block = said[at + len(_OPEN) : -len(_CLOSE)]
        try:
            name, end = json.JSONDecoder().raw_decode(block, len('{"name": '))
        except (ValueError, RecursionError):
            break
        arguments = block[end + len(_BEFORE_ARGUMENTS) : -1]
        if not isinstance(name, str) or not _is_json(arguments):
            break
        calls.insert(0, (name, arguments))
        said = said[: max(0, at - 1)]
    return said, calls


def _messages(step: Step, number: int) -> list[dict[str, Any]]:
    """The messages that a step is, by its text alone."""
    said, calls = _calls(step.text)
    blocks = [_block(name, arguments) for name, arguments in calls]
    if "\n".join([*([said] if said else []), *blocks]) != step.text:
        # White space around the calls would be lost: it stays text.
        said, calls = step.text, []
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if calls:
        message["content"] = said or None
        message["tool_calls"] = [
            {
                "id": f"call_{number}_{k}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for k, (name, arguments) in enumerate(calls)
        ]
    if step.observation is None:
        return [message]
    if not calls:
        return [message, {"role": "user", "content": step.observation}]
    answers = _RESPONSE.findall(step.observation)
    one_each = len(answers) == len(calls) > 1 and not _RESPONSE.sub("", step.observation)
    # Every call must be replied to; without a reply of its own, by nothing.
    replies = answers if one_each else [step.observation, *[""] * (len(calls) - 1)]
    return [
        message,
        *(
            {"role": "tool", "tool_call_id": call["id"], "content": reply}
            for call, reply in zip(message["tool_calls"], replies, strict=True)
        ),
    ]


FORMAT = Format(
    "openai_tools",
    "OpenAI's chat messages with tool calls; each turn of the assistant is a step",
    _matches,
    _read,
    _write,
)
