"""Are scorers any good, and is one better than the other? Any benchmark, figures with intervals.

    python recipes/4_evaluate.py [BENCHMARK DATA] [--model FOLDER] [--problems N] [--report FILE]

BENCHMARK is one that ``prm evaluate`` lists and DATA a file or folder with its data as published;
without them the embedded world makes its own cases. Two scorers are measured on the same cases:
the model (by default the embedded PRM), and the log-ratio of the embedded policy to its base, which
was never trained on steps. Their difference is paired: what is hard for both falls out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import ImplicitScorer, load_scorer
from prmkit.embedded.benchmark import BENCHMARKS as EMBEDDED
from prmkit.embedded.build import WEIGHTS
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import Benchmark, Case, group_numbers
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure, statistics_of
from prmkit.evaluation.statistics import Bootstrap
from prmkit.evaluation.tables import interval, markdown, table_of
from prmkit.report import write_evaluation
from prmkit.scorers.base import Scorer

SHOWN = ("first_error/f1", "f1", "steps/roc_auc", "solutions/within_problem_auc/min")


def cases_of(options: argparse.Namespace) -> tuple[Benchmark, list[Case]]:
    if options.benchmark is None:
        world = EMBEDDED["embedded"]
        assert world.make is not None
        return world, world.make(options.problems)
    known = BENCHMARKS[options.benchmark]
    return known, known.read(options.data)


def judge(scorer: Scorer, cases: list[Case]) -> list[Judgement]:
    return [Judgement(scored) for scored in scorer.score([c.record.trajectory for c in cases])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", nargs="?", choices=sorted(BENCHMARKS))
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--model", type=Path, default=WEIGHTS / "prm")
    parser.add_argument("--problems", type=int, default=30)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    known, cases = cases_of(options)
    judges = {
        "model": judge(load_scorer(options.model), cases),
        "log-ratio": judge(ImplicitScorer(WEIGHTS / "base", WEIGHTS / "policy"), cases),
    }
    settings = MeasureSettings()
    evaluation = measure(known, cases, judges, settings)
    print(markdown(table_of(evaluation)))
    for name, model in evaluation.models.items():
        print(f"{name}: {model.scored} cases scored, {model.unscored} not")
        for key in (k for k in SHOWN if k in model.figures):
            print(f"  {key:36} {interval(model.figures[key], 1, 3)}")

    groups, protocol = group_numbers(cases), settings.protocol
    statistics = [
        statistics_of(known, Judged.of(cases, given, groups, protocol, known.equal), protocol)[0]
        for given in judges.values()
    ]
    bootstrap = Bootstrap(int(groups.max()) + 1)
    for key in (k for k in SHOWN if all(k in figures for figures in statistics)):
        gap, p = bootstrap.difference(statistics[0][key], statistics[1][key])
        told = "not defined" if p is None else f"{interval(gap, 1, 3)}, p = {p:.3f}"
        print(f"model - log-ratio, {key}: {told}")
    if options.report:
        write_evaluation(
            evaluation, options.report, protocol=settings.protocol, settings=vars(options)
        )


if __name__ == "__main__":
    main()
