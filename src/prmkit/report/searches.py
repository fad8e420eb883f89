"""The page that sets searches side by side at equal cost."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from prmkit.evaluation.bootstrap import Interval
from prmkit.evaluation.searches import Of, Searches
from prmkit.report import plots
from prmkit.report.page import write_page

COLOURS = 10
"""Lines that can be told apart; classes a0 to a9 of the style sheet."""


def write_searches(path: Path | str, found: Searches) -> None:
    """Write the page as one HTML file, which appears whole or not at all."""
    axes: tuple[tuple[Of, str], ...] = (
        ("tokens", "policy and scorer tokens of a problem"),
        ("seconds", "seconds of a problem"),
    )
    write_page(
        "searches.html",
        path,
        title="Searches at equal cost",
        n_problems=found.n_problems,
        first=found.runs[0].name,
        rows=[
            (
                run.name,
                run.algorithm,
                _shown(run.accuracy),
                None if run.difference is None else _shown(run.difference),
                f"{run.oracle.mean():.3f}",
                _shown(run.gap),
                f"{run.costs.policy_tokens:.0f}",
                f"{run.costs.scorer_tokens:.0f}",
                f"{run.costs.calls:.1f}",
                f"{run.costs.seconds:.2f}",
                f"a{i % COLOURS}",
            )
            for i, run in enumerate(found.runs)
        ],
        plots=[(axis, _plot(found, of, axis)) for of, axis in axes if len(found.points[of]) > 1],
        tables=[
            (
                axis,
                [f"{x:g}" for x in found.points[of]],
                [
                    (run.name, [_cell(found, i, of, k) for k in range(len(found.points[of]))])
                    for i, run in enumerate(found.runs)
                ],
            )
            for of, axis in axes
            if len(found.points[of]) > 1
        ],
    )


def _shown(interval: Interval) -> tuple[str, str]:
    return f"{interval.mean:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _cell(found: Searches, run: int, of: Of, point: int) -> tuple[str, str, str]:
    """Accuracy, the difference to the first run, and whether that is more or less for certain."""
    curve = found.runs[run].curves[of]
    accuracy = f"{curve.accuracy[point].mean:.3f}"
    if curve.difference is None:
        return accuracy, "", ""
    gap = curve.difference[point]
    sure = "right" if gap.low > 0 else "wrong" if gap.high < 0 else ""
    return accuracy, f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]", sure


def _plot(found: Searches, of: Of, axis: str) -> Markup:
    lines = [
        plots.Line(run.name, f"a{i % COLOURS}", [x.mean for x in run.curves[of].accuracy])
        for i, run in enumerate(found.runs)
    ]
    return plots.curves(found.points[of], lines, f"Accuracy against {axis}", axis)
