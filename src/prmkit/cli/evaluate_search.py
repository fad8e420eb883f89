"""``prm evaluate search``."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from prmkit.cli.console import DONE, out, print_json, say
from prmkit.cli.names import judge
from prmkit.errors import InvalidSetting
from prmkit.evaluation.bootstrap import Interval
from prmkit.evaluation.searches import Searches, compare_searches
from prmkit.evaluation.tables import Row, markdown
from prmkit.evaluation.tables import Table as Figures
from prmkit.files import atomic_text, write_json
from prmkit.report.searches import write_searches

SHOWN = ("right", "minus the first", "oracle", "policy", "scorer")
"""Columns that fit on a screen; table.md has all."""


@dataclass(frozen=True)
class CompareSearchSettings:
    """Which searches are compared.

    Attributes:
        runs: folders that prm search wrote, over the same problems; the first is what the others
            are compared with.
        out: the folder of metrics.json, table.md and report.html.
    """

    runs: tuple[Path, ...] = ()
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/evaluate-search")

    def __post_init__(self) -> None:
        names = [folder.name for folder in self.runs]
        if len(set(names)) < len(names):
            raise InvalidSetting(f"two runs have the same name: {', '.join(names)}")


def evaluate_search(
    settings: Annotated[CompareSearchSettings | None, Parameter(name="*")] = None,
    *,
    json: bool = False,
) -> int:
    """Compare searches at equal cost: accuracy against tokens and seconds, with paired intervals.

    Args:
        json: print the metrics as JSON.
    """
    settings = settings or CompareSearchSettings()
    found = compare_searches({folder.name: folder for folder in settings.runs}, judge())
    write_json(settings.out / "metrics.json", found.metrics())
    with atomic_text(settings.out / "table.md") as file:
        file.write(markdown(_table(found)))
    write_searches(settings.out / "report.html", found)
    if json:
        print_json({**found.metrics(), "out": str(settings.out)})
    else:
        table = Table(title="prm evaluate search", title_justify="left", title_style="bold")
        for name in ("run", *SHOWN):
            table.add_column(name, overflow="fold")
        for row in _table(found).rows:
            table.add_row(row.model, *(row.cells[name] for name in SHOWN))
        out().print(table)
        say(f"report: {settings.out / 'report.html'}")
    return DONE


def _table(found: Searches) -> Figures:
    columns = ["right", "minus the first", "oracle", "gap", "policy", "scorer", "calls", "seconds"]
    rows = []
    for run in found.runs:
        cells = {
            "right": _with(run.accuracy),
            "minus the first": "" if run.difference is None else _with(run.difference),
            "oracle": f"{run.oracle.mean():.3f}",
            "gap": _with(run.gap),
            "policy": f"{run.costs.policy_tokens:.0f}",
            "scorer": f"{run.costs.scorer_tokens:.0f}",
            "calls": f"{run.costs.calls:.1f}",
            "seconds": f"{run.costs.seconds:.2f}",
        }
        rows.append(Row(run.name, cells, False))
    note = (
        f"{found.n_problems} problems; tokens, calls and seconds of one problem, on average; "
        "95 % intervals of a paired bootstrap over problems."
    )
    return Figures(columns, rows, note)


def _with(found: Interval) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
