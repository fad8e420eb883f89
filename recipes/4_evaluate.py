"""Is a scorer any good? Pools of scored solutions, measured from every side.

    python recipes/4_evaluate.py [POOLS] [--which 0] [--aggregate min] [--report FILE]

POOLS is a file of scored solutions whose correctness is known, such as `records.jsonl` of a
quickstart; without one, the embedded PRM scores fresh samples of the embedded policy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import (
    DiscriminativeScorer,
    HFPolicy,
    Record,
    SamplingSettings,
    read_records,
    sample,
    splitter,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.evaluation import PoolSettings, measure_pools
from prmkit.report import Report, write_report


def embedded_pools(n_problems: int, n_samples: int) -> list[list[Record]]:
    policy, prm = HFPolicy(WEIGHTS / "policy"), DiscriminativeScorer(WEIGHTS / "prm")
    settings = SamplingSettings(temperature=0.8, max_new_tokens=200)
    items = list(problems("test", n_problems))
    pools = sample(policy, items, n_samples, splitter("line"), judge, settings=settings)
    return [
        [
            Record(trajectory=t, labels=true_labels(t), scores=(scores,))
            for t, scores in zip(pool, prm.score(pool), strict=True)
        ]
        for pool in pools
    ]


def stored_pools(path: Path) -> list[list[Record]]:
    by_problem: dict[str, list[Record]] = {}
    for record in read_records(path):
        by_problem.setdefault(record.trajectory.problem.id, []).append(record)
    return list(by_problem.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pools", nargs="?", type=Path)
    parser.add_argument("--which", type=int, default=0, help="which of a record's scores")
    parser.add_argument("--aggregate", default="min")
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    pools = (
        stored_pools(options.pools)
        if options.pools
        else embedded_pools(options.problems, options.samples)
    )
    measured = measure_pools(pools, options.which, PoolSettings(aggregation=options.aggregate))
    for name, value in {**measured.policy_metrics(), **measured.metrics()}.items():
        print(f"{name:28} {value:8.4f}")
    if options.report:
        write_report(
            Report(
                title="A scorer, measured",
                pools=pools,
                which=options.which,
                aggregation=options.aggregate,
                measured=measured,
            ),
            options.report,
        )


if __name__ == "__main__":
    main()
