"""Checkpoints of a run: what learns, and how far it is; whole, or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

from prmkit.errors import RunFolderError
from prmkit.files import atomic_text, whole_folder, write_json
from prmkit.rl.learner import Learner
from prmkit.training import states

FOLDER, STATE, METRICS = "checkpoints", "state.json", "metrics.jsonl"
KEPT = 2
"""Checkpoints: the last one, and the one before in case that the disk lost the last."""

_NAME = re.compile(r"step-(\d+)")


class Point(NamedTuple):
    """Where a run is.

    Attributes:
        step: how many are done.
        state: what else is to be known, as JSON.
    """

    step: int
    state: dict[str, Any]


def points(out: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    folder = out / FOLDER
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name)]
    return sorted(found, key=number)


def number(point: Path) -> int:
    """The step that a checkpoint is of."""
    return int(point.name.removeprefix("step-"))


def save(out: Path, point: Point, learners: Mapping[str, Learner]) -> None:
    """Write a checkpoint, and remove older ones than the last two."""
    (out / FOLDER).mkdir(exist_ok=True)
    with whole_folder(out / FOLDER / f"step-{point.step}") as place:
        for name, learner in learners.items():
            (place / name).mkdir()
            states.save(
                learner.model, learner.optimizer, learner.scheduler, place / name, first=True
            )
        write_json(place / STATE, {"step": point.step, **point.state})
    for old in points(out)[:-KEPT]:
        shutil.rmtree(old)


def load(out: Path, learners: Mapping[str, Learner], *, first: bool = True) -> Point | None:
    """Go on from the last checkpoint; None where there is none.

    Rows of the metrics that came after it are dropped: their steps are done once more, the same.

    Args:
        out: the run folder.
        learners: what learns.
        first: whether this process is the first one, which tidies up the folder for all.

    Raises:
        RunFolderError: if a checkpoint is damaged.
    """
    if first:
        sweep(out)
    there = points(out)
    if not there:
        if first:
            cut(out, 0)
        return None
    place = there[-1]
    try:
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
        step = int(state.pop("step"))
        for name, learner in learners.items():
            states.load_weights(learner.model, place / name)
            states.load_optimizer(learner.model, learner.optimizer, learner.scheduler, place / name)
    except (OSError, ValueError, RuntimeError, LookupError, EOFError, UnpicklingError) as error:
        raise RunFolderError(
            f"the checkpoint {place} is damaged ({error}). Remove that folder to go on from the "
            "one before, or give --no-resume to begin anew"
        ) from None
    if first:
        cut(out, step)
    return Point(step, state)


def sweep(out: Path) -> None:
    """Remove what a killed run left half written."""
    # Checkpoints, and the models of the end.
    for left in [*out.glob(".*.tmp"), *(out / FOLDER).glob(".*.tmp")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics; a last line that a kill tore is left out."""
    file = out / METRICS
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def append(out: Path, row: Mapping[str, Any]) -> None:
    """Write a row of the metrics; it is on disk when this returns, as are checkpoints after it."""
    with (out / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut(out: Path, step: int) -> None:
    """Drop the rows of the metrics behind a step."""
    kept = [row for row in rows(out) if row["step"] <= step]
    with atomic_text(out / METRICS) as file:
        file.writelines(json.dumps(row) + "\n" for row in kept)
