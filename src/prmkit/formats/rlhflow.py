r"""RLHFlow's conversations: each step is a user turn, answered by ``+`` or ``-``.

    {"conversations": [{"role": "user", "content": "Q step 1"}, {"role": "assistant",
    "content": "+"}, {"role": "user", "content": "step 2"}, …]}

The first turn holds the question too. It ends where ``Step 1:`` begins (Mistral data), else at
the last blank line (Deepseek data).

Source: RLHFlow/Mistral-PRM-Data and RLHFlow/Deepseek-PRM-Data, github.com/RLHFlow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need
from prmkit.formats.labels import LabelPolicy, joined_steps
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

_FIRST = re.compile(r"Step 1\s*:")
_BLANK = re.compile(r"\n\s*\n")


def _matches(row: Mapping[str, Any]) -> bool:
    if not has(row, conversations=list) or not row["conversations"]:
        return False
    turns = row["conversations"]
    return all(isinstance(t, dict) and has(t, role=str, content=str) for t in turns) and any(
        t["role"] == "assistant" and t["content"].strip() in ("+", "-") for t in turns
    )


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    turns = need(row.data, "conversations", list)
    texts, values = [], []
    for index, turn in enumerate(turns):
        role, content = need(turn, "role", str), need(turn, "content", str)
        expected = ("user", "assistant")[index % 2]
        if role != expected:
            raise FormatError(f"turn {index} is of {role!r}; expected {expected!r}")
        if role == "user":
            texts.append(content)
        elif content.strip() in ("+", "-"):
            values.append(float(content.strip() == "+"))
        else:
            raise FormatError(f"turn {index} answers {content!r:.40}; expected '+' or '-'")
    if not texts:
        raise FormatError("the conversation is empty")
    question, first = split_first(texts[0])
    trajectory = Trajectory(
        problem=Problem(id=row.id, prompt=question),
        steps=tuple(Step(text=text) for text in (first, *texts[1:])),
        separator="\n" if _FIRST.match(first) else "\n\n",
    )
    labels = StepLabels(
        values=(*values, *(None,) * (len(texts) - len(values))), kind="hard", source="RLHFlow"
    )
    return [Record(trajectory=trajectory, labels=labels, meta=extras(row.data, ("conversations",)))]


def split_first(turn: str) -> tuple[str, str]:
    """The question and the first step of the first turn.

    Raises:
        FormatError: if they cannot be told apart.
    """
    starts = [m.start() for m in _FIRST.finditer(turn)]
    if starts:
        return turn[: starts[-1]].rstrip(), turn[starts[-1] :]
    blanks = list(_BLANK.finditer(turn))
    if not blanks:
        raise FormatError(
            "the question and the first step cannot be told apart: the first turn has neither "
            f"'Step 1:' nor a blank line: {turn!r:.80}"
        )
    return turn[: blanks[-1].start()], turn[blanks[-1].end() :]


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    steps = joined_steps(record, policy.hard(record, "RLHFlow"), "\n")
    question, first = record.trajectory.problem.text, steps[0][0]
    opening = f"{question} {first}" if _FIRST.match(first) else f"{question}\n\n{first}"
    if split_first(opening) != (question.rstrip(), first):
        raise FormatError(
            "RLHFlow could not be read back: the question and the first step could not be told "
            f"apart in {opening!r:.80}"
        )
    turns = []
    for text, value in [(opening, steps[0][1]), *steps[1:]]:
        turns.append({"role": "user", "content": text})
        turns.append({"role": "assistant", "content": "+" if value else "-"})
    return {**record.meta, "conversations": turns}


FORMAT = Format(
    "rlhflow",
    "RLHFlow's conversations: steps by the user, + or - in reply",
    _matches,
    _read,
    _write,
)
