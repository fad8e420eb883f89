"""OpenAI's chat messages: the last turn of the assistant is the solution.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}

Everything before that turn is the problem. Its text is split into steps by a splitter of your
choice, blank lines by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, need
from prmkit.formats.labels import LabelPolicy
from prmkit.formats.openai_tools import calls_tools
from prmkit.records import Message, Problem, Record, Step, Trajectory
from prmkit.splitting import splitter

_KEYS = ("messages", "id", "answer", "correct", "model")


def _matches(row: Mapping[str, Any]) -> bool:
    messages = row.get("messages")
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and "role" in m and "content" in m for m in messages)
        and not any(calls_tools(m) for m in messages)
    )


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    images: list[str] = []
    turns = [_message(turn, images) for turn in need(data, "messages", list)]
    solution = turns.pop().content if turns and turns[-1].role == "assistant" else None
    if not turns:
        raise FormatError("no message stands before the assistant's; expected the question there")
    split = splitter(settings.split or "blank_line")
    trajectory = Trajectory(
        problem=Problem(
            id=str(data.get("id", row.id)),
            messages=tuple(turns),
            answer=data.get("answer"),
            images=tuple(images),
        ),
        steps=tuple(Step(text=text) for text in split(solution or "")),
        finish="open" if solution is None else "eos",
        correct=data.get("correct"),
        generator=data.get("model"),
    )
    return [Record(trajectory=trajectory, meta=extras(data, _KEYS))]


def _message(turn: Any, images: list[str]) -> Message:
    if not isinstance(turn, dict):
        raise FormatError(f"a message is {turn!r:.80}; expected an object with role and content")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise FormatError(
            "a message calls tools; the format openai_tools reads such trajectories, with what the "
            "tools answered as observations"
        )
    role, content = need(turn, "role", str), need(turn, "content", (str, list))
    if isinstance(content, str):
        return Message(role=role, content=content)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(need(part, "text", str))
        elif kind == "image_url":
            images.append(need(need(part, "image_url", dict), "url", str))
        else:
            raise FormatError(f"a part of a message is {part!r:.60}; expected text or image_url")
    return Message(role=role, content="\n".join(texts))


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    trajectory, problem = record.trajectory, record.trajectory.problem
    turns = problem.messages or (Message(role="user", content=problem.text),)
    messages: list[dict[str, Any]] = [m.model_dump() for m in turns]
    if problem.images:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in problem.images]
        last = messages[-1]
        last["content"] = [{"type": "text", "text": last["content"]}, *parts]
    if trajectory.steps or trajectory.finish != "open":
        messages.append({"role": "assistant", "content": trajectory.text})
    elif turns[-1].role == "assistant":
        raise FormatError(
            f"problem {problem.id!r} ends with a turn of the assistant and has no solution: read "
            "again, that turn would be the solution"
        )
    known = {
        "id": problem.id,
        "answer": problem.answer,
        "correct": trajectory.correct,
        "model": trajectory.generator,
    }
    present = {key: value for key, value in known.items() if value is not None}
    return {**record.meta, **present, "messages": messages}


FORMAT = Format(
    "openai_chat",
    "OpenAI's chat messages; the last turn of the assistant is the solution",
    _matches,
    _read,
    _write,
    splits=True,
)
