"""Files that are whole or absent: written to a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast


@contextlib.contextmanager
def atomic_binary(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under `path` only if the block ends without error.

    The bytes are synced to disk before the rename. On any error, Ctrl-C included, nothing is
    left behind and an older file of that name stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before the rename
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
    )
    try:
        with handle:
            yield cast(BinaryIO, handle)
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(handle.name).chmod(0o666 & ~umask)
        Path(handle.name).replace(path)
    except BaseException:
        Path(handle.name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_text(path: Path | str) -> Iterator[TextIO]:
    r"""Like `atomic_binary`, as UTF-8 text with ``\n`` line ends; gzipped if named ``*.gz``."""
    path = Path(path)
    with atomic_binary(path) as raw, contextlib.ExitStack() as stack:
        sink: BinaryIO = raw
        if path.suffix == ".gz":
            # mtime=0 and no name: equal content gives equal bytes.
            sink = cast(
                BinaryIO, stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
            )
        text = io.TextIOWrapper(sink, encoding="utf-8", newline="\n", write_through=True)
        stack.callback(text.detach)
        yield text


@contextlib.contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """A folder to fill, which appears under `path` only if the block ends without error.

    Its files are synced to disk before the rename. An older folder of that name is replaced then,
    and stays as it was on any error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield place
        for file in place.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        place.chmod(0o777 & ~umask)
        if path.exists():
            shutil.rmtree(path)
        place.replace(path)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    with atomic_text(path) as out:
        json.dump(value, out, indent=1, ensure_ascii=False, allow_nan=False)
        out.write("\n")


def open_text(path: Path | str) -> TextIO:
    r"""Open a UTF-8 text file for reading, gunzipped if its content is gzip.

    Lines end at ``\n`` alone: U+2028 and its like are ordinary characters inside JSON.
    """
    path = Path(path)
    with path.open("rb") as start:
        is_gzip = start.read(2) == b"\x1f\x8b"
    raw = gzip.GzipFile(path, "rb") if is_gzip else path.open("rb")
    return io.TextIOWrapper(cast(BinaryIO, raw), encoding="utf-8-sig", newline="\n")
