"""Figures as tables, for pages and papers: Markdown and LaTeX, beside published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prmkit.evaluation.run import Evaluation
from prmkit.evaluation.statistics import Estimate

MISSING = "–"
OURS = "measured here"
WIDE = 8
"""Columns that fit on a page."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        model: its name.
        cells: by the name of the figure.
        published: whether the row is from a published table.
    """

    model: str
    cells: Mapping[str, str]
    published: bool


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: names of figures.
        rows: published ones first.
        note: what the numbers are, in a sentence.
    """

    columns: list[str]
    rows: list[Row]
    note: str

    def lines(self) -> tuple[list[str], list[tuple[str, bool, list[str]]]]:
        """The head, and lines of name, whether it is published, and cells.

        Where there are many figures and no published row, each figure has a line, and each model
        a column.
        """
        if len(self.columns) <= WIDE or any(row.published for row in self.rows):
            return ["model", *self.columns], [
                (r.model, r.published, [r.cells.get(c, MISSING) for c in self.columns])
                for r in self.rows
            ]
        return ["figure", *(r.model for r in self.rows)], [
            (c, False, [r.cells.get(c, MISSING) for r in self.rows]) for c in self.columns
        ]


def table_of(evaluation: Evaluation) -> Table:
    """The main figures of an evaluation beside published rows."""
    known = evaluation.benchmark
    names = list(
        dict.fromkeys(name for model in evaluation.models.values() for name in model.figures)
    )
    columns = known.shown(names)
    rows = []
    for row in known.published:
        cells = {k: f"{known.scale * row.figures[k]:.1f}" for k in columns if k in row.figures}
        if cells:
            rows.append(Row(row.model, cells, True))
    for name, model in evaluation.models.items():
        cells = {
            k: number(model.figures[k], known.scale, known.digits)
            for k in columns
            if k in model.figures
        }
        rows.append(Row(name, cells, False))
    unscored = {name: model.unscored for name, model in evaluation.models.items() if model.unscored}
    note = "In percent. " if known.scale == 100 else ""
    note += f"{known.title}, {len(evaluation.cases)} cases."
    if unscored:
        told = ", ".join(f"{n} by {name}" for name, n in unscored.items())
        note += f" Not scored and left out: {told}."
    if evaluation.differences:
        note += f" The data differ from the published ones: {'; '.join(evaluation.differences)}."
    return Table(columns, rows, note)


def number(estimate: Estimate, scale: float = 100.0, digits: int = 1) -> str:
    """A figure as a table shows it."""
    if estimate.value is None:
        return MISSING
    return f"{scale * estimate.value:.{digits}f}"


def interval(estimate: Estimate, scale: float = 100.0, digits: int = 1) -> str:
    """A figure with its interval."""
    shown = number(estimate, scale, digits)
    if estimate.low is None or estimate.high is None:
        return shown
    return f"{shown} [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"


def markdown(table: Table) -> str:
    """As Markdown; one's own rows are bold."""
    head, rows = table.lines()
    lines = [_line([_plain(c) for c in head]), "|---" + "|--:" * (len(head) - 1) + "|"]
    any_published = any(published for _, published, _ in rows)
    for name, published, cells in rows:
        bold = "**" if any_published and not published else ""
        lines.append(_line([f"{bold}{_plain(name)}{bold}", *(f"{bold}{c}{bold}" for c in cells)]))
    note = f" Rows in bold: {OURS}; others as published." if any_published else ""
    return "\n".join([*lines, "", f"{_plain(table.note)}{note}", ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text of unknown origin in a cell of Markdown."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def latex(table: Table) -> str:
    """As LaTeX, for booktabs; one's own rows come after a rule."""
    head, rows = table.lines()
    lines = [
        r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}",
        r"\toprule",
        " & ".join(map(_latex, head)) + r" \\",
        r"\midrule",
    ]
    before = rows[0][1] if rows else False
    for name, published, cells in rows:
        if before and not published:
            lines.append(r"\midrule")
        before = published
        lines.append(" & ".join(map(_latex, [name, *cells])) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", f"% {_latex(table.note)}", ""]
    return "\n".join(lines)
