"""The shipped checkpoints on fresh problems of the embedded world, in and out of domain.

    python benchmarks/embedded_world.py [--weights DIR] [--problems N] [--out FILE]

Samples solutions with the policy, scores them with the PRM and with the untrained log-ratio of
base to policy, and compares picking with voting. Every figure is over the same samples.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import LOG_RATIO_THRESHOLD, SAMPLING, judge, split_lines
from prmkit.embedded.world import Split, problems
from prmkit.evaluation import PoolSettings, measure_pools
from prmkit.files import write_json
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Record
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.implicit import ImplicitScorer

RESULTS = Path(__file__).parent / "results" / "embedded_world.json"


def evaluate(weights: Path, split: Split, n_problems: int, n_samples: int) -> dict[str, Any]:
    """Figures of one split."""
    policy = HFPolicy(weights / "policy", device="cpu")
    scorers = {
        "prm": DiscriminativeScorer(weights / "prm", device="cpu"),
        "implicit": ImplicitScorer(weights / "base", weights / "policy", device="cpu"),
    }
    start = time.perf_counter()
    groups = list(
        sample(
            policy,
            list(problems(split, n_problems)),
            n_samples,
            split_lines,
            judge,
            settings=SAMPLING,
            seed=1,
        )
    )
    sampled = time.perf_counter()
    scored = [
        list(zip(*(scorer.score(group) for scorer in scorers.values()), strict=True))
        for group in groups
    ]
    seconds = {"sample": sampled - start, "score": time.perf_counter() - sampled}
    pools = [
        [
            Record(trajectory=t, labels=true_labels(t), scores=tuple(s))
            for t, s in zip(group, scores, strict=True)
        ]
        for group, scores in zip(groups, scored, strict=True)
    ]
    result: dict[str, Any] = {"problems": n_problems, "samples": n_samples}
    for which, name in enumerate(scorers):
        ways = ("min", "product", "mean", "last") if name == "prm" else ("sum", "mean", "min")
        for how in ways:
            threshold = 0.5 if name == "prm" else LOG_RATIO_THRESHOLD
            measured = measure_pools(
                pools, which, PoolSettings(aggregation=how, threshold=threshold)
            )
            result[f"{name}, {how}"] = measured.metrics()
    result["policy"] = measured.policy_metrics()
    result["seconds"] = {k: round(v, 1) for k, v in seconds.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "sampling": {"temperature": SAMPLING.temperature, "top_p": SAMPLING.top_p},
    }
    for split in ("test", "ood"):
        results[split] = evaluate(options.weights, split, options.problems, options.samples)
        for name, figures in results[split].items():
            print(split, name, figures, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["peak_memory_gib"] = round(peak / 2**20, 2)
    write_json(options.out, results)


if __name__ == "__main__":
    main()
