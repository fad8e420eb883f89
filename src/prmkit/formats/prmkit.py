"""prmkit's own records: everything that a `Record` holds, one per row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prmkit.formats.base import Format, ReadSettings, Row, has
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Record


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, version=int, trajectory=dict) and has(row["trajectory"], problem=dict)


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    return [Record.model_validate_json(json.dumps(_unpacked(row.data)))]


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    if record.labels is not None:
        record = record.replace(labels=policy.apply(record.labels))
    row: dict[str, Any] = record.model_dump(mode="json")
    return row


def packed(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a table: `meta`, which may hold anything, as JSON text."""
    trajectory = row["trajectory"]
    problem = {**trajectory["problem"], "meta": json.dumps(trajectory["problem"]["meta"])}
    return {
        **row,
        "trajectory": {**trajectory, "problem": problem},
        "meta": json.dumps(row["meta"]),
    }


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """What `packed` was given; a row of JSON is left as it is."""
    if isinstance(row.get("meta"), str):
        row = {**row, "meta": json.loads(row["meta"])}
        trajectory = row["trajectory"]
        problem = {**trajectory["problem"], "meta": json.loads(trajectory["problem"]["meta"])}
        row["trajectory"] = {**trajectory, "problem": problem}
        # A table has every column in every row.
        row["scores"] = [{k: v for k, v in s.items() if _of(s, k)} for s in row["scores"]]
    return row


def _of(scored: dict[str, Any], key: str) -> bool:
    known = {"scores": {"type", "values", "semantics", "model"}, "unscored": {"type", "reason"}}
    return key in known[scored["type"]] or scored[key] is not None


def schema() -> Any:
    """The Arrow schema of `packed` rows."""
    import pyarrow as pa

    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    counts = pa.list_(pa.int64())
    problem = pa.struct(
        [
            ("id", text),
            ("prompt", text),
            ("messages", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("answer", text),
            ("images", pa.list_(text)),
            ("meta", text),
        ]
    )
    trajectory = pa.struct(
        [
            ("version", pa.int64()),
            ("problem", problem),
            ("steps", pa.list_(pa.struct([("text", text), ("observation", text)]))),
            ("separator", text),
            ("finish", text),
            ("answer", text),
            ("correct", flag),
            ("generator", text),
        ]
    )
    labels = pa.struct(
        [
            ("values", pa.list_(number)),
            ("kind", text),
            ("successes", counts),
            ("trials", counts),
            ("certainty", pa.list_(number)),
            ("source", text),
        ]
    )
    scores = pa.struct(
        [
            ("type", text),
            ("values", pa.list_(number)),
            ("semantics", text),
            ("model", text),
            ("reason", text),
        ]
    )
    return pa.schema(
        [
            ("version", pa.int64()),
            ("trajectory", trajectory),
            ("labels", labels),
            ("scores", pa.list_(scores)),
            ("meta", text),
        ]
    )


FORMAT = Format("prmkit", "prmkit's own records; nothing is lost", _matches, _read, _write)
