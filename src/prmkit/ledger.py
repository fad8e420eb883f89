"""A ledger of finished work: what a long run has done, so that it resumes without repetition.

One SQLite file; one row per item, written when the item is done. A run that is killed loses at
most what was in flight.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prmkit.errors import RunFolderError
from prmkit.files import write_json


class Ledger:
    """Finished items by key.

    Args:
        path: the SQLite file; made where absent.
        settings: what the work depends on. A ledger of other settings is refused, since its
            items would be of another kind.

    Raises:
        RunFolderError: if the ledger belongs to other settings, or is no ledger.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        described = json.dumps(settings, sort_keys=True, default=str)
        try:
            self._db = sqlite3.connect(self.path, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS about (settings TEXT NOT NULL)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )
            row = self._db.execute("SELECT settings FROM about").fetchone()
            if row is None:
                self._db.execute("INSERT INTO about VALUES (?)", (described,))
            self._db.commit()
        except sqlite3.OperationalError as error:
            raise RunFolderError(
                f"{self.path} cannot be opened ({error}). Is the folder writable, and is no other "
                "process at work in it?"
            ) from None
        except sqlite3.DatabaseError as error:
            raise RunFolderError(
                f"{self.path} is not a ledger of prmkit ({error}). Remove it, or give another "
                "output folder"
            ) from None
        if row is not None and row[0] != described:
            self._db.close()
            raise RunFolderError(
                f"{self.path} belongs to a run with other settings:\n  there: {row[0]}\n"
                f"  now:   {described}\nUse the same settings, or another output folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM done").fetchone()[0]
        return count

    def get(self, key: str) -> str | None:
        """What was noted under a key, or None."""
        row = self._db.execute("SELECT value FROM done WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, items: Mapping[str, str]) -> None:
        """Note finished items, all or none of them; on disk when this returns."""
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO done VALUES (?, ?)", items.items())

    def items(self) -> Iterator[tuple[str, str]]:
        """All that is noted, in the order of the keys."""
        yield from self._db.execute("SELECT key, value FROM done ORDER BY key")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


CONFIG_FILE = "config.json"


def check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that `claim_folder` would refuse, and write nothing.

    Raises:
        RunFolderError: if the folder holds a run with other settings, or something else.
    """
    described = json.loads(json.dumps(settings, default=str))
    file = folder / CONFIG_FILE
    if not file.is_file() and folder.exists():
        # Another process may be writing the very same file.
        others = folder.is_dir() and any(
            not e.name.startswith(f".{CONFIG_FILE}.") for e in folder.iterdir()
        )
        if (others and not file.is_file()) or not folder.is_dir():
            raise RunFolderError(
                f"{folder} is there and is no run of prmkit (it has no {CONFIG_FILE}). "
                "Give another folder with --out"
            )
    if not file.is_file():
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{file} is no JSON ({error}); give another folder") from None
    if there != described:
        changed = [
            f"{key}: {there.get(key)!r} there, {described.get(key)!r} now"
            for key in sorted({*there, *described})
            if there.get(key) != described.get(key)
        ]
        raise RunFolderError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}). Use the same "
            "settings to go on with it, or give another folder with --out"
        )


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run into its folder, or see that they are those of the run there.

    Raises:
        RunFolderError: if the folder holds a run with other settings, or something else.
    """
    check_folder(folder, settings)
    file = folder / CONFIG_FILE
    if not file.is_file():
        write_json(file, json.loads(json.dumps(settings, default=str)))
        # Another process may have been faster.
        check_folder(folder, settings)


@contextmanager
def run_folder(folder: Path, settings: Mapping[str, Any], *, resume: bool = True) -> Iterator[None]:
    """Work in a run's folder: alone, with the settings of the run that is there.

    Temporary files of a run that was killed are removed.

    Args:
        folder: made where absent.
        settings: as in `claim_folder`.
        resume: whether to go on with a run that is there; if not, it is removed.

    Raises:
        RunFolderError: as `claim_folder`, or if another process is at work there.
    """
    with alone_in(folder):
        for left in folder.glob(".*.tmp"):
            # A model that was half written is a folder.
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        if not resume and (folder / CONFIG_FILE).is_file():
            for file in sorted(folder.iterdir()):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        claim_folder(folder, settings)
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made where absent.

    Raises:
        RunFolderError: if one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another process is at work in {folder}; wait for it, or give another folder "
                "with --out"
            ) from None
        yield
    finally:
        os.close(held)


def seed_for(seed: int, *parts: str) -> int:
    """A seed of its own for one item, from the run's seed and what identifies the item.

    64 bits of a SHA-256: independent of order, of batches, and of Python's hash.
    """
    text = json.dumps([seed, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
