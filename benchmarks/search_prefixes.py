"""What a step beam search gains from prefixes that policy and scorer keep.

    python benchmarks/search_prefixes.py [--problems N] [--out FILE]

Beam search (width 4, 4 expansions a beam, depth 8): with keys and values of prefixes kept on both
sides, and with everything computed anew for every step, on the same models; results are compared.
The embedded models have a million parameters; beside their own questions of 50 tokens, the same are
searched with other questions before them, as prompts with worked examples are long.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.files import write_json
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem, StepScores, Trajectory, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.search import DriveSettings, Found, SearchSettings, algorithm, search

RESULTS = Path(__file__).parent / "results" / "search_prefixes.json"
BEAM = {"n": 16, "width": 4, "max_steps": 8, "distinct": False}


class Anew:
    """A scorer that keeps nothing: every text is read from its beginning, as peers do."""

    def __init__(self, scorer: DiscriminativeScorer):
        self._scorer, self.semantics, self.name = scorer, scorer.semantics, scorer.name
        self.computed = 0

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """One text at a time, so that not even the question is shared."""
        self.computed += sum(self._scorer.n_tokens(trajectories))
        return [found for one in trajectories for found in self._scorer.score([one])]


def went(
    policy: HFPolicy, scorer: Any, items: Sequence[Problem], step_tokens: int
) -> tuple[list[Found], float]:
    settings = SearchSettings(
        split="line", max_step_tokens=step_tokens, max_tokens=200, answers="text", answer_ends=False
    )
    begun = time.perf_counter()
    found = list(
        search(
            items,
            partial(algorithm("beam", **BEAM)),
            policy,
            scorer,
            settings=settings,
            driving=DriveSettings(in_flight=1),
            judge=lambda problem, text: Outcome(text, None),
        )
    )
    return found, time.perf_counter() - begun


def measure(policy: Path, prm: Path, items: Sequence[Problem], step_tokens: int) -> dict[str, Any]:
    """Both ways on the same problems."""
    kept = HFPolicy(policy, device="cpu")
    scorer = DiscriminativeScorer(prm, device="cpu")
    went(kept, scorer, items[:1], step_tokens)
    before, read = kept.computed, scorer.prefixes().computed
    ours, fast = went(kept, scorer, items[1:], step_tokens)
    computed = kept.computed - before, scorer.prefixes().computed - read
    anew, plain = (
        HFPolicy(policy, device="cpu", max_kept=0),
        DiscriminativeScorer(prm, device="cpu"),
    )
    slowly = Anew(plain)
    start = anew.computed
    theirs, slow = went(anew, slowly, items[1:], step_tokens)
    same = sum(
        [(n.path, n.text) for n in a.root.walk()] == [(n.path, n.text) for n in b.root.walk()]
        for a, b in zip(ours, theirs, strict=True)
    )
    # Each token of the tree once: the question, and every node's own.
    drawn = sum(one.cost.policy_tokens for one in ours)
    questions = sum(len(kept.question_ids(item)) for item in items[1:])
    scored = sum(one.cost.scorer_tokens for one in ours)
    return {
        "problems": len(items) - 1,
        "seconds_kept": fast,
        "seconds_anew": slow,
        "times_faster": slow / fast,
        "same_trees": same,
        "policy": {
            "computed": computed[0],
            "of_the_tree": drawn + questions,
            "ratio": computed[0] / (drawn + questions),
            "computed_anew": anew.computed - start,
        },
        "scorer": {
            "computed": computed[1],
            "of_the_tree": scored,
            "ratio": computed[1] / scored,
            "computed_anew": slowly.computed,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    items = list(problems("test", options.problems + 1, 46_000))
    others = list(problems("test", 12, 47_000))
    rows = {}
    for before in (0, 4, 12):
        # The policy knows one question at a time; what it answers here does not matter.
        longer = [
            Problem(id=item.id, prompt=" ".join([*(o.text for o in others[:before]), item.text]))
            for item in items
        ]
        name = f"{before} questions before"
        rows[name] = measure(WEIGHTS / "policy", WEIGHTS / "prm", longer, 60)
        print(name, rows[name], flush=True)
    about = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "beam": BEAM,
    }
    write_json(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
