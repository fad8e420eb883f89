r"""OpenRLHF's rows for PRM training: tagged text with a list of signs or of numbers.

    {"input": "Q Step 1: … ки\nStep 2: … ки", "value": ["+", "-"]}   or   "value": [0.75, 0.0]

Source: OpenRLHF up to its last version with a PRM trainer (train_prm.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need
from prmkit.formats.labels import LabelPolicy, labelled
from prmkit.formats.math_shepherd import TAG, split_tagged, tagged, tagged_record
from prmkit.records import Record, StepLabels


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, input=str, value=list) and TAG in row["input"]


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    text, given = need(row.data, "input", str), need(row.data, "value", list)
    question, steps = split_tagged(text)
    n_tags = text.count(TAG)
    if len(given) != n_tags:
        raise FormatError(f"{len(given)} values for {n_tags} tags {TAG!r}; one value per tag")
    signs = all(isinstance(v, str) for v in given)
    values = tuple(_value(v, signs) for v in given) + (None,) * (len(steps) - n_tags)
    labels = StepLabels(values=values, kind="hard" if signs else "soft", source="OpenRLHF")
    return [tagged_record(row, question, steps, labels, extras(row.data, ("input", "value")))]


def _value(value: Any, signs: bool) -> float:
    if signs and value in ("+", "-"):
        return float(value == "+")
    if not signs and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise FormatError(f"a value is {value!r}; expected '+' and '-' alone, or numbers alone")


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    labels = policy.apply(labelled(record, "OpenRLHF"))
    soft = labels.kind == "soft"
    values = labels.values if soft else policy.hard(record, "OpenRLHF")
    question, steps = tagged(record, values, "OpenRLHF")
    written = [v if soft else "+" if v else "-" for v in values if v is not None]
    body = "\n".join(f"{step} {TAG}" for step in steps)
    return {**record.meta, "input": f"{question} {body}", "value": written}


FORMAT = Format(
    "openrlhf", "OpenRLHF's PRM rows: ки in the text, a list of values", _matches, _read, _write
)
