"""Checkpoints that are whole or absent: written aside, described by hashes, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prmkit.checkpoints import find_note
from prmkit.errors import RunFolderError
from prmkit.files import write_json
from prmkit.ledger import alone_in

MANIFEST = "manifest.json"
CLAIM = "claim.json"
KEPT = "reference-*.json"
"""What was computed before the first step, and is worth keeping; it tells itself of what it is."""


@dataclass(frozen=True)
class Claim:
    """What the checkpoints of a run belong to.

    Attributes:
        told: settings, and digests of the data and of the base.
    """

    told: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(json.dumps(self.told, sort_keys=True).encode()).hexdigest()


def folder_of(out: Path) -> Path:
    """Where the checkpoints of a model lie, until it is finished."""
    return out.with_name(out.name + ".checkpoints")


def is_finished(out: Path, claim: Claim) -> bool:
    """Whether a model folder is what a run ended with."""
    return find_note(out).get("run") == claim.digest


def check_free(out: Path, models: Iterable[Path]) -> None:
    """Refuse a place whose content would be lost, since the model replaces it.

    An earlier training's model may be.

    Args:
        out: where the model is to appear.
        models: folders that it is made from.

    Raises:
        RunFolderError: saying what is there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if any(out.resolve() == model.resolve() for model in models):
        what = "is also what the training starts from or compares with, which would be replaced"
    elif out.is_dir() and "run" in find_note(out):
        return
    else:
        what = "holds something else than a model of an earlier training, which would be replaced"
    raise RunFolderError(f"{out} {what}. Give another output folder")


@contextmanager
def alone(folder: Path, claim: Claim, *, first: bool) -> Iterator[None]:
    """Work with the checkpoints of a run: one run at a time, and only the run that made them.

    Of several processes the first one holds the folder, and the others wait until it does.

    Args:
        folder: of the checkpoints; made where absent, and removed if nothing to go on with was put
            there.
        claim: what they belong to.
        first: whether this process is the first one.

    Raises:
        RunFolderError: if another run is at work there, or the checkpoints are another's.
    """
    if not first:
        meet()
        yield
        return
    with alone_in(folder):
        try:
            # What killed runs left: half a checkpoint, half a model, what was on its way out.
            sweep(folder / ".aside")
            sweep(_gone(folder))
            out = folder.with_name(folder.name.removesuffix(".checkpoints"))
            for left in (*out.parent.glob(f".{out.name}.*.tmp"), *folder.glob(".*.tmp")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            _claim(folder, claim)
            meet()
            yield
        finally:
            if not checkpoints(folder) and not any(folder.glob(KEPT)):
                sweep(folder)


def meet() -> None:
    """Wait for the other processes of this run."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def _gone(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.gone")


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run; renamed first, so that no half of them stays."""
    gone = _gone(folder)
    sweep(gone)
    folder.rename(gone)
    shutil.rmtree(gone)


def tidy(folder: Path, claim: Claim) -> None:
    """Remove what a run that was killed after its end left: its model is whole."""
    sweep(_gone(folder))
    file = folder / CLAIM
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == claim.told:
        discard(folder)


def _claim(folder: Path, claim: Claim) -> None:
    """Mark a folder with what it belongs to, or refuse another's."""
    file = folder / CLAIM
    if not file.is_file() or not checkpoints(folder):
        write_json(file, claim.told)
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    if there != claim.told:
        names = [k for k in claim.told if there.get(k) != claim.told[k]]
        raise RunFolderError(
            f"{folder} holds checkpoints of a run with other settings or data (different: "
            f"{', '.join(names)}). Give another output folder, or remove it"
        )


def seal(checkpoint: Path, folder: Path, *, keep: int, also: int | None = None) -> None:
    """Put a checkpoint that was written aside into its place, and remove the oldest ones.

    Args:
        checkpoint: the folder that was written.
        folder: where it belongs.
        keep: how many checkpoints stay.
        also: the step of one that stays in any case.
    """
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file())
    told = {str(f.relative_to(checkpoint)): _digest(f) for f in files}
    manifest = checkpoint / MANIFEST
    manifest.write_text(json.dumps(told, indent=1), encoding="utf-8")
    for file in [*files, manifest]:
        _sync(file)
    _sync(checkpoint)
    place = folder / checkpoint.name
    if place.exists():
        shutil.rmtree(place)
    checkpoint.rename(place)
    _sync(folder)
    for old in checkpoints(folder)[:-keep]:
        if old.name == f"checkpoint-{also}":
            continue
        # Renamed first: a removal that is interrupted leaves no half checkpoint under its name.
        gone = folder / ".aside" / f"{old.name}.old"
        gone.parent.mkdir(exist_ok=True)
        shutil.rmtree(gone, ignore_errors=True)
        old.rename(gone)
        shutil.rmtree(gone)
    sweep(folder / ".aside")


def sweep(aside: Path) -> None:
    """Remove what was begun and never sealed."""
    shutil.rmtree(aside, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The sealed checkpoints of a folder, oldest first."""
    found = [
        (int(number), path)
        for path in folder.glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdigit()
    ]
    return [path for _, path in sorted(found)]


def newest(folder: Path) -> Path | None:
    """The newest checkpoint, all of whose files are what its manifest says.

    Raises:
        RunFolderError: if it is not; it was sealed once, so somebody has changed it.
    """
    found = checkpoints(folder)
    if not found:
        return None
    return checked(found[-1])


def checked(path: Path) -> Path:
    """A checkpoint, if all of its files are what its manifest says.

    Raises:
        RunFolderError: if they are not.
    """
    try:
        told = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} has no manifest that can be read ({error}): it is not a checkpoint that "
            "prmkit finished. Remove it to go on from the one before it"
        ) from None
    for name, digest in told.items():
        file = path / name
        if not file.is_file() or _digest(file) != digest:
            raise RunFolderError(
                f"{file} is not what it was when the checkpoint was written. Remove {path} to go "
                "on from the one before it"
            )
    return path


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
