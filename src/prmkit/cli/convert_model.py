"""``prm convert-model``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prmkit.cli.console import DONE, print_json, say
from prmkit.cli.names import known_name
from prmkit.errors import CheckpointError


@dataclass(frozen=True)
class ConvertModelSettings:
    """A checkpoint of one layout to one of another.

    Attributes:
        source: folder of the checkpoint, or of an adapter; or its id; or embedded/prm.
        target: folder to write; it must not be there yet.
        layout: token_classifier folds the head into the score layer of a token classifier; scalar
            does so with the difference of a head's two numbers; merged makes one model of an
            adapter and its base.
        family: how the checkpoint reads its steps; by default what is known of it.
        base: of an adapter: folder or id of the model that it adapts; by default what it names.
    """

    source: str
    target: Path
    layout: Literal["token_classifier", "scalar", "merged"] = "token_classifier"
    family: str | None = None
    base: str | None = None


def convert_model(
    settings: Annotated[ConvertModelSettings, Parameter(name="*")], *, json: bool = False
) -> int:
    """Convert a checkpoint from one layout to another without loss, in safetensors.

    Args:
        json: print what was done as JSON.
    """
    from prmkit.scorers.convert_model import fold, is_adapter, merge_adapter
    from prmkit.scorers.families import DISCRIMINATIVE
    from prmkit.scorers.loading import resolve

    if settings.target.exists():
        raise CheckpointError(f"{settings.target} is there already; give a folder that is not")
    if settings.layout == "merged":
        if not is_adapter(settings.source):
            raise CheckpointError(
                f"{settings.source!r} is no adapter folder; there is nothing to merge"
            )
        merge_adapter(settings.source, settings.target, settings.base)
        family = None
    else:
        found = resolve(known_name(settings.source), settings.family)
        family = found.family
        if family not in DISCRIMINATIVE:
            raise CheckpointError(f"the family {family!r} has no head to fold")
        fold(found.folder, settings.target, DISCRIMINATIVE[family], settings.layout)
    if json:
        print_json({"target": str(settings.target), "layout": settings.layout, "family": family})
    else:
        say(f"wrote {settings.target} ({settings.layout})")
    return DONE
