"""Checkpoints that are whole or absent: written aside, described by hashes, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from prmkit.errors import RunFolderError

MANIFEST = "manifest.json"


def seal(checkpoint: Path, folder: Path, *, keep: int) -> None:
    """Put a checkpoint that was written aside into its place, and remove the oldest ones.

    Args:
        checkpoint: the folder that was written.
        folder: where it belongs.
        keep: how many checkpoints stay.
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
        # Renamed first: a removal that is interrupted leaves no half checkpoint under its name.
        gone = folder / ".aside" / f"{old.name}.old"
        gone.parent.mkdir(exist_ok=True)
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
    path = found[-1]
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
