"""Files of records that commands write while they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prmkit.files import atomic_text
from prmkit.formats import prmkit
from prmkit.formats.containers import write_rows
from prmkit.records import Record

Put = Callable[[Record], None]


@contextmanager
def sink(path: Path | None) -> Iterator[Put]:
    """Write records into a file that is whole or absent; nothing where no file is wanted.

    Its name says what it is: ``.parquet``, or JSON lines, gzipped if it ends so.
    """
    if path is None:
        yield lambda record: None
    elif path.suffix == ".parquet":
        with write_rows(path, prmkit.schema()) as put:
            yield lambda record: put(prmkit.packed(record.model_dump(mode="json")))
    else:
        with atomic_text(path) as file:

            def put_line(record: Record) -> None:
                file.write(record.model_dump_json() + "\n")

            yield put_line


def named_like(folder: Path, name: str, source: Path | None) -> Path:
    """A file of a run folder: Parquet where its source is, else JSON lines."""
    is_table = source is not None and source.suffix == ".parquet"
    return folder / (name + (".parquet" if is_table else ".jsonl"))
