"""Several judges on the same solutions: which picks best, which finds the step?

    python recipes/5_judges.py [--problems 40] [--samples 8]

Without a model of yours: the embedded PRM, log-ratios of two language models (nothing trained),
self-consistency (no labels either), and an ensemble fitted on the steps of other problems.
"""

from __future__ import annotations

import argparse

from prmkit import (
    DiscriminativeScorer,
    EnsembleScorer,
    HFPolicy,
    ImplicitScorer,
    Record,
    SamplingSettings,
    SelfConsistencyScorer,
    StepScores,
    Trajectory,
    fit_combination,
    sample,
    splitter,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.evaluation import PoolSettings, measure_pools
from prmkit.scorers.base import Scorer
from prmkit.scorers.families import IMPLICIT

SETTINGS = SamplingSettings(temperature=0.8, max_new_tokens=200)


def pools(policy: HFPolicy, split: str, n_problems: int, n_samples: int) -> list[list[Trajectory]]:
    items = list(problems(split, n_problems))
    return list(sample(policy, items, n_samples, splitter("line"), judge, settings=SETTINGS))


def fitted(scorers: list[Scorer], solutions: list[Trajectory]) -> EnsembleScorer:
    """Logistic regression of true labels on the scorers' scores, up to each first error."""
    rows: list[tuple[float, ...]] = []
    right: list[bool] = []
    for solution, *scored in zip(solutions, *(s.score(solutions) for s in scorers), strict=True):
        if not all(isinstance(one, StepScores) for one in scored):
            continue
        labels = true_labels(solution).values
        n = next((i + 1 for i, label in enumerate(labels) if label == 0), len(labels))
        rows += list(zip(*(one.values for one in scored), strict=True))[:n]
        right += [label == 1 for label in labels[:n]]
    return EnsembleScorer(scorers, fit_combination(rows, right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    policy, base = WEIGHTS / "policy", WEIGHTS / "base"
    writer = HFPolicy(policy)
    prm = DiscriminativeScorer(WEIGHTS / "prm")
    ratio = ImplicitScorer(base, policy)
    judges: dict[str, tuple[Scorer, str]] = {
        "prm": (prm, "min"),
        "log-ratio of base to policy": (ratio, "sum"),
        "contrast, lowest chunk": (
            ImplicitScorer(base, policy, family=IMPLICIT["contrast"]),
            "min",
        ),
        "likelihood under the base": (ImplicitScorer(base, family=IMPLICIT["likelihood"]), "min"),
        "self-consistency": (
            SelfConsistencyScorer(writer, SETTINGS, n_votes=16, n_rollouts=4),
            "last",
        ),
    }
    other = [t for pool in pools(writer, "train", options.problems, 4) for t in pool]
    judges["prm and log-ratio, fitted"] = (fitted([prm, ratio], other), "min")
    solutions = pools(writer, "test", options.problems, options.samples)
    print(f"{'judge':28} within-problem AUC  best of {options.samples}  majority")
    for name, (scorer, aggregation) in judges.items():
        scored = [
            [
                Record(trajectory=t, labels=true_labels(t), scores=(one,))
                for t, one in zip(pool, scorer.score(pool), strict=True)
            ]
            for pool in solutions
        ]
        found = measure_pools(scored, 0, PoolSettings(aggregation=aggregation))
        n, metrics, policy_metrics = options.samples, found.metrics(), found.policy_metrics()
        within = metrics.get("within_problem_auc", float("nan"))
        print(
            f"{name:28} {within:18.3f} {metrics[f'best_of_{n}']:10.3f} "
            f"{policy_metrics[f'majority@{n}']:9.3f}"
        )


if __name__ == "__main__":
    main()
