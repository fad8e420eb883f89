"""What a format is: rows of a file to records, and records to rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from prmkit.errors import FormatError
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Record


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        path: of the file.
        number: 1-based line (JSON lines), item (JSON list) or row (Parquet).
        data: its JSON object.
    """

    path: Path
    number: int
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """A problem id for a row that has none: the file's name and the row's number."""
        return f"{self.path.name.split('.')[0]}-{self.number}"


class ReadSettings(NamedTuple):
    """How rows are read, where a format leaves a choice.

    Attributes:
        view: of PRM800K: ``path`` (the chosen steps) or ``completions`` (every rated one).
        split: the splitter of a solution that is stored as one text.
    """

    view: str | None = None
    split: str | None = None


class Format(NamedTuple):
    """A format: how it is known, read and written.

    Attributes:
        name: at the command line.
        about: one line for the help.
        matches: whether a row looks like one of this format.
        read: a row to its records, in order.
        write: a record, whose labels are converted by the policy, to a row; None where the
            format can only be read.
        views: what `ReadSettings.view` may be; the first is taken where none is named.
        splits: whether `ReadSettings.split` is heeded.
    """

    name: str
    about: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Row, ReadSettings], list[Record]]
    write: Callable[[Record, LabelPolicy], dict[str, Any]] | None
    views: tuple[str, ...] = ()
    splits: bool = False


def has(row: Mapping[str, Any], **types: type | tuple[type, ...]) -> bool:
    """Whether a row has these keys, with values of these types."""
    return all(key in row and isinstance(row[key], kind) for key, kind in types.items())


def need(data: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """A value that a row must have.

    Raises:
        FormatError: if it is missing, or of another type.
    """
    if key not in data:
        raise FormatError(f"the key {key!r} is missing; found {_listed(data)}")
    value = data[key]
    fits = isinstance(value, kind) and not (isinstance(value, bool) and not _takes(kind, bool))
    if not fits:
        names = kind if isinstance(kind, tuple) else (kind,)
        raise FormatError(
            f"{key!r} is {value!r:.80}; expected {' or '.join(_NAMES[name] for name in names)}"
        )
    return value


def need_texts(data: Mapping[str, Any], key: str) -> list[str]:
    """A list of texts that a row must have."""
    items: list[Any] = need(data, key, list)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise FormatError(f"item {index} of {key!r} is {item!r:.80}; expected a text")
    return items


def extras(data: Mapping[str, Any], known: Collection[str]) -> dict[str, JsonValue]:
    """What a row holds besides the keys of its format, for `meta`; nulls left out."""
    return {k: v for k, v in data.items() if k not in known and v is not None}


def _takes(kind: type | tuple[type, ...], wanted: type) -> bool:
    return wanted in (kind if isinstance(kind, tuple) else (kind,))


def _listed(data: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(data)[:12]) or "no key"


_NAMES = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}
