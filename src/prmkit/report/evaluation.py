"""The page of an evaluation: tables, curves with intervals, calibration, the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.evaluation.cases import Case, Protocol, is_right
from prmkit.evaluation.figures import hit
from prmkit.evaluation.judgements import NATURAL_THRESHOLD, Judgement, decide
from prmkit.evaluation.pool_table import shown_numbers, usable
from prmkit.evaluation.run import Evaluation, ModelFigures
from prmkit.evaluation.statistics import Estimate
from prmkit.evaluation.tables import Table, interval, number, table_of
from prmkit.records import Record, StepScores, Unscored
from prmkit.report import plots
from prmkit.report.page import Report, ShownProblem, share, shown_problem, write_page

MISTAKES = 8
FULL_MODELS = 6
"""Judges that get a part of their own; more are in the table alone."""


class _Cell(NamedTuple):
    value: str
    interval: str


class _Row(NamedTuple):
    name: str
    published: bool
    cells: list[_Cell]


def write_evaluation(
    evaluation: Evaluation,
    path: Path | str,
    *,
    protocol: Protocol,
    settings: Mapping[str, Any],
    notices: list[str] | None = None,
) -> None:
    """Write the page as one HTML file, which appears whole or not at all.

    Args:
        evaluation: what was measured.
        path: of the file.
        protocol: how scores became verdicts.
        settings: of the run, for its end.
        notices: what the reader should know first.
    """
    known = evaluation.benchmark
    table = table_of(evaluation)
    models = list(evaluation.models.items())[:FULL_MODELS]
    name, first = models[0]
    shown = [f"the data differ from the published ones: {d}" for d in evaluation.differences]
    if len(evaluation.models) > FULL_MODELS:
        shown.append(f"{FULL_MODELS} of {len(evaluation.models)} judges are shown in full")
    write_page(
        "evaluation.html",
        path,
        title=f"{known.title}: {', '.join(evaluation.models)}"[:160],
        about=known.about,
        paper=f"arXiv:{known.paper}" if known.paper[:1].isdigit() else known.paper,
        n_cases=len(evaluation.cases),
        notices=[*(notices or []), *shown],
        tiles=_tiles(evaluation, first, table),
        note=table.note,
        head=table.lines()[0],
        rows=_rows(evaluation, table),
        has_published=any(row.published for row in table.rows),
        models=[_model(evaluation, n, m, protocol) for n, m in models],
        problems=_mistakes(evaluation, name, protocol),
        judged_by=name,
        settings={k: v for k, v in settings.items() if v not in (None, "", (), [], False)},
    )


def _tiles(evaluation: Evaluation, model: ModelFigures, table: Table) -> list[tuple[str, str, str]]:
    if len(evaluation.models) > 1:
        return []
    known = evaluation.benchmark
    tiles = []
    for name in [n for n in table.columns if n in model.figures][:6]:
        estimate = model.figures[name]
        ends = interval(estimate, known.scale, known.digits).partition(" ")[2]
        tiles.append((name, number(estimate, known.scale, known.digits), ends))
    return tiles


def _rows(evaluation: Evaluation, table: Table) -> list[_Row]:
    """The lines of the table, with intervals under one's own numbers."""
    known = evaluation.benchmark
    own = {row.model: evaluation.models[row.model] for row in table.rows if not row.published}
    head, lines = table.lines()
    rows = []
    for name, published, values in lines:
        cells = []
        for column, value in zip(head[1:], values, strict=True):
            model, figure = (name, column) if head[0] == "model" else (column, name)
            ends = ""
            if not published and figure in own[model].figures:
                estimate = own[model].figures[figure]
                ends = interval(estimate, known.scale, known.digits).partition(" ")[2]
            cells.append(_Cell(value, ends))
        rows.append(_Row(name, published, cells))
    return rows


def _model(
    evaluation: Evaluation, name: str, model: ModelFigures, protocol: Protocol
) -> dict[str, Any]:
    reasons = "; ".join(f"{why} ({n})" for why, n in list(model.reasons.items())[:3])
    facts = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in model.facts.items()
    )
    return {
        "name": name,
        "scored": model.scored,
        "unscored": model.unscored,
        "reasons": reasons,
        "facts": facts,
        "plots": _plots(model, protocol.aggregation),
        "has_curves": f"best_of_1/{protocol.aggregation}" in model.figures,
        "tables": _tables(evaluation, model),
    }


def _plots(model: ModelFigures, how: Aggregation) -> list[tuple[str, Markup, str]]:
    shown: list[tuple[str, Markup, str]] = []
    if f"best_of_1/{how}" in model.figures:
        shown.append(
            (
                "Problems answered rightly, by the number of samples",
                _curves(model, how),
                f"Scores of solutions are the {how} of their steps; the band is the 95 % interval "
                "of best of N.",
            )
        )
    if model.calibration is not None:
        shown.append(
            (
                "Does a score mean what it says?",
                plots.reliability(model.calibration),
                "Upwards: the share of steps that are right. Expected calibration error "
                f"{model.calibration.expected_error:.3f}, Brier score "
                f"{model.calibration.brier:.3f}.",
            )
        )
    if model.drift and all(0 <= score <= 1 for _, _, score, _ in model.drift):
        points = [((a + b) / 2, score, n) for a, b, score, n in model.drift]
        told = "Mean score of right steps, from the first to the last"
        shown.append(("Do scores drift along a solution?", plots.along(points, told), told + "."))
    return shown


def _curves(model: ModelFigures, how: Aggregation) -> Markup:
    last = max(int(n.removeprefix("pass_")) for n in model.figures if n.startswith("pass_"))
    numbers = shown_numbers(last)

    def line(name: str, kind: str, pattern: str, *, band: bool = False) -> plots.Line:
        estimates = [model.figures[pattern.format(n)] for n in numbers]
        values = [e.value or 0.0 for e in estimates]
        if not band or any(e.low is None or e.high is None for e in estimates):
            return plots.Line(name, kind, values)
        low, high = [e.low or 0.0 for e in estimates], [e.high or 0.0 for e in estimates]
        return plots.Line(name, kind, values, low, high)

    lines = [
        line("any right", "oracle", "pass_{}"),
        line("weighted vote", "weighted", f"weighted_vote_{{}}/{how}"),
        line("best of N", "prm", f"best_of_{{}}/{how}", band=True),
        line("majority", "majority", "majority_{}"),
    ]
    told = ", ".join(f"{one.name} {one.values[-1]:.3f}" for one in lines)
    return plots.curves(numbers, lines, f"Share of problems answered rightly: {told}")


def _tables(evaluation: Evaluation, model: ModelFigures) -> list[tuple[str, list[tuple[str, ...]]]]:
    tables: list[tuple[str, list[tuple[str, ...]]]] = []
    numbered = ("best_of_", "weighted_vote_", "majority_", "pass_")
    plain = {k: v for k, v in model.figures.items() if not k.startswith(numbered)}
    if plain:
        tables.append(("figures, in shares of 1", [_told(k, v) for k, v in plain.items()]))
    if model.aggregations:
        ways: list[tuple[str, ...]] = [
            (way.how, interval(way.figure, 1, 4), "to the best " + interval(way.to_best, 1, 4))
            for way in model.aggregations
        ]
        tables.append(("which aggregation", ways))
    if model.diagnostics:
        told: list[tuple[str, ...]] = [_told(k, v) for k, v in model.diagnostics.items()]
        tables.append(("what the scores are made of", told))
    if model.strata:
        names = list(next(iter(model.strata.values())))
        rows: list[tuple[str, ...]] = [("samples right", *names)]
        for stratum, figures in model.strata.items():
            n = next(iter(figures.values())).n
            rows.append((f"{stratum}, n = {n}", *(number(e, 1, 3) for e in figures.values())))
        tables.append(("by difficulty", rows))
    return tables


def _told(name: str, estimate: Estimate) -> tuple[str, str, str]:
    return (name, interval(estimate, 1, 4), f"n = {estimate.n}")


class _Mistake(NamedTuple):
    certainty: float
    records: list[Record]
    title: str


def _mistakes(evaluation: Evaluation, name: str, protocol: Protocol) -> list[ShownProblem]:
    """What a judge got wrong with the most certainty: cases, or picks among samples."""
    judged = list(zip(evaluation.cases, evaluation.judges[name], strict=True))
    found = [m for case, said in judged if (m := _wrong_case(evaluation, case, said, protocol))]
    if not found:
        pools: dict[str, list[tuple[Case, Judgement]]] = {}
        for case, said in judged:
            pools.setdefault(case.record.trajectory.problem.id, []).append((case, said))
        found = [m for pool in pools.values() if (m := _wrong_pick(pool, protocol.aggregation))]
    found.sort(key=lambda mistake: -mistake.certainty)
    return [_shown(mistake, protocol) for mistake in found[:MISTAKES]]


def _shown(mistake: _Mistake, protocol: Protocol) -> ShownProblem:
    first = mistake.records[0].scores[0]
    natural = NATURAL_THRESHOLD[first.semantics] if isinstance(first, StepScores) else 0.5
    threshold = protocol.rule.threshold
    report = Report(
        title="",
        pools=[],
        which=0,
        threshold=natural if threshold is None else threshold,
        aggregation=protocol.aggregation,
    )
    return shown_problem(mistake.records, report)._replace(id=mistake.title)


def _wrong_case(
    evaluation: Evaluation, case: Case, said: Judgement, protocol: Protocol
) -> _Mistake | None:
    verdict = decide(said, protocol.rule, evaluation.benchmark.equal)
    if verdict is None or case.record.labels is None or hit(case, verdict):
        return None
    title = f"{case.id} ({case.split})"
    scores = said.scores
    if isinstance(scores, StepScores) and scores.values:
        record = case.record.model_copy(update={"scores": (scores,)})
        return _Mistake(_certainty(scores, is_right(case), case.record), [record], title)
    if verdict.right is None:
        told = "what the judge said cannot be read"
    elif verdict.first_error is None:
        told = "the judge says that all steps are right" if verdict.right else "it names no step"
    else:
        told = f"the judge says that step {verdict.first_error + 1} is the first wrong one"
    record = case.record.model_copy(update={"scores": (Unscored(reason=told),)})
    return _Mistake(0.0, [record], title)


def _wrong_pick(pool: list[tuple[Case, Judgement]], how: Aggregation) -> _Mistake | None:
    """The sample that is picked, where it is wrong and another is right, and the best right one."""
    scored = []
    for case, said in pool:
        scores = said.scores
        if not isinstance(scores, StepScores) or not scores.values:
            continue
        if how in usable([scores]):
            record = case.record.model_copy(update={"scores": (scores,)})
            overall = aggregate_scores(scores, how)
            scored.append((overall, bool(case.record.trajectory.correct), record))
    right = [one for one in scored if one[1]]
    if not right or len(right) == len(scored):
        return None
    picked, best = max(scored, key=lambda one: one[0]), max(right, key=lambda one: one[0])
    if picked[0] <= best[0]:
        return None
    records = [picked[2], best[2]]
    return _Mistake(picked[0] - best[0], records, records[0].trajectory.problem.id)


def _certainty(scores: StepScores, right: bool, record: Record) -> float:
    """How sure a judge was of the opposite: of a wrong step that it is right, or the reverse."""
    shares = [share(value, scores.semantics) for value in scores.values]
    first = record.labels.first_error if record.labels is not None else None
    if right or first is None:
        return 1 - min(shares)
    return shares[first]
