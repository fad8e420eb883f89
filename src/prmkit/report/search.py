"""The page of a search: trees that fold, the path that was chosen, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from prmkit.aggregate import Aggregation
from prmkit.errors import InvalidRecord
from prmkit.policies.sampling import Judge
from prmkit.records import Semantics
from prmkit.report import plots
from prmkit.report.page import SHADES, share, write_page
from prmkit.search.anytime import Moment, at, moments, settings_of
from prmkit.search.drive import grouping
from prmkit.search.replay import Recorded, recorded, traces_in
from prmkit.search.tree import Cost, Node

TREES, NODES = 12, 600
"""Problems that are shown with their trees, and nodes of each at most."""
WAYS: tuple[Aggregation, ...] = ("min", "product", "mean", "last")
POINTS = 8
"""Amounts at which the curves are drawn."""


class _Shown(NamedTuple):
    """A node as the template shows it."""

    text: str
    values: list[tuple[str, str, str]]
    finish: str
    error: str | None
    chosen: bool
    open: bool
    candidate: bool
    answer: str | None
    correct: bool | None
    tokens: str
    bar: int
    children: list[_Shown]


class _Tree(NamedTuple):
    """A problem with its tree."""

    id: str
    text: str
    reference: str | None
    answer: str | None
    correct: bool | None
    ended: str
    cost: str
    n_nodes: int
    left_out: int
    children: list[_Shown]


def write_search(path: Path | str, run: Path | str, judge: Judge, *, title: str) -> None:
    """Write the page of a search as one HTML file, which appears whole or not at all.

    Args:
        path: of the file.
        run: the run's folder, or its folder of traces.
        judge: the answer of a solution, and whether it is right.
        title: at its top.
    """
    searches = [recorded(trace) for trace in traces_in(run)]
    about = searches[0].about
    settings = settings_of(searches[0])
    group = grouping(settings.answers)
    over_time = [moments(search, settings, judge, group) for search in searches]
    total = Cost()
    for search in searches:
        total = total.plus(search.cost)
    write_page(
        "search.html",
        path,
        title=title,
        about=f"{about['algorithm']['name']} · policy {about['policy']}"
        + (f" · scorer {about['scorer']}" if about["scorer"] else ""),
        tiles=_tiles(searches, over_time, total),
        curves=_curves(over_time),
        ways=WAYS,
        first=settings.aggregation if settings.aggregation in WAYS else "min",
        trees=[_tree(search, judge) for search in searches[:TREES]],
        n_problems=len(searches),
        settings={
            **about["algorithm"],
            **{k: v for k, v in about["settings"].items() if v not in (None, [], "")},
            **{f"budget, {k}": v for k, v in about["budget"].items() if v is not None},
        },
    )


def _tiles(
    searches: Sequence[Recorded], over_time: Sequence[Sequence[Moment]], total: Cost
) -> list[tuple[str, str, str]]:
    """Name, number and explanation of the main figures."""
    n = len(searches)
    known = any(search.problem.answer is not None for search in searches)
    tiles: list[tuple[str, str, str]] = []
    if known:
        right = [bool(m and m[-1].correct) for m in over_time]
        oracle = [bool(m and m[-1].oracle) for m in over_time]
        gap = sum(oracle) - sum(right)
        tiles += [
            ("right", f"{sum(right) / n:.3f}", f"of {n} problems, the answer that was chosen"),
            ("oracle", f"{sum(oracle) / n:.3f}", "a right solution is among the candidates"),
            ("gap", f"{gap / n:.3f}", "found, and not chosen"),
        ]
    tiles += [
        ("policy tokens", _short(total.policy_tokens / n), "drawn for a problem, on average"),
        ("scorer tokens", _short(total.scorer_tokens / n), "read for a problem, on average"),
    ]
    if total.prompt_tokens:
        found = total.cached_tokens / total.prompt_tokens
        tiles.append(("prompts cached", f"{found:.1%}", "of the policy's prompt tokens"))
    return tiles


def _short(number: float) -> str:
    return f"{number:.0f}" if number < 10_000 else f"{number / 1000:.1f}k"


def _curves(over_time: Sequence[Sequence[Moment]]) -> list[tuple[str, Markup, str]]:
    """Accuracy against tokens and against seconds, were searches stopped there."""
    found = []
    for of, axis in (("tokens", "policy and scorer tokens of a problem"), ("seconds", "seconds")):
        spent = [getattr(m, of) for own in over_time for m in own if getattr(m, of) > 0]
        if not spent or max(spent) <= min(spent):
            continue
        low, high = float(np.quantile(spent, 0.02)), float(max(spent))
        points = [_round(x) for x in np.geomspace(low, high, POINTS)]
        points = sorted({*points[:-1], float(math.ceil(high * 100) / 100)})
        lines = []
        for name, kind, what in (("chosen", "prm", "correct"), ("oracle", "oracle", "oracle")):
            table = np.array([at(own, points, of, what) for own in over_time])
            lines.append(plots.Line(name, kind, table.mean(axis=0).tolist()))
        label = f"Accuracy against {of}: the choice at that moment, and the best possible one."
        found.append((f"Accuracy against {of}", plots.curves(points, lines, label, axis), label))
    return found


def _round(x: float) -> float:
    """To two digits that matter."""
    digits = 1 - math.floor(math.log10(x))
    return round(x, digits)


def _tree(search: Recorded, judge: Judge) -> _Tree:
    end = search.end or {}
    chosen = tuple(end.get("chosen") or ())
    candidates = {node.path for node in search.candidates.nodes}
    semantics: Semantics = search.about.get("semantics") or "correctness"
    most = max((node.cost.tokens for node in search.nodes.values()), default=1) or 1
    n_nodes = len(search.nodes) - 1
    shown = {node.path for _, node in zip(range(NODES + 1), search.root.walk(), strict=False)}
    on_path = {chosen[:i] for i in range(1, len(chosen) + 1)}
    shown |= on_path

    def show(node: Node) -> _Shown:
        outcome = search.outcome(node, judge) if node.is_finished else None
        return _Shown(
            _text(node),
            _values(node, semantics),
            "" if node.is_open else node.finish,
            node.error,
            node.path in on_path,
            node.path in on_path or len(node.path) < 2,
            node.path in candidates,
            None if outcome is None else outcome.answer,
            None if outcome is None else outcome.correct,
            f"{node.cost.policy_tokens} drawn, {node.cost.scorer_tokens} scored",
            max(round(12 * node.cost.tokens / most), 0),
            [show(child) for child in node.children if child.path in shown],
        )

    cost = search.cost
    return _Tree(
        search.problem.id,
        search.problem.text,
        search.problem.answer,
        end.get("answer"),
        end.get("correct"),
        end.get("ended", "not ended"),
        f"{cost.completions} completions of {cost.policy_tokens} tokens, "
        f"{cost.scorings} scorings of {cost.scorer_tokens}",
        n_nodes,
        max(n_nodes - len(shown) + 1, 0),
        [show(child) for child in search.root.children if child.path in shown],
    )


def _text(node: Node) -> str:
    """What was written, and what was answered to it."""
    written = "".join(node.steps) or node.text
    return written if node.observation is None else f"{written}\n→ {node.observation}"


def _values(node: Node, semantics: Semantics) -> list[tuple[str, str, str]]:
    """Way, number and shade of a node's aggregated scores."""
    found: list[tuple[str, str, str]] = []
    for way in WAYS:
        try:
            value = node.value(way, semantics)
        except InvalidRecord:
            value = None
        if value is not None:
            found.append((way, f"{value:.3f}", f"s{round(share(value, semantics) * SHADES)}"))
    return found
