"""Step labels by rollouts against exact truth: what each method costs, and how true it is.

    python benchmarks/labelling.py [--solutions N] [--out FILE] [--work DIR]

Solutions of the embedded policy to training problems of the embedded world, whose judge knows the
first wrong step. All methods draw from the same rollouts, each counted for whoever asks for it, so
differences are paired. DIR keeps the rollouts, so that a run can be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import SAMPLING, judge, split_lines
from prmkit.embedded.world import problems
from prmkit.evaluation import calibration
from prmkit.evaluation.bootstrap import paired_bootstrap
from prmkit.files import write_json
from prmkit.labelling import (
    Consistent,
    RolloutStore,
    consensus,
    first_error,
    monte_carlo,
    places,
    relative,
    run,
    self_consistency,
    sequential,
)
from prmkit.labelling.rollouts import MakeEstimator, Outcomes
from prmkit.labelling.store import Wanted, content_key
from prmkit.ledger import Ledger
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Record, StepLabels, StepScores, Trajectory
from prmkit.scorers.loading import load_scorer

RESULTS = Path(__file__).parent / "results" / "labelling.json"
SAMPLES = 8
BATCH = 64

METHODS: dict[str, MakeEstimator] = {
    "linear, any of 8": lambda t: monte_carlo(t, n_rollouts=8),
    "linear, any of 8, stop at success": lambda t: monte_carlo(
        t, n_rollouts=8, stop_at_success=True
    ),
    "linear, any of 8, stop at error": lambda t: monte_carlo(t, n_rollouts=8, stop_at_error=True),
    "linear, any of 8, stop at both": lambda t: monte_carlo(
        t, n_rollouts=8, stop_at_success=True, stop_at_error=True
    ),
    "linear, soft of 8": lambda t: monte_carlo(t, n_rollouts=8, kind="soft"),
    "relative to previous, 8": lambda t: relative(t, n_rollouts=8),
    "relative to root, 8": lambda t: relative(t, n_rollouts=8, to="root", least=0.5),
    "binary search, 8": lambda t: first_error(t, n_rollouts=8, stop_at_success=False),
    "binary search, 8, stop at success": lambda t: first_error(t, n_rollouts=8),
    "sequential, error rate 0.1": sequential,
    "sequential, error rate 0.05": lambda t: sequential(t, error_rate=0.05),
    "sequential, error rate 0.2": lambda t: sequential(t, error_rate=0.2),
    "sequential, right answers tested": lambda t: sequential(t, trust_right=False),
}


class Counted(RolloutStore):
    """Counts what one method asks for, once for each rollout; draws from a store that all share."""

    def __init__(self, shared: RolloutStore):
        self._shared = shared
        self._seen: dict[tuple[str, int], int] = {}

    def get(self, wanted: Sequence[Wanted]) -> list[Outcomes]:
        """See `RolloutStore.get`."""
        found = self._shared.get(wanted)
        for (key, _, first, n), outcomes in zip(wanted, found, strict=True):
            for number, outcome in zip(range(first, first + n), outcomes, strict=True):
                self._seen[key, number] = outcome.n_tokens
        return found

    def forget(self) -> None:
        """See `RolloutStore.forget`."""
        self._shared.forget()

    @property
    def cost(self) -> tuple[int, int]:
        """Different rollouts that were asked for, and their tokens."""
        return len(self._seen), sum(self._seen.values())


def step_scores(labels: Sequence[StepLabels], truth: Sequence[StepLabels]) -> dict[str, float]:
    """Of wrong steps up to the first true one: precision, recall and F1 of being labelled wrong."""
    tp = fp = fn = 0
    for found, true in zip(labels, truth, strict=True):
        end = len(true.values) if true.first_error is None else true.first_error + 1
        first = found.first_error
        for i in range(end):
            wrong, called = true.values[i] == 0, first is not None and i >= first
            tp += wrong and called
            fp += called and not wrong
            fn += wrong and not called
    return {
        "wrong_step_precision": tp / max(tp + fp, 1),
        "wrong_step_recall": tp / max(tp + fn, 1),
        "wrong_step_f1": 2 * tp / max(2 * tp + fp + fn, 1),
    }


def measured(
    labels: Sequence[StepLabels], truth: Sequence[StepLabels], hits: Sequence[bool]
) -> dict[str, Any]:
    wrong = [h for h, t in zip(hits, truth, strict=True) if t.first_error is not None]
    right = [h for h, t in zip(hits, truth, strict=True) if t.first_error is None]
    result: dict[str, Any] = {
        "first_error_accuracy": float(np.mean(hits)),
        "of_wrong_solutions": float(np.mean(wrong)),
        "of_right_solutions": float(np.mean(right)),
        **step_scores(labels, truth),
    }
    if labels[0].kind == "soft":
        pairs = [
            (v, t == 1)
            for found, true in zip(labels, truth, strict=True)
            for v, t in zip(found.values, true.values, strict=True)
            if v is not None and t is not None
        ]
        found = calibration([v for v, _ in pairs], [t for _, t in pairs])
        result |= {"calibration_error": found.expected_error, "brier": found.brier}
    return {k: round(v, 4) for k, v in result.items()}


def say(text: str) -> None:
    print(text, flush=True)


def solutions(policy: HFPolicy, n: int, place: Path) -> list[Trajectory]:
    items = list(problems("train", -(-n // SAMPLES), start=50_000))
    with Ledger(place / "solutions.sqlite", {"n": n}) as ledger:
        groups = list(
            sample(
                policy, items, SAMPLES, split_lines, judge, settings=SAMPLING, seed=7, ledger=ledger
            )
        )
    return [t for group in groups for t in group][:n]


def compare(items: Sequence[Trajectory], store: RolloutStore, say: Callable[[str], None]) -> Any:
    truth = [true_labels(t) for t in items]
    table: dict[str, Any] = {}
    all_hits: dict[str, list[bool]] = {}
    all_labels: dict[str, list[StepLabels]] = {}
    for name, make in METHODS.items():
        counted = Counted(store)
        labels: list[StepLabels] = []
        start = time.perf_counter()
        for at in range(0, len(items), BATCH):
            labels += run([make(t) for t in items[at : at + BATCH]], counted)
        rollouts, tokens = counted.cost
        hits = [f.first_error == t.first_error for f, t in zip(labels, truth, strict=True)]
        all_hits[name], all_labels[name] = hits, labels
        table[name] = {
            "rollouts_per_solution": round(rollouts / len(items), 2),
            "tokens_per_solution": round(tokens / len(items), 1),
            **measured(labels, truth, hits),
        }
        say(f"{name}: {table[name]} ({time.perf_counter() - start:.0f} s)")
    base = "linear, any of 8"
    for name, row in table.items():
        row["rollouts_to_linear"] = round(
            row["rollouts_per_solution"] / table[base]["rollouts_per_solution"], 3
        )
        gap = paired_bootstrap(
            [float(h) for h in all_hits[name]], [float(h) for h in all_hits[base]]
        )
        row["accuracy_minus_linear"] = [round(v, 4) for v in gap]
    same = [
        a.values == b.values
        for a, b in zip(
            all_labels[base], all_labels["linear, any of 8, stop at success"], strict=True
        )
    ]
    return {"methods": table, "stop_at_success_gives_the_same_labels": all(same)}


def without_references(
    items: Sequence[Trajectory], store: RolloutStore, say: Callable[[str], None]
) -> dict[str, Any]:
    """Labels by the majority's answer: how true they are, and whether its share is calibrated."""
    problems_of = {t.problem.id: t for t in items}
    table: dict[str, Any] = {}
    for votes in (8, 32):
        counted = Counted(store)
        found: list[Consistent] = []
        for at in range(0, len(items), BATCH):
            made = [
                self_consistency(t, METHODS["linear, any of 8, stop at both"], votes=votes)
                for t in items[at : at + BATCH]
            ]
            found += run(made, counted)
        kept = [(c, t) for c, t in zip(found, items, strict=True) if c.answer is not None]
        labels = [c.labels for c, _ in kept if isinstance(c.labels, StepLabels)]
        truth = [true_labels(t) for _, t in kept]
        hits = [f.first_error == t.first_error for f, t in zip(labels, truth, strict=True)]
        votes_of = {t.problem.id: c for c, t in kept}
        shares = [c.share or 0.0 for c in votes_of.values()]
        right = [c.answer == problems_of[name].problem.answer for name, c in votes_of.items()]
        of_shares = calibration(shares, right)
        sure = [h for h, (c, _) in zip(hits, kept, strict=True) if (c.share or 0.0) >= 0.5]
        table[f"{votes} votes"] = {
            "rollouts_per_solution": round(counted.cost[0] / len(items), 2),
            "labelled": round(len(kept) / len(items), 4),
            "majority_right": round(float(np.mean(right)), 4),
            "mean_share": round(float(np.mean(shares)), 4),
            "share_calibration_error": round(of_shares.expected_error, 4),
            "share_brier": round(of_shares.brier, 4),
            **measured(labels, truth, hits),
            "labelled_with_half_the_votes": round(len(sure) / len(items), 4),
            "first_error_accuracy_of_those": round(float(np.mean(sure)), 4),
        }
        say(f"self-consistency, {votes} votes: {table[f'{votes} votes']}")
    return table


def agreements(
    items: Sequence[Trajectory], store: RolloutStore, weak: RolloutStore, say: Callable[[str], None]
) -> dict[str, Any]:
    """What is left, and how true it is, where rollouts agree with another labeller."""
    truth = {content_key(t): true_labels(t) for t in items}
    linear = METHODS["linear, any of 8"]
    stopped = METHODS["linear, any of 8, stop at both"]

    def rolled(make: MakeEstimator, rollouts: RolloutStore) -> list[Record]:
        labels: list[StepLabels] = []
        for at in range(0, len(items), BATCH):
            labels += run([make(t) for t in items[at : at + BATCH]], rollouts)
        return [Record(trajectory=t, labels=found) for t, found in zip(items, labels, strict=True)]

    def judged() -> list[Record]:
        found = []
        for t, scores in zip(items, load_scorer(WEIGHTS / "prm").score(items), strict=True):
            assert isinstance(scores, StepScores)
            labels = StepLabels(values=tuple(float(v >= 0.5) for v in scores.values), kind="hard")
            found.append(Record(trajectory=t, labels=labels))
        return found

    ours = rolled(linear, store)
    others = {
        "rollouts alone": ours,
        "the shipped PRM, as a judge": judged(),
        "rollouts of the base model": rolled(stopped, weak),
    }
    table: dict[str, Any] = {}
    for name, other in others.items():
        found = list(consensus(ours, places(other)))
        kept = [a.record for a in found if a.outcome == "agree"]
        labels = [r.labels for r in kept if r.labels]
        true = [truth[content_key(r.trajectory)] for r in kept]
        hits = [f.first_error == t.first_error for f, t in zip(labels, true, strict=True)]
        table[name] = {
            "kept": round(len(kept) / len(items), 4),
            "kept_of_wrong_solutions": round(
                sum(t.first_error is not None for t in true)
                / sum(truth[content_key(t)].first_error is not None for t in items),
                4,
            ),
            "outcomes": dict(Counter(a.outcome for a in found)),
            **measured(labels, true, hits),
        }
        say(f"consensus with {name}: {table[name]}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solutions", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        policy = HFPolicy(WEIGHTS / "policy", device="cpu")
        base = HFPolicy(WEIGHTS / "base", device="cpu")
        items = solutions(policy, options.solutions, place)
        with (
            Ledger(place / "rollouts.sqlite", {"policy": policy.name, "seed": 3}) as ledger,
            Ledger(place / "weak.sqlite", {"policy": base.name, "seed": 3}) as weak_ledger,
        ):
            store = RolloutStore(policy, judge, SAMPLING, 3, ledger)
            weak = RolloutStore(base, judge, SAMPLING, 3, weak_ledger)
            found = compare(items, store, say)
            found["self_consistency"] = without_references(items, store, say)
            found["consensus_with"] = agreements(items, store, weak, say)
    truth = [true_labels(t) for t in items]
    write_json(
        options.out,
        {
            "prmkit": __version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "solutions": len(items),
            "steps_per_solution": round(float(np.mean([len(t.steps) for t in items])), 2),
            "right_answers": round(float(np.mean([bool(t.correct) for t in items])), 4),
            "right_answers_with_a_wrong_step": sum(
                bool(t.correct) and label.first_error is not None
                for t, label in zip(items, truth, strict=True)
            ),
            **found,
        },
    )


if __name__ == "__main__":
    main()
