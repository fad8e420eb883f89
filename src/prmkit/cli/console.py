"""What the commands print: results on standard output, the rest on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from prmkit.errors import PrmkitError
from prmkit.formats.files import Skipped
from prmkit.records import Record, Semantics, StepScores, Unscored

STANDARD_INPUT = "/dev/stdin"
"""What ``-`` at the command line stands for."""

DONE, FAILED, INCOMPLETE, INTERRUPTED = 0, 1, 3, 130

# Control characters of untrusted text could move the cursor or recolour the screen.
_CONTROLS = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}
_SHOWN_SKIPS = 20


def out() -> Console:
    """Standard output, as it is now."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Standard error, as it is now."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def safe(text: str) -> str:
    """Text of unknown origin without control characters."""
    return text.translate(_CONTROLS)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line of plain text on standard error."""
    err().print(Text(safe(text)))


def failed(error: PrmkitError | OSError, as_json: bool) -> int:
    """Tell an error; the exit code."""
    if as_json:
        told = {"error": str(error), "type": type(error).__name__}
        sys.stderr.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        err().print(Text.assemble(("error: ", "bold red"), safe(str(error))))
    return FAILED


def interrupted(as_json: bool) -> int:
    """Tell that Ctrl-C came; the exit code."""
    if as_json:
        sys.stderr.write(json.dumps({"error": "interrupted", "type": "KeyboardInterrupt"}) + "\n")
    else:
        say("interrupted; give the same command again to go on")
    return INTERRUPTED


class Bars:
    """One progress bar per stage, on standard error; silent where that is no terminal."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` of a stage is done, and a note on it."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)


@contextmanager
def bars(quiet: bool = False) -> Iterator[Bars]:
    """Progress bars while a block runs."""
    console = err()
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = console.is_terminal and not quiet
    with Progress(*columns, console=console, disable=not shown, transient=False) as progress:
        yield Bars(progress)


def tell_skipped(skipped: Sequence[Skipped], path: object) -> None:
    """List rows that were left out, the first of them at least."""
    for row in skipped[:_SHOWN_SKIPS]:
        say(f"skipped {path}:{row.line}: {row.why}")
    if len(skipped) > _SHOWN_SKIPS:
        say(f"and {len(skipped) - _SHOWN_SKIPS} more rows skipped")


def figures(title: str, rows: Sequence[tuple[str, Any]]) -> Table:
    """A short table of names and numbers."""
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table


_COLOURS = ("#d7191c", "#e5633e", "#f3a25f", "#fdd08a", "#d9d96a", "#a9d65f", "#6bbf59", "#1a9641")


def scored_solution(
    record: Record, scored: StepScores | Unscored, found: int | None, overall: float | None
) -> Text:
    """A solution whose steps are coloured by their scores, the first suspected one marked."""
    trajectory = record.trajectory
    question = safe(trajectory.problem.text.strip())
    text = Text.assemble((f"{safe(trajectory.problem.id)}  ", "bold"), (question, "dim"), "\n")
    if isinstance(scored, Unscored):
        return text.append(f"  not scored: {safe(scored.reason)}\n", "bold red")
    for index, (step, value) in enumerate(zip(trajectory.steps, scored.values, strict=True)):
        colour = _colour(value, scored.semantics)
        body = safe(step.text.strip("\n")).replace("\n", "\n             ")
        text.append(f"  {index + 1:>3}  {value:6.3f}  ", f"bold {colour}")
        text.append(body, colour)
        if index == found:
            text.append("   ◀ first suspected error", "bold red")
        text.append("\n")
    if overall is not None:
        text.append(f"  solution  {overall:.3f}\n", "bold")
    return text


def _colour(value: float, semantics: Semantics) -> str:
    if semantics == "advantage":
        value = (value + 1) / 2
    elif semantics == "log_ratio":
        value = 0.5 + value / (2 * (1 + abs(value)))
    return _COLOURS[min(int(min(max(value, 0.0), 1.0) * len(_COLOURS)), len(_COLOURS) - 1)]
