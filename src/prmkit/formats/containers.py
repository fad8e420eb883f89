"""Files of rows: JSON lines, a JSON list, one JSON object, CSV or Parquet.

Gzip is seen by content and written by name; so is what a file holds, but for CSV.
"""

from __future__ import annotations

import contextlib
import csv
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from prmkit.errors import FormatError
from prmkit.files import atomic_binary, atomic_text, open_text
from prmkit.formats.base import Row

_PARQUET = b"PAR1"
BROKEN = (UnicodeDecodeError, OSError, EOFError, zlib.error)
"""What a file that is damaged, or no text, raises while it is read."""
_BATCH = 1000


def read_rows(path: Path | str) -> Iterator[Row | FormatError]:
    """The rows of a file, one at a time.

    Yields:
        A row; or, for one that is not a JSON object, the error, so that the caller decides
        whether to stop.

    Raises:
        FormatError: if the file as a whole cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError("there is no such file", path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == _PARQUET:
        yield from _read_parquet(path)
        return
    if path.name.endswith((".csv", ".csv.gz")):
        yield from _read_csv(path)
        return
    with open_text(path) as text:
        try:
            first = text.read(1)
            while first and first.isspace():
                first = text.read(1)
            if first == "[":
                yield from _read_list(path, text)
                return
        except BROKEN as error:
            raise FormatError(f"this is no UTF-8 text, JSON or Parquet: {error}", path) from None
    yield from _read_lines(path)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON; numbers must be finite")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _object(path: Path, number: int, value: Any) -> Row | FormatError:
    if isinstance(value, dict):
        return Row(path, number, value)
    return FormatError(f"expected a JSON object, found {value!r:.80}", path, number)


def _read_csv(path: Path) -> Iterator[Row | FormatError]:
    """Rows of texts by the names of the first row; numbered by the line that they end in."""
    with open_text(path) as text:
        try:
            reader = csv.DictReader(text)
            for row in reader:
                if None in row or None in row.values():
                    yield FormatError(
                        f"a row has more or fewer cells than the {len(reader.fieldnames or ())} "
                        "names of the first row",
                        path,
                        reader.line_num,
                    )
                else:
                    yield Row(path, reader.line_num, dict(row))
        except (csv.Error, *BROKEN) as error:
            raise FormatError(f"this is no CSV in UTF-8: {error}", path) from None


def _whole_object(path: Path) -> Row | None:
    """The one object that a file holds over several lines, or None."""
    with open_text(path) as text:
        try:
            value = _DECODER.decode(text.read().strip())
        except (ValueError, RecursionError):
            return None
    return Row(path, 1, value) if isinstance(value, dict) else None


def _read_lines(path: Path) -> Iterator[Row | FormatError]:
    number, found = 0, 0
    with open_text(path) as text:
        try:
            for number, line in enumerate(text, 1):
                if not line.strip():
                    continue
                found += 1
                try:
                    value = _DECODER.decode(line.strip())
                except (ValueError, RecursionError) as error:
                    if (
                        found == 1
                        and line.lstrip().startswith("{")
                        and (whole := _whole_object(path))
                    ):
                        yield whole
                        return
                    yield FormatError(f"this line is no JSON: {error}", path, number)
                    continue
                yield _object(path, number, value)
        except BROKEN as error:
            raise FormatError(f"the file breaks off here: {error}", path, number + 1) from None


def _read_list(path: Path, text: Any) -> Iterator[Row | FormatError]:
    """Items of a JSON list, without holding the whole of it; its ``[`` has been read."""
    buffer, number, size = "", 0, 1 << 16
    ended, after_item = False, False
    while True:
        buffer = buffer.lstrip()
        if after_item and buffer.startswith(","):
            buffer, after_item = buffer[1:].lstrip(), False
        elif after_item and buffer and not buffer.startswith("]"):
            raise FormatError(
                f"after item {number} of the list comes {buffer[:20]!r}; expected a comma or ]",
                path,
                number,
            )
        if buffer.startswith("]"):
            rest = (buffer[1:] + text.read(size)).strip()
            if rest:
                raise FormatError(f"after the list comes {rest[:20]!r}", path, number)
            return
        try:
            # An item is whole only if something follows it: "12" may go on as "123".
            value, end = _DECODER.raw_decode(buffer)
            if end == len(buffer) and not ended:
                raise ValueError
        except (ValueError, RecursionError) as error:
            if ended:
                raise FormatError(
                    f"item {number + 1} of the list is no JSON: {error}", path, number + 1
                ) from None
            more = text.read(size)
            ended = not more
            buffer += more
            size *= 2
            continue
        number += 1
        buffer, after_item = buffer[end:], True
        size = 1 << 16
        yield _object(path, number, value)


def _read_parquet(path: Path) -> Iterator[Row | FormatError]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(path, number, row)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"the Parquet file is damaged: {error}", path, number + 1) from None


class RowSink(Protocol):
    """Takes rows."""

    def __call__(self, row: dict[str, Any]) -> None:
        """Write one row."""


@contextlib.contextmanager
def write_rows(path: Path | str, schema: Any | None = None) -> Iterator[RowSink]:
    """Open a file of rows that appears only if the block ends without error.

    The name says what it is: ``.jsonl`` or ``.json`` (a list), each with ``.gz`` or without, or
    ``.parquet``.

    Args:
        path: of the file.
        schema: the Arrow schema of a Parquet file; by default that of its first rows.

    Raises:
        FormatError: if the name says nothing known.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet") and name == path.name:
        with _parquet_sink(path, schema) as sink:
            yield sink
    elif name.endswith(".jsonl"):
        with atomic_text(path) as out:
            yield lambda row: _put(out, _dump(row) + "\n")
    elif name.endswith(".json"):
        with atomic_text(path) as out:
            out.write("[")
            before = iter(["\n"])
            yield lambda row: _put(out, next(before, ",\n") + _dump(row))
            out.write("\n]\n")
    else:
        raise FormatError(
            "the name of the output says what to write: end it with .jsonl, .jsonl.gz, .json, "
            ".json.gz or .parquet",
            path,
        )


def _dump(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _put(out: Any, text: str) -> None:
    out.write(text)


@contextlib.contextmanager
def _parquet_sink(path: Path, schema: Any | None) -> Iterator[RowSink]:
    import pyarrow.parquet as pq

    waiting: list[dict[str, Any]] = []
    writer: pq.ParquetWriter | None = None
    with atomic_binary(path) as out:

        def flush() -> None:
            nonlocal writer
            table = _table(waiting, writer.schema if writer else schema, path)
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table)
            waiting.clear()

        def sink(row: dict[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == _BATCH:
                flush()

        try:
            yield sink
            if waiting or writer is None:
                flush()
        finally:
            if writer is not None:
                writer.close()


def _table(rows: Sequence[dict[str, Any]], schema: Any | None, path: Path) -> Any:
    import pyarrow as pa

    if schema is None:
        try:
            # From a struct array: `from_pylist` heeds the keys of the first row alone.
            return pa.Table.from_struct_array(pa.array(rows)) if rows else pa.table({})
        except pa.ArrowException as error:
            raise FormatError(
                f"these rows do not fit into one table ({error}); write .jsonl", path
            ) from None
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise FormatError(
            f"a row has {sorted(unknown)}, which the first {_BATCH} rows lack; write .jsonl", path
        )
    try:
        return pa.Table.from_pylist(list(rows), schema=schema)
    except pa.ArrowException as error:
        raise FormatError(
            f"a row does not fit the columns of the first {_BATCH} ({error}); write .jsonl", path
        ) from None
