"""Label the steps of solutions by rollouts, resumably, in two ways, and keep what both say.

    python recipes/2_label.py OUT [--problems 20] [--samples 2] [--rollouts 8] [--server URL]

Samples solutions of training problems of the embedded world, labels them by rollouts of every
prefix and by the sequential test, and writes OUT/labelled.jsonl, with what both agree on in
OUT/agreed.jsonl. Both ask one store, which draws no rollout twice. Since this world has a judge, it
also says how many first errors each found; with your own problems, put your policy and
`judge_by_answer` in their places. The completer is the embedded policy, or whatever an
OpenAI-compatible server at URL serves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import Record, SamplingSettings, monte_carlo, sample, splitter, write_records
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.labelling import RolloutStore, consensus, drive, places, sequential
from prmkit.ledger import Ledger
from prmkit.policies.loading import load_policy
from prmkit.policies.settings import PolicySettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--server", help="where the completer is, instead of this process")
    options = parser.parse_args()
    here = None if options.server else str(WEIGHTS / "policy")
    # A server gets token ids, made by the tokenizer of the model that it serves.
    tokenizer = str(WEIGHTS / "policy") if options.server else None
    policy = load_policy(PolicySettings(policy=here, server=options.server, tokenizer=tokenizer))
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
    methods = {
        "rollouts of every prefix": lambda t: monte_carlo(t, n_rollouts=options.rollouts),
        "sequential test": sequential,
    }
    labelled: dict[str, list[Record]] = {}
    # What the rollouts depend on; a ledger of other settings is refused, not reused.
    about = {"policy": policy.name, "temperature": settings.temperature}
    with Ledger(options.out / "rollouts.sqlite", about) as ledger:
        for name, method in methods.items():
            store = RolloutStore(policy, judge, settings, ledger=ledger)
            labelled[name] = [
                Record(trajectory=t, labels=labels)
                for t, labels in drive(trajectories, method, store)
            ]
            hits = [
                r.labels is not None
                and r.labels.first_error == true_labels(r.trajectory).first_error
                for r in labelled[name]
            ]
            print(f"{name}: {store.drawn} rollouts, first error right: {sum(hits)} of {len(hits)}")
    every, tested = labelled.values()
    written = write_records(every, options.out / "labelled.jsonl")
    print(f"{written} solutions in {options.out / 'labelled.jsonl'}")
    agreed = [a.record for a in consensus(tested, places(every)) if a.outcome == "agree"]
    print(f"{write_records(agreed, options.out / 'agreed.jsonl')} of them in agreed.jsonl")


if __name__ == "__main__":
    main()
