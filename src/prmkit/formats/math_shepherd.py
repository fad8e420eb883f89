r"""Math-Shepherd: one text with ``ки`` after each step, and a copy with ``+`` or ``-`` there.

    {"input": "Q Step 1: … ки\nStep 2: … ки", "label": "Q Step 1: … +\nStep 2: … -", "task": …}

Signs are found by aligning the two texts; ``+`` and ``-`` also occur in the mathematics.

Source: Wang et al. 2023, arXiv:2312.08935; the data set peiyi9979/Math-Shepherd.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need
from prmkit.formats.labels import LabelPolicy, joined_steps
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

TAG = "ки"
_FIRST = re.compile(r"Step 1\s*:")


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, input=str, label=str) and TAG in row["input"]


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    text, label = need(row.data, "input", str), need(row.data, "label", str)
    question, steps = split_tagged(text)
    signs = _signs(text, label)
    values = tuple(None if s is None else float(s == "+") for s in signs)
    values += (None,) * (len(steps) - len(values))
    return [
        tagged_record(
            row,
            question,
            steps,
            StepLabels(values=values, kind="hard", source="Math-Shepherd"),
            extras(row.data, ("input", "label")),
        )
    ]


def tagged_record(
    row: Row, question: str, steps: Sequence[str], labels: StepLabels, meta: dict[str, Any]
) -> Record:
    """The record of a question and its tagged steps."""
    trajectory = Trajectory(
        problem=Problem(id=row.id, prompt=question),
        steps=tuple(Step(text=step) for step in steps),
        separator="\n",
    )
    return Record(trajectory=trajectory, labels=labels, meta=meta)


def split_tagged(text: str) -> tuple[str, list[str]]:
    """The question and the steps of a text with tags.

    Raises:
        FormatError: if there is no tag, or the question and the first step cannot be told apart.
    """
    first, *others = text.split(TAG)
    if not others:
        raise FormatError(f"there is no {TAG!r}, which ends each step")
    starts = [m.start() for m in _FIRST.finditer(first)]
    start = starts[-1] if starts else first.rfind("\n") + 1
    if not starts and not start:
        raise FormatError(
            "the question and the first step cannot be told apart: neither 'Step 1:' nor a line "
            f"break stands before the first {TAG!r}"
        )
    steps = [first[start:].strip(), *(part.strip() for part in others[:-1])]
    if others[-1].strip():
        steps.append(others[-1].strip())
    return first[:start].rstrip(), steps


def _signs(text: str, label: str) -> list[str | None]:
    """The sign at each tag; None where it is missing."""
    signs: list[str | None] = []
    at = 0
    parts = text.split(TAG)
    for index, part in enumerate(parts):
        if not label.startswith(part, at):
            raise FormatError(
                f"'label' does not match 'input' after {index} tags: it has "
                f"{label[at : at + 40]!r} where 'input' has {part[:40]!r}"
            )
        at += len(part)
        if index < len(parts) - 1:
            sign = label[at : at + 1]
            signs.append(sign if sign in ("+", "-") else None)
            at += sign in ("+", "-")
    return signs


def tagged(record: Record, values: tuple[float | None, ...], what: str) -> tuple[str, list[str]]:
    """The question and the texts of the steps, ready for tags; the inverse of `split_tagged`.

    Raises:
        FormatError: if reading them back would give something else.
    """
    question = record.trajectory.problem.text
    steps = []
    for number, (step, _) in enumerate(joined_steps(record, values, "\n"), 1):
        text = step.strip()
        has_number = re.match(rf"Step {number}\s*:", text)
        steps.append(text if has_number else f"Step {number}: {text}")
    for text in (question, *steps):
        if TAG in text:
            raise FormatError(
                f"{what} ends steps with {TAG!r}, which this text itself holds: {text!r:.80}"
            )
    if split_tagged(f"{question} {steps[0]} {TAG}") != (question.rstrip(), steps[:1]):
        raise FormatError(
            f"{what} could not be read back: the first step holds 'Step 1:' twice: {steps[0]!r:.80}"
        )
    return question, steps


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    values = policy.hard(record, "Math-Shepherd")
    question, steps = tagged(record, values, "Math-Shepherd")
    signs = ["+" if value else "-" for value in values if value is not None]

    def text(tags: Sequence[str]) -> str:
        body = "\n".join(f"{step} {tag}" for step, tag in zip(steps, tags, strict=True))
        return f"{question} {body}"

    return {**record.meta, "input": text([TAG] * len(steps)), "label": text(signs)}


FORMAT = Format(
    "math_shepherd", "Math-Shepherd: ки in the text, + and - in its copy", _matches, _read, _write
)
