"""Label the steps of solutions by Monte Carlo rollouts, resumably, and check them.

    python recipes/2_label.py OUT [--problems 20] [--samples 2] [--rollouts 8]

Samples solutions of training problems of the embedded world, labels them, and writes
OUT/labelled.jsonl. Since this world has a judge, it also says how many first errors the rollouts
got right; with your own problems, put your policy and `judge_by_answer` in their places.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import HFPolicy, SamplingSettings, label, monte_carlo, sample, splitter, write_records
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--rollouts", type=int, default=8)
    options = parser.parse_args()
    policy = HFPolicy(WEIGHTS / "policy")
    settings = SamplingSettings(temperature=0.8, max_new_tokens=200)
    pools = sample(
        policy,
        list(problems("train", options.problems)),
        options.samples,
        splitter("line"),
        judge,
        settings=settings,
    )
    trajectories = [trajectory for pool in pools for trajectory in pool]
    # What the labels depend on; a ledger of other settings is refused, not reused.
    about = {"policy": policy.name, "rollouts": options.rollouts}
    with Ledger(options.out / "labels.sqlite", about) as ledger:
        records = list(
            label(
                trajectories,
                lambda t: monte_carlo(t, n_rollouts=options.rollouts, kind="hard"),
                policy,
                judge,
                settings=settings,
                ledger=ledger,
            )
        )
    written = write_records(records, options.out / "labelled.jsonl")
    hits = [
        record.labels is not None
        and record.labels.first_error == true_labels(record.trajectory).first_error
        for record in records
    ]
    print(f"{written} solutions in {options.out / 'labelled.jsonl'}")
    print(f"first error right: {sum(hits)} of {len(hits)}")


if __name__ == "__main__":
    main()
