"""``prm models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from prmkit.cli.console import DONE, out, print_json


@dataclass(frozen=True)
class ModelsSettings:
    """What is told of models.

    Attributes:
        model: one checkpoint, or part of its name; by default all.
        families: list the families instead.
        launch: tell how to serve the model: vllm or sglang.
    """

    model: str | None = None
    families: bool = False
    launch: str | None = None


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
        lines = launch_lines(settings.launch, settings.model)
        if json:
            print_json(lines)
        else:
            out().print(Text("\n".join(f"{key}: {value}" for key, value in lines.items())))
        return DONE
    rows = family_rows() if settings.families else checkpoint_rows(settings.model)
    if json:
        print_json(rows)
        return DONE
    out().print(_table(rows))
    for row in rows if settings.model else ():
        if row.get("note"):
            out().print(Text(f"{row['id']}: {row['note']}"))
    return DONE


def _table(rows: list[dict[str, Any]]) -> Table:
    names = [name for name in rows[0] if name not in ("note", "licence")]
    table = Table()
    for name in names:
        table.add_column(name, no_wrap=name in ("id", "family"))
    for row in rows:
        table.add_row(*(Text(str(row[name] or "")) for name in names))
    return table
