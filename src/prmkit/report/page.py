"""The report: scored solutions, curves and calibration in one HTML file.

Everything in it may be untrusted text: it is escaped without exception, there is no script, and
the page's own policy forbids all but its one style sheet.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prmkit import __version__
from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.evaluation.first_error import predicted_first_error
from prmkit.evaluation.pools import Measured
from prmkit.files import atomic_text
from prmkit.records import Record, Semantics, StepScores, Unscored
from prmkit.report import plots

SHADES = 10
"""Colours from wrong to right; classes s0 to s10 of the style sheet."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    Attributes:
        title: at its top.
        pools: scored solutions, those of one problem together.
        which: of each record's scores.
        threshold: a step with a lower score is suspected to be wrong; None to suspect none.
        aggregation: step scores to one number.
        measured: the figures and curves, where the pools were measured.
        settings: of the run, in a table at the end.
        figures: more figures, such as of the labels, in tables by heading.
        max_problems: how many problems are shown.
        max_solutions: how many solutions of each.
    """

    title: str
    pools: Sequence[Sequence[Record]]
    which: int = 0
    threshold: float | None = 0.5
    aggregation: Aggregation = "min"
    measured: Measured | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_problems: int = 12
    max_solutions: int = 4


class _Step(NamedTuple):
    text: str
    observation: str | None
    score: str
    shade: str
    found: bool
    truth: bool


class _Solution(NamedTuple):
    steps: list[_Step]
    overall: str
    answer: str | None
    correct: bool | None
    verdict: str
    plot: Markup | None
    unscored: str | None
    is_pick: bool


class ShownProblem(NamedTuple):
    """A problem as the templates show it."""

    id: str
    text: str
    answer: str | None
    solutions: list[_Solution]
    n_more: int


def write_page(template: str, path: Path | str, **what: Any) -> None:
    """Fill a template into one HTML file, which appears whole or not at all."""
    environment = Environment(
        loader=PackageLoader("prmkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("report.css").render(shades=SHADES)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = environment.get_template(template).render(
        style=Markup(style), digest=digest, version=__version__, shades=SHADES, **what
    )
    with atomic_text(path) as out:
        out.write(html)


def write_report(report: Report, path: Path | str) -> None:
    """Write a report as one HTML file, which appears whole or not at all."""
    problems = [shown_problem(pool, report) for pool in _shown(report)]
    measured = report.measured
    write_page(
        "report.html",
        path,
        title=report.title,
        report=report,
        tiles=_tiles(measured) if measured else [],
        curves=_curves(measured) if measured else None,
        reliability=plots.reliability(measured.calibration)
        if measured and measured.calibration
        else None,
        measured=measured,
        problems=problems,
        n_pools=len(report.pools),
    )


def _tiles(measured: Measured) -> list[tuple[str, str, str]]:
    """Name, number and explanation of the main figures."""
    n, curves = measured.n_samples, measured.curves
    tiles = [
        ("pass@1", curves.oracle[0], "the first answer is right"),
        (f"majority@{n}", curves.majority[-1], "the most frequent answer is right"),
        (f"best of {n}", curves.best[-1], "the best scored answer is right"),
        ("vote by score", curves.weighted[-1], f"the vote of {n} weighted by scores is right"),
        (f"pass@{n}", curves.oracle[-1], "any answer is right"),
    ]
    if measured.first_error:
        tiles.append(
            ("first error F1", measured.first_error.f1, "wrong steps found, right ones let be")
        )
    if measured.within_problem:
        tiles.append(
            (
                "AUC in a problem",
                measured.within_problem.auc,
                "a right solution is above a wrong one of the same problem",
            )
        )
    return [(name, f"{value:.3f}", about) for name, value, about in tiles]


def _curves(measured: Measured) -> Markup:
    lines = [
        plots.Line("any right", "oracle", measured.curves.oracle),
        plots.Line("weighted vote", "weighted", measured.curves.weighted),
        plots.Line("best of N", "prm", measured.curves.best),
        plots.Line("majority", "majority", measured.curves.majority),
    ]
    told = ", ".join(f"{line.name} {line.values[-1]:.3f}" for line in lines)
    label = f"Share of problems answered rightly with {measured.n_samples} samples: {told}"
    return plots.curves(measured.curves.n, lines, label)


def _shown(report: Report) -> list[Sequence[Record]]:
    """The problems that tell most: those with right and wrong solutions come first."""

    def mixed(pool: Sequence[Record]) -> bool:
        return len({record.trajectory.correct for record in pool}) > 1

    return sorted(report.pools, key=mixed, reverse=True)[: report.max_problems]


def shown_problem(pool: Sequence[Record], report: Report) -> ShownProblem:
    """A problem with some of its solutions, as the templates show it."""
    order = sorted(range(len(pool)), key=lambda i: -_overall(pool[i], report))
    n = min(report.max_solutions, len(order))
    # Evenly from the best to the worst scored, both of them among those shown.
    kept = sorted({round(k * (len(order) - 1) / max(n - 1, 1)) for k in range(n)})
    problem = pool[0].trajectory.problem
    return ShownProblem(
        id=problem.id,
        text=problem.text,
        answer=problem.answer,
        solutions=[_solution(pool[order[k]], report, is_pick=k == 0) for k in kept],
        n_more=len(pool) - len(kept),
    )


def _overall(record: Record, report: Report) -> float:
    scored = record.scores[report.which]
    if isinstance(scored, Unscored) or not scored.values:
        return -math.inf
    return aggregate_scores(scored, report.aggregation)


def _solution(record: Record, report: Report, *, is_pick: bool) -> _Solution:
    trajectory, scored = record.trajectory, record.scores[report.which]
    truth = record.labels.first_error if record.labels else None
    values: Sequence[float | None] = [None] * len(trajectory.steps)
    found, plot = None, None
    if isinstance(scored, StepScores):
        values = scored.values
        if report.threshold is not None:
            found = predicted_first_error(scored.values, report.threshold)
        if scored.values:
            plot = _profile(scored, report.threshold, truth, found)
    semantics = scored.semantics if isinstance(scored, StepScores) else "correctness"
    steps = [
        _Step(
            text=step.text.strip("\n"),
            observation=step.observation,
            score="" if value is None else f"{value:.2f}",
            shade="" if value is None else f"s{round(SHADES * share(value, semantics))}",
            found=index == found,
            truth=index == truth,
        )
        for index, (step, value) in enumerate(zip(trajectory.steps, values, strict=True))
    ]
    overall = _overall(record, report)
    return _Solution(
        steps=steps,
        overall=f"{overall:.3f}" if math.isfinite(overall) else "–",
        answer=trajectory.answer,
        correct=trajectory.correct,
        verdict=_verdict(truth, found, record.labels is not None and report.threshold is not None),
        plot=plot,
        unscored=scored.reason if isinstance(scored, Unscored) else None,
        is_pick=is_pick,
    )


def _profile(
    scored: StepScores, threshold: float | None, truth: int | None, found: int | None
) -> Markup:
    shares = [share(value, scored.semantics) for value in scored.values]
    line = None if threshold is None else share(threshold, scored.semantics)
    return plots.profile(shares, line, truth, found)


def _verdict(truth: int | None, found: int | None, known: bool) -> str:
    """The suspected first error against the true one, in words; steps are counted from 1."""
    if not known:
        return "" if found is None else f"step {found + 1} is suspected"
    if truth is None:
        if found is None:
            return "all steps are right, and none is suspected"
        return f"false alarm: step {found + 1} is suspected, and all steps are right"
    if found is None:
        return f"missed: step {truth + 1} is the first wrong one, and none is suspected"
    if found == truth:
        return f"found: step {truth + 1} is the first wrong one"
    when = "too early" if found < truth else "too late"
    return f"{when}: step {found + 1} is suspected, step {truth + 1} is the first wrong one"


def share(value: float, semantics: Semantics) -> float:
    """A score on a scale from 0 to 1, for colours and small plots."""
    if semantics in ("correctness", "value"):
        return min(max(value, 0.0), 1.0)
    if semantics == "advantage":
        return min(max((value + 1) / 2, 0.0), 1.0)
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
