"""The stepwise format of TRL: a prompt, completions, and a label of each.

    {"prompt": "…", "completions": ["…", "…"], "labels": [true, false]}

Labels that are numbers stay numbers: soft labels stay soft.

Source: TRL's dataset formats, "stepwise supervision"; trl-lib/math_shepherd, trl-lib/prm800k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need, need_texts
from prmkit.formats.labels import LabelPolicy, joined_steps, labelled
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

SEPARATOR = "\n"
"""TRL's default `step_separator`."""


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, prompt=str, completions=list, labels=list)


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    steps, given = need_texts(row.data, "completions"), need(row.data, "labels", list)
    if len(steps) != len(given):
        raise FormatError(f"{len(given)} labels for {len(steps)} completions; one label each")
    hard = all(isinstance(v, bool) or (isinstance(v, int) and v in (0, 1)) for v in given)
    for index, value in enumerate(given):
        if not isinstance(value, bool | int | float):
            raise FormatError(f"label {index} is {value!r}; expected true, false or a number")
    trajectory = Trajectory(
        problem=Problem(id=row.id, prompt=need(row.data, "prompt", str)),
        steps=tuple(Step(text=text) for text in steps),
        separator=SEPARATOR,
    )
    labels = StepLabels(
        values=tuple(float(v) for v in given), kind="hard" if hard else "soft", source="stepwise"
    )
    meta = extras(row.data, ("prompt", "completions", "labels"))
    return [Record(trajectory=trajectory, labels=labels, meta=meta)]


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    labels = policy.apply(labelled(record, "the stepwise format"))
    soft = labels.kind == "soft"
    values = labels.values if soft else policy.hard(record, "the stepwise format")
    steps = joined_steps(record, values, record.trajectory.separator)
    return {
        **record.meta,
        "prompt": record.trajectory.problem.text,
        "completions": [text for text, _ in steps],
        "labels": [value if soft else bool(value) for _, value in steps],
    }


FORMAT = Format(
    "stepwise", "TRL's stepwise format: prompt, completions, labels", _matches, _read, _write
)
