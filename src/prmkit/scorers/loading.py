"""A scorer from a name: a folder, or an id of the Hugging Face hub.

How a model reads its steps is said, in this order: by the caller (`family`), by the note that
`prm train` writes beside its models, by the table of published checkpoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prmkit.chat import single_token
from prmkit.checkpoints import NOTE_FILE, find_checkpoint, load_tokenizer
from prmkit.errors import CheckpointError, UnknownCheckpoint, UnknownName
from prmkit.scorers.base import Scorer
from prmkit.scorers.checkpoints import BY_ID, Checkpoint, find
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, IMPLICIT
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.scorers.separators import OnSeparator

ADAPTER = "adapter_config.json"


def load_scorer(
    model: Path | str,
    *,
    family: str | None = None,
    reference: Path | str | None = None,
    device: str | None = None,
    on_separator: OnSeparator = "escape",
) -> Scorer:
    """Load the scorer of a model.

    Args:
        model: a folder, or an id of the hub.
        family: how it reads steps; by default what its note or the table of checkpoints says.
        reference: for implicit families, the model to compare with; by default what the table
            says.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one.
        on_separator: see `DiscriminativeScorer`.

    Raises:
        UnknownCheckpoint: if nobody says what family the model is of.
        UnknownName: if there is no such family.
        CheckpointError: if the folder does not hold such a model, or not such a tokenizer.
    """
    known = find(model)
    folder = _folder(model)
    name = family or _noted(folder) or (known.family if known else None)
    if name is None:
        raise UnknownCheckpoint(str(model), BY_ID)
    if known is not None and family is None:
        check_tokens(folder, known)
    if name in DISCRIMINATIVE:
        return DiscriminativeScorer(
            folder, family=DISCRIMINATIVE[name], device=device, on_separator=on_separator
        )
    if name in IMPLICIT:
        other = reference or (known.reference if known else None)
        return ImplicitScorer(
            folder,
            None if other is None else find_checkpoint(other),
            family=IMPLICIT[name],
            device=device,
        )
    raise UnknownName("family of reward models", name, {**DISCRIMINATIVE, **IMPLICIT})


def check_tokens(folder: Path, known: Checkpoint) -> None:
    """Compare the ids that a tokenizer gives with those of the published checkpoint.

    Raises:
        CheckpointError: naming both ids, where they differ.
    """
    if not known.tokens:
        return
    tokenizer = load_tokenizer(folder)
    for text, expected in known.tokens.items():
        found = single_token(tokenizer, text)
        if found != expected:
            raise CheckpointError(
                f"the tokenizer in {str(folder)!r} gives {text!r} the id {found}; that of "
                f"{known.id} gives it {expected}. Use the checkpoint's own tokenizer, or name "
                f"the family yourself (--family {known.family}) if it is another model"
            )


def _folder(model: Path | str) -> Path:
    path = Path(model)
    if (path / ADAPTER).is_file() and not (path / "config.json").is_file():
        try:
            described: Any = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
            base = described["base_model_name_or_path"]
        except (ValueError, KeyError, TypeError):
            base = "its base model"
        raise CheckpointError(
            f"{str(model)!r} is an adapter for {base}, not a whole model. Merge the two first: "
            f"prm convert-model {model} OUT --base FOLDER_OR_ID"
        )
    return find_checkpoint(model)


def _noted(folder: Path) -> str | None:
    """The family that the folder's own note names, if there is one."""
    file = folder / NOTE_FILE
    if not file.is_file():
        return None
    try:
        note: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is no JSON: {error}") from None
    name = note.get("family") if isinstance(note, dict) else None
    return name if isinstance(name, str) else None
