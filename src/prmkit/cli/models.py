"""``prm models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from prmkit.cli.console import DONE, out, print_json


@dataclass(frozen=True)
class ModelsSettings:
    """What is told of models.

    Attributes:
        model: one checkpoint, or part of its name; by default all. With --launch, its id or a
            local folder.
        families: list the families instead.
        launch: tell how to serve the model: vllm or sglang.
        family: with --launch: how a folder of no known family reads its steps.
    """

    model: str | None = None
    families: bool = False
    launch: str | None = None
    family: str | None = None


def models(
    settings: Annotated[ModelsSettings | None, Parameter(name="*")] = None, *, json: bool = False
) -> int:
    """List the known checkpoints and families, and tell how to serve one.

    Args:
        json: print the findings as JSON.
    """
    from prmkit.scorers.catalogue import checkpoint_rows, family_rows, launch_lines

    settings = settings or ModelsSettings()
    if settings.launch is not None:
        lines = launch_lines(settings.launch, settings.model, settings.family)
        if json:
            print_json(lines)
        else:
            out().print(Text("\n".join(f"{key}: {value}" for key, value in lines.items())))
        return DONE
    rows = family_rows() if settings.families else checkpoint_rows(settings.model)
    if json:
        print_json(rows)
        return DONE
    for row in rows:
        out().print(_family(row) if settings.families else _checkpoint(row))
    return DONE


def _family(row: dict[str, Any]) -> Text:
    return Text.assemble(
        (row["family"], "bold"),
        f"\n  {row['about']}\n  reads {row['reads']}; gives {row['scores']}",
    )


def _checkpoint(row: dict[str, Any]) -> Text:
    facts = [
        f"family {row['family']}",
        f"gives {row['scores']}",
        f"aggregated by {row['aggregation'] or 'nothing in particular'}",
        "evidence: " + ", ".join(f"{fact} {how}" for fact, how in row["evidence"].items()),
    ]
    facts += [f"licence {row['licence']}"] if row["licence"] else []
    told = Text.assemble((row["id"], "bold"), f"\n  {', '.join(facts)}")
    return told.append(f"\n  {row['note']}") if row["note"] else told
