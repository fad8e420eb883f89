"""Work that waits for a server, done in several threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    work: Callable[[T], R],
    items: Sequence[T],
    threads: int,
    cancelled: threading.Event | None = None,
) -> list[R]:
    """What `work` makes of each item, in order; begun in order, at most `threads` at a time.

    The first error ends it: no further item is begun, and the error is raised at once. So does
    Ctrl-C; what is under way then is left to itself, in threads that do not keep a program from
    ending.

    Args:
        work: done in the threads.
        items: its arguments.
        threads: at most.
        cancelled: set when it ends early, for work that wants to know.
    """
    stop = cancelled or threading.Event()
    waiting = iter(range(len(items)))
    turn = threading.Lock()
    done: queue.SimpleQueue[tuple[int, R] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        while not stop.is_set():
            with turn:
                index = next(waiting, None)
            if index is None:
                return
            try:
                done.put((index, work(items[index])))
            except BaseException as error:
                done.put(error)
                return

    results: dict[int, R] = {}
    try:
        for _ in range(min(threads, len(items))):
            threading.Thread(target=run, name="prmkit-request", daemon=True).start()
        while len(results) < len(items):
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            results[found[0]] = found[1]
    except BaseException:
        stop.set()
        raise
    return [results[index] for index in range(len(items))]
