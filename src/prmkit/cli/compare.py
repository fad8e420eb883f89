"""``prm compare``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from prmkit.cli import console
from prmkit.cli.evaluate import ALL
from prmkit.errors import InvalidSetting, RunFolderError
from prmkit.evaluation.compare import Comparison, Difference
from prmkit.evaluation.compare import compare as compare_runs
from prmkit.evaluation.results import METRICS, read_run
from prmkit.evaluation.run import MeasureSettings
from prmkit.evaluation.tables import MISSING, Row, interval, latex, markdown, number
from prmkit.evaluation.tables import Table as Figures
from prmkit.files import atomic_text, write_json


@dataclass(frozen=True)
class CompareSettings:
    """Which runs, and where the result goes.

    Attributes:
        runs: folders that prm evaluate wrote, of the same benchmark and cases; the first judge of
            the first one is what the others are compared with.
        out: also write compare.json, table.md and table.tex into this folder.
        every: show every figure, not the main ones alone.
    """

    runs: tuple[Path, ...]
    out: Annotated[Path | None, Parameter(alias="-o")] = None
    every: bool = False

    def __post_init__(self) -> None:
        if not self.runs:
            raise InvalidSetting("give the folders of one or more runs of prm evaluate")


def compare(
    settings: Annotated[CompareSettings, Parameter(name="*")],
    *,
    measured: Annotated[MeasureSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Set evaluations side by side, with paired differences and tests.

    Each run's figures are those of the settings that it was measured with, unless settings are
    given here, which then hold for all of them.

    Args:
        json: print everything as JSON.
    """
    if settings.out is not None and (settings.out / METRICS).exists():
        raise RunFolderError(f"{settings.out} holds a run; give another folder with --out")
    comparison = compare_runs([read_run(folder) for folder in settings.runs], ALL, measured)
    if settings.out is not None:
        write_json(settings.out / "compare.json", comparison.metrics())
        table = _table(comparison, settings.every)
        for name, text in (("table.md", markdown(table)), ("table.tex", latex(table))):
            with atomic_text(settings.out / name) as file:
                file.write(text)
    if json:
        console.print_json(comparison.metrics())
    else:
        _show(comparison, settings.every)
        if settings.out is not None:
            console.say(f"written to {settings.out}")
    return console.DONE


def _table(comparison: Comparison, every: bool) -> Figures:
    known = comparison.benchmark
    columns = list(comparison.figures)
    if not every:
        columns = known.shown(columns)
    rows = [
        Row(
            judge,
            {
                c: _cell(comparison.figures[c][judge], known.scale, known.digits, " ")
                for c in columns
                if judge in comparison.figures[c]
            },
            False,
        )
        for judge in comparison.judges
    ]
    note = "In percent. " if known.scale == 100 else ""
    note += (
        f"{known.title}, {comparison.n_cases} cases; differences to {comparison.judges[0]} with 95 "
        "percent intervals, paired."
    )
    return Figures(columns, rows, note + _left_out(comparison))


def _left_out(comparison: Comparison) -> str:
    told = ", ".join(f"{n} by {judge}" for judge, n in comparison.unscored.items() if n)
    return f" Not scored: {told}." if told else ""


def _show(comparison: Comparison, every: bool) -> None:
    known = comparison.benchmark
    names = list(comparison.figures)
    if not every:
        names = known.shown(names)
    table = Table(
        title=f"{known.title}, {comparison.n_cases} cases; differences to "
        f"{console.safe(comparison.judges[0])} with 95 % intervals",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("figure")
    for judge in comparison.judges:
        table.add_column(console.safe(judge), justify="right")
    for name in names:
        row = comparison.figures[name]
        table.add_row(
            name,
            *(
                _cell(row[judge], known.scale, known.digits, "\n") if judge in row else MISSING
                for judge in comparison.judges
            ),
        )
    console.out().print(table)
    if told := _left_out(comparison):
        console.say(told.strip())
    plain = asdict(next(iter(comparison.settings.values())))
    for judge, settings in comparison.settings.items():
        other = {k: v for k, v in asdict(settings).items() if v != plain[k]}
        if other:
            words = ", ".join(f"{k} {v}" for k, v in other.items())
            console.say(f"{judge} was measured with {words}")
    for (a, b), figures in comparison.agreements.items():
        rows = [(name, interval(estimate, 1, 3)) for name, estimate in figures.items()]
        title = f"agreement of {console.safe(a)} and {console.safe(b)}"
        console.out().print(console.figures(title, rows))


def _cell(difference: Difference, scale: float, digits: int, between: str) -> str:
    shown = number(difference.figure, scale, digits)
    gap = difference.to_first
    if gap is None or gap.value is None:
        return shown
    ends = ""
    if gap.low is not None and gap.high is not None:
        ends = f" [{scale * gap.low:+.{digits}f}, {scale * gap.high:+.{digits}f}]"
    p = "" if difference.p is None else f", p {difference.p:.3f}"
    return f"{shown}{between}{scale * gap.value:+.{digits}f}{ends}{p}"
