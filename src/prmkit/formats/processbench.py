"""ProcessBench: solutions with the 0-based index of their first wrong step, -1 for none.

Steps after the first wrong one are not labelled.

Source: Zheng et al. 2024, arXiv:2412.06559; the data set Qwen/ProcessBench.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need, need_texts
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

_KEYS = ("id", "generator", "problem", "steps", "final_answer_correct", "label")


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, problem=str, steps=list, label=int) and not isinstance(row["label"], bool)


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    steps, label = need_texts(data, "steps"), need(data, "label", int)
    if not -1 <= label < len(steps):
        raise FormatError(
            f"'label' is {label}; with {len(steps)} steps it must be from -1 (none is wrong) to "
            f"{len(steps) - 1}"
        )
    trajectory = Trajectory(
        problem=Problem(id=str(data.get("id", row.id)), prompt=need(data, "problem", str)),
        steps=tuple(Step(text=text) for text in steps),
        separator="\n\n",
        finish="answer",
        correct=data.get("final_answer_correct"),
        generator=data.get("generator"),
    )
    values = tuple(
        None if 0 <= label < index else float(index != label) for index in range(len(steps))
    )
    labels = StepLabels(values=values, kind="hard", source="ProcessBench")
    return [Record(trajectory=trajectory, labels=labels, meta=extras(data, _KEYS))]


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    values = policy.hard(record, "ProcessBench")
    label = values.index(0.0) if 0.0 in values else -1
    unknown = values.index(None) if None in values else len(values)
    if unknown < (label if label >= 0 else len(values)):
        raise FormatError(
            f"ProcessBench names the first wrong step, which cannot be told here: step {unknown} "
            "has no label and no step before it is wrong"
        )
    trajectory = record.trajectory
    return {
        **record.meta,
        "id": trajectory.problem.id,
        "generator": trajectory.generator,
        "problem": trajectory.problem.text,
        "steps": [step.text for step in trajectory.steps],
        "final_answer_correct": trajectory.correct,
        "label": label,
    }


FORMAT = Format(
    "processbench",
    "ProcessBench: the first wrong step, 0-based, -1 for none",
    _matches,
    _read,
    _write,
)
