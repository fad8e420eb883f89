"""The event log of a search: at once its trace, its resume point, its live stream and its ledger.

A file of JSON lines, written as things happen and never changed. The first line says what is
searched and how; then come children as they are drawn (``child``), scores (``score``), what the
algorithm decided (``note``), and at last the choice (``end``). A run that is killed leaves at most
half a last line, which is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prmkit.errors import FormatError, RunFolderError

Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]

VERSION = 1
SYNC = 5.0
"""Seconds after which what was written is forced to disk."""


class Trace:
    """The events of one problem's search.

    Args:
        about: what is searched and how; a file of another search is refused.
        path: where events are kept; by default in memory alone.
        on_event: told of each event as it happens, those found in the file included.

    Raises:
        RunFolderError: if the file belongs to another search.
        FormatError: if a line of it is no event.
    """

    def __init__(
        self, about: Event, path: Path | str | None = None, on_event: OnEvent | None = None
    ):
        self.events: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []
        """What was in the file already, to be gone on from."""
        self.new: list[dict[str, Any]] = []
        """What was not."""
        self._on_event = on_event
        self._file = None
        self._synced = time.monotonic()
        first = {"event": "start", "version": VERSION, **about}
        if path is not None:
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.found = list(read_events(path)) if path.is_file() else []
            if self.found and self.found[0] != as_read(first):
                raise RunFolderError(
                    f"{path} is the trace of another search:\n  there: {self.found[0]}\n  now:   "
                    f"{first}\nUse the same settings, or another output folder"
                )
            self._file = path.open("ab")
            self._file.truncate(_whole(path))
        self.write([first], known=bool(self.found))

    def write(self, events: list[dict[str, Any]], known: bool = False) -> None:
        """Note events; a process that is killed then has not lost them.

        Args:
            events: what happened.
            known: they were found in the file.
        """
        self.events += events
        self.new += [] if known else events
        if self._file is not None and events and not known:
            for event in events:
                self._file.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
            # A killed process loses nothing that was flushed; a machine that loses power, seconds.
            self._file.flush()
            if time.monotonic() - self._synced > SYNC:
                self.sync()
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def sync(self) -> None:
        """See that all of it is on disk."""
        if self._file is not None and not self._file.closed:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file, all of it on disk."""
        self.sync()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def as_read(event: Event) -> dict[str, Any]:
    """An event as it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(event))
    return found


def _whole(path: Path) -> int:
    """How many bytes of a file are whole lines."""
    with path.open("rb") as file:
        return file.read().rfind(b"\n") + 1


def read_events(path: Path | str) -> Iterator[dict[str, Any]]:
    """The events of a trace; half a last line, as a killed run leaves it, is left out.

    Raises:
        FormatError: if a line is no event.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                event = json.loads(line)
            except ValueError as error:
                raise FormatError(f"no JSON: {error}", path, number) from None
            if not isinstance(event, dict) or "event" not in event:
                raise FormatError("no event of a search's trace", path, number)
            if number == 1 and (event["event"] != "start" or event.get("version") != VERSION):
                raise FormatError(
                    f"this is no trace of a search, or not of version {VERSION}", path, number
                )
            yield event
