"""Searches side by side at equal cost: accuracy against tokens and seconds, with paired intervals.

A search has an answer at every moment, so each recorded run gives its whole curve: how often it
would have been right, had every problem been stopped at so many tokens. Runs are compared where
they cost alike, not where they have the same N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.evaluation.bootstrap import Interval, paired_bootstrap
from prmkit.policies.sampling import Judge
from prmkit.search.anytime import Moment, at, moments, settings_of
from prmkit.search.drive import grouping
from prmkit.search.replay import recorded, traces_in
from prmkit.search.tree import Cost

Floats = npt.NDArray[np.float64]
Of = Literal["tokens", "seconds"]
POINTS = 12


class Costs(NamedTuple):
    """What a run spent on a problem, on average."""

    policy_tokens: float
    scorer_tokens: float
    prompt_tokens: float
    cached_tokens: float
    calls: float
    seconds: float

    @property
    def tokens(self) -> float:
        """Policy tokens and scorer tokens."""
        return self.policy_tokens + self.scorer_tokens


class SearchFigures(NamedTuple):
    """One run.

    Attributes:
        name: the folder's, or as it was given.
        algorithm: with its options.
        right: [P] whether each problem's answer is right.
        oracle: [P] whether any candidate of it is.
        costs: means over problems.
        accuracy: with its interval.
        gap: of the oracle over the choice, with its interval.
        difference: to the first run, at the end of each; None for the first.
        curves: of ``tokens`` and ``seconds``: [points] of accuracy, its interval, and the oracle.
    """

    name: str
    algorithm: str
    right: Floats
    oracle: Floats
    costs: Costs
    accuracy: Interval
    gap: Interval
    difference: Interval | None
    curves: Mapping[Of, Curve]


class Curve(NamedTuple):
    """Accuracy at amounts spent.

    Attributes:
        accuracy: at each point, with its interval.
        oracle: at each point.
        difference: to the first run at the same point; None for the first run.
    """

    accuracy: list[Interval]
    oracle: list[float]
    difference: list[Interval] | None


class Searches(NamedTuple):
    """Runs over the same problems.

    Attributes:
        n_problems: that all of them have, with reference answers.
        points: amounts at which the curves are given, by what is spent.
        runs: in the order given.
    """

    n_problems: int
    points: Mapping[Of, list[float]]
    runs: list[SearchFigures]

    def metrics(self) -> dict[str, Any]:
        """All figures as JSON."""
        return {
            "problems": self.n_problems,
            "points": dict(self.points),
            "runs": {
                run.name: {
                    "algorithm": run.algorithm,
                    "accuracy": list(run.accuracy),
                    "oracle": float(run.oracle.mean()),
                    "gap": list(run.gap),
                    "minus_the_first": None if run.difference is None else list(run.difference),
                    "costs": {**run.costs._asdict(), "tokens": run.costs.tokens},
                    "curves": {
                        of: {
                            "accuracy": [list(x) for x in curve.accuracy],
                            "oracle": curve.oracle,
                            "minus_the_first": None
                            if curve.difference is None
                            else [list(x) for x in curve.difference],
                        }
                        for of, curve in run.curves.items()
                    },
                }
                for run in self.runs
            },
        }


class _Run(NamedTuple):
    """A run as it is read."""

    algorithm: str
    moments: dict[str, list[Moment]]
    costs: dict[str, Cost]
    seconds: dict[str, float]


def compare_searches(runs: Mapping[str, Path], judge: Judge) -> Searches:
    """Compare recorded runs.

    Args:
        runs: folders that ``prm search`` wrote, by name; the first is what others are compared
            with.
        judge: the answer of a solution, and whether it is right.

    Raises:
        NothingToMeasure: if no problem with a reference answer is in all of them.
        InvalidSetting: if no run is given.
    """
    if not runs:
        raise InvalidSetting("give the folders of one or more runs of prm search")
    read = {name: _read(folder, judge) for name, folder in runs.items()}
    shared = [
        key
        for key in next(iter(read.values())).moments
        if all(key in run.moments for run in read.values())
    ]
    if not shared:
        raise NothingToMeasure(
            "no problem with a reference answer was searched to its end in all of "
            + ", ".join(str(folder) for folder in runs.values())
        )
    points: dict[Of, list[float]] = {
        of: _points([m for run in read.values() for key in shared for m in run.moments[key]], of)
        for of in ("tokens", "seconds")
    }
    first = next(iter(read.values()))
    figures = [
        _figures(name, run, None if run is first else first, shared, points)
        for name, run in read.items()
    ]
    return Searches(len(shared), points, figures)


def _read(folder: Path, judge: Judge) -> _Run:
    algorithm = ""
    found = _Run("", {}, {}, {})
    for path in traces_in(folder):
        search = recorded(path)
        if search.problem.answer is None or search.end is None:
            continue
        about = search.about
        settings = settings_of(search)
        options = {k: v for k, v in about["algorithm"].items() if k != "name"}
        shown = ", ".join(f"{k}={v}" for k, v in options.items())
        algorithm = f"{about['algorithm']['name']}({shown})"
        key = search.problem.id
        found.moments[key] = moments(search, settings, judge, grouping(settings.answers))
        found.costs[key] = search.cost
        found.seconds[key] = float(search.end["t"])
    return found._replace(algorithm=algorithm)


def _points(every: Sequence[Moment], of: Of) -> list[float]:
    spent = [float(getattr(moment, of)) for moment in every if getattr(moment, of) > 0]
    if not spent:
        return []
    low, high = float(np.quantile(spent, 0.01)), max(spent)
    found = np.geomspace(low, high, POINTS)
    # The last one is not before the end.
    unit = 10.0 ** (math.floor(math.log10(high)) - 2)
    return sorted({float(f"{x:.3g}") for x in found[:-1]} | {float(f"{_up(high, unit):.6g}")})


def _up(value: float, unit: float) -> float:
    return math.ceil(value / unit - 1e-9) * unit


def _figures(
    name: str,
    run: _Run,
    first: _Run | None,
    shared: Sequence[str],
    points: Mapping[Of, list[float]],
) -> SearchFigures:
    right, oracle = _ends(run, shared)
    n = len(shared)
    cost = Cost()
    for key in shared:
        cost = cost.plus(run.costs[key])
    curves: dict[Of, Curve] = {}
    for of, where in points.items():
        mine = _table(run, shared, where, of, "correct")
        best = _table(run, shared, where, of, "oracle")
        theirs = None if first is None else _table(first, shared, where, of, "correct")
        curves[of] = Curve(
            [_mean(column) for column in mine.T],
            best.mean(axis=0).tolist(),
            None
            if theirs is None
            else [_paired(a, b) for a, b in zip(mine.T, theirs.T, strict=True)],
        )
    return SearchFigures(
        name,
        run.algorithm,
        right,
        oracle,
        Costs(
            cost.policy_tokens / n,
            cost.scorer_tokens / n,
            cost.prompt_tokens / n,
            cost.cached_tokens / n,
            cost.calls / n,
            sum(run.seconds[key] for key in shared) / n,
        ),
        _mean(right),
        _paired(oracle, right),
        None if first is None else _paired(right, _ends(first, shared)[0]),
        curves,
    )


def _ends(run: _Run, shared: Sequence[str]) -> tuple[Floats, Floats]:
    last = [run.moments[key][-1] for key in shared]
    return (
        np.array([float(moment.correct) for moment in last]),
        np.array([float(moment.oracle) for moment in last]),
    )


def _table(run: _Run, shared: Sequence[str], points: Sequence[float], of: Of, what: str) -> Floats:
    return np.array([at(run.moments[key], points, of, what) for key in shared])


def _mean(values: Floats) -> Interval:
    return _paired(values, np.zeros(len(values)))


def _paired(a: Floats, b: Floats) -> Interval:
    return paired_bootstrap(a.tolist(), b.tolist())
