"""PRMBench: solutions changed so that some steps are wrong, with the 1-based wrong steps.

The record is the changed solution to the changed question; the original is in `meta`. Numbers
of `error_steps` past the last step, which 100 of the published rows have, label nothing, as in
the official evaluator.

Source: Song et al. 2025, arXiv:2501.03124; the data set hitsmy/PRMBench_Preview.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need, need_texts
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

_READ = ("modified_question", "modified_process")


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, modified_question=str, modified_process=list, error_steps=list)


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    steps, wrong = need_texts(data, "modified_process"), need(data, "error_steps", list)
    for number in wrong:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise FormatError(f"'error_steps' holds {number!r}; steps are counted from 1")
    kind, idx = need(data, "classification", str), need(data, "idx", str)
    trajectory = Trajectory(
        problem=Problem(id=f"{kind}_{idx}", prompt=need(data, "modified_question", str)),
        steps=tuple(Step(text=text) for text in steps),
        separator="\n",
    )
    values = tuple(float(number not in wrong) for number in range(1, len(steps) + 1))
    labels = StepLabels(values=values, kind="hard", source="PRMBench")
    return [Record(trajectory=trajectory, labels=labels, meta=extras(data, _READ))]


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    missing = [key for key in ("classification", "idx") if key not in record.meta]
    if missing:
        raise FormatError(
            f"a row of PRMBench says which kind of error was put in; meta has no {missing[0]!r}"
        )
    values = policy.hard(record, "PRMBench")
    if None in values:
        raise FormatError(f"PRMBench labels every step, and step {values.index(None)} has no label")
    wrong = [number for number, value in enumerate(values, 1) if not value]
    beyond = record.meta.get("error_steps")
    if isinstance(beyond, list):
        wrong += [n for n in beyond if isinstance(n, int) and n > len(values)]
    return {
        **record.meta,
        "modified_question": record.trajectory.problem.text,
        "modified_process": [step.text for step in record.trajectory.steps],
        "error_steps": wrong,
    }


FORMAT = Format(
    "prmbench", "PRMBench: changed solutions, wrong steps counted from 1", _matches, _read, _write
)
