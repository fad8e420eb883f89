"""Several evaluations of the same cases, side by side: differences are paired.

The same resamples of problems weight every judge, so what a problem's difficulty does to all of
them falls out of the differences.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prmkit.errors import NothingToMeasure, RunFolderError
from prmkit.evaluation.agreement import agreement
from prmkit.evaluation.cases import Benchmark, group_numbers
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.results import Run
from prmkit.evaluation.run import MeasureSettings, statistics_of
from prmkit.evaluation.statistics import Bootstrap, Estimate, Statistic

ALL_PAIRS = 6
"""Up to so many judges, all pairs are compared; of more, each with the first."""


class Difference(NamedTuple):
    """A figure of one judge against that of the first.

    Attributes:
        figure: its value with an interval.
        to_first: how far it is from the first judge's, paired; None of the first itself.
        p: of a two-sided test by the bootstrap that they are equal.
    """

    figure: Estimate
    to_first: Estimate | None
    p: float | None


class Comparison(NamedTuple):
    """Judges side by side.

    Attributes:
        benchmark: which.
        judges: their names; the first is what the others are compared with.
        figures: by name and judge.
        agreements: of pairs of judges, by the names of `prmkit.evaluation.agreement`; of all
            pairs of up to six judges, of more those with the first.
        n_cases: how many cases the figures are of: those that all of them scored, or all where a
            benchmark counts what is not scored.
        unscored: how many cases each judge did not score.
        settings: how each one's judgements became figures.
    """

    benchmark: Benchmark
    judges: list[str]
    figures: dict[str, dict[str, Difference]]
    agreements: dict[tuple[str, str], dict[str, Estimate]]
    n_cases: int
    unscored: dict[str, int]
    settings: dict[str, MeasureSettings]

    def metrics(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "benchmark": self.benchmark.name,
            "cases": self.n_cases,
            "compared_with": self.judges[0],
            "unscored": self.unscored,
            "measure": {name: asdict(settings) for name, settings in self.settings.items()},
            "figures": {
                name: {judge: _told(d) for judge, d in row.items()}
                for name, row in self.figures.items()
            },
            "agreement": [
                {"judges": list(pair), **{k: e._asdict() for k, e in figures.items()}}
                for pair, figures in self.agreements.items()
            ],
        }


def _told(difference: Difference) -> dict[str, Any]:
    told: dict[str, Any] = difference.figure._asdict()
    if difference.to_first is not None:
        told |= {"to_first": difference.to_first._asdict(), "p": difference.p}
    return told


def compare(
    runs: Sequence[Run],
    benchmarks: Mapping[str, Benchmark],
    settings: MeasureSettings | None = None,
) -> Comparison:
    """Set the judges of several runs side by side.

    Args:
        runs: of the same benchmark and the same cases.
        benchmarks: by name.
        settings: how judgements become figures, for all of them; by default those that each run
            was measured with.

    Raises:
        RunFolderError: if the runs are of other cases than each other.
        NothingToMeasure: if there are not two judges.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.benchmark != first.benchmark:
            raise RunFolderError(
                f"{first.folder} is of {first.benchmark}, {run.folder} of {run.benchmark}; only "
                "runs of the same benchmark can be compared"
            )
        if run.digest != first.digest:
            raise RunFolderError(
                f"{first.folder} has {len(first.cases)} cases and {run.folder} has "
                f"{len(run.cases)}, and they are not the same ones; evaluate both on the same data "
                "with the same --limit"
            )
    if first.benchmark not in benchmarks:
        raise RunFolderError(f"{first.folder} is of an unknown benchmark, {first.benchmark!r}")
    benchmark = benchmarks[first.benchmark]
    order = [case.id for case in first.cases]
    judges: dict[str, list[Judgement]] = {}
    how: dict[str, MeasureSettings] = {}
    for run in runs:
        places = {case.id: i for i, case in enumerate(run.cases)}
        for name, given in run.judges.items():
            # Two runs may be of the same model in other settings.
            unique = name if name not in judges else f"{name} ({run.folder.name})"
            number = 2
            while unique in judges:
                unique = f"{name} ({run.folder.name} {number})"
                number += 1
            judges[unique] = [given[places[case]] for case in order]
            how[unique] = settings or run.settings
    if len(judges) < 2:
        raise NothingToMeasure("there is one judge alone; two are needed to compare")
    unscored = {name: sum(j.unscored for j in given) for name, given in judges.items()}
    cases = first.cases
    if not benchmark.keeps_unscored and any(unscored.values()):
        # Only on the same cases is a difference paired.
        keep = [i for i in range(len(cases)) if not any(g[i].unscored for g in judges.values())]
        cases = [cases[i] for i in keep]
        judges = {name: [given[i] for i in keep] for name, given in judges.items()}
    if not cases:
        raise NothingToMeasure("there is no case that all judges scored")
    groups = group_numbers(cases)
    drawn = settings or first.settings
    bootstrap = Bootstrap(int(groups.max()) + 1, drawn.resamples, drawn.seed)
    judged = {
        name: Judged.of(cases, given, groups, how[name].protocol, benchmark.equal)
        for name, given in judges.items()
    }
    statistics = {
        name: statistics_of(benchmark, given, how[name].protocol)[0]
        for name, given in judged.items()
    }
    return Comparison(
        benchmark,
        list(judges),
        _figures(statistics, bootstrap),
        _agreements(judged, how, bootstrap),
        len(cases),
        unscored,
        how,
    )


def _figures(
    statistics: Mapping[str, dict[str, Statistic]], bootstrap: Bootstrap
) -> dict[str, dict[str, Difference]]:
    names = list(dict.fromkeys(name for of_judge in statistics.values() for name in of_judge))
    baseline = next(iter(statistics))
    figures: dict[str, dict[str, Difference]] = {}
    for name in names:
        figures[name] = {}
        for judge, of_judge in statistics.items():
            if name not in of_judge:
                continue
            gap, p = None, None
            if judge != baseline and name in statistics[baseline]:
                gap, p = bootstrap.difference(of_judge[name], statistics[baseline][name])
            figures[name][judge] = Difference(bootstrap.estimate(of_judge[name]), gap, p)
    return figures


def _agreements(
    judged: Mapping[str, Judged], how: Mapping[str, MeasureSettings], bootstrap: Bootstrap
) -> dict[tuple[str, str], dict[str, Estimate]]:
    first, *others = judged
    pairs = (
        itertools.combinations(judged, 2)
        if len(judged) <= ALL_PAIRS
        else ((first, other) for other in others)
    )
    return {
        (a, b): {
            name: bootstrap.estimate(statistic)
            for name, statistic in agreement(judged[a], judged[b], how[a].aggregate).items()
        }
        for a, b in pairs
    }
