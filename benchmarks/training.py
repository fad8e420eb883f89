"""What is learnt from the same solutions by different kinds of models: picking against voting.

    python benchmarks/training.py [--solutions N] [--problems N] [--samples N] [--seeds N]
        [--only NAME] [--work DIR] [--out FILE]

Solutions of the embedded policy to training problems are labelled by the world's judge (true) and
by rollouts of the policy (sequential, with certainty). Each way of training starts from the same
weights, sees the same solutions as often, and scores the same samples of fresh problems, in domain
(test) and out of it (ood). Differences are paired over problems; figures are means over seeds.
DIR keeps samples, rollouts and models, so that a run can be stopped and gone on with.

A further way is a row of `WAYS`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from prmkit import __version__
from prmkit.aggregate import Aggregation
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import SAMPLING, judge, split_lines
from prmkit.embedded.world import Split, problems
from prmkit.errors import NothingToMeasure
from prmkit.evaluation import paired_bootstrap, processbench_f1, roc_auc, within_group_auc
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    aggregated,
    pick_table,
    samples_of,
    shown_numbers,
    without_scores,
)
from prmkit.files import write_json
from prmkit.labelling import RolloutStore, run, sequential
from prmkit.ledger import Ledger
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Record, Scored, StepLabels, StepScores, Trajectory
from prmkit.scorers.base import Scorer
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.training.trainer import TrainSettings, train

RESULTS = Path(__file__).parent / "results" / "training.json"
SPLITS: tuple[Split, ...] = ("test", "ood")
PER_PROBLEM = 4
PICKS = PickSettings(answers="text")

Labelled = dict[str, list[Record]]
"""The same solutions by who labelled them: ``true``, ``sequential`` or ``answer``."""


class Way(NamedTuple):
    """A way to get a scorer from labelled solutions.

    Attributes:
        make: from the solutions, a folder of its own and a seed.
        aggregation: of its step scores.
    """

    make: Callable[[Labelled, Path, int], Scorer]
    aggregation: Aggregation = "min"


def trained(labelled: Labelled, place: Path, seed: int, *, labels: str, **settings: Any) -> Scorer:
    """A model of `prmkit.training`, from the policy's weights."""
    if not place.is_dir():
        base = {"base": str(WEIGHTS / "policy"), "epochs": 3, "learning_rate": 5e-4}
        train(labelled[labels], TrainSettings(**(base | settings), out=place, seed=seed))
    return DiscriminativeScorer(place, device="cpu")


def shipped(labelled: Labelled, place: Path, seed: int) -> Scorer:
    """The shipped PRM, which saw many more solutions."""
    del labelled, place, seed
    return DiscriminativeScorer(WEIGHTS / "prm", device="cpu")


WAYS: dict[str, Way] = {
    "outcome, answers": Way(partial(trained, labels="answer", kind="outcome"), "last"),
    "step, sequential labels": Way(partial(trained, labels="sequential")),
    "step, sequential labels by certainty": Way(
        partial(trained, labels="sequential", weighting="certainty")
    ),
    "step, true labels": Way(partial(trained, labels="true")),
    "value, squared error, sequential labels": Way(
        partial(trained, labels="sequential", kind="value", loss="squared_error")
    ),
    "rank, sequential labels": Way(partial(trained, labels="sequential", kind="rank")),
    "rank, true labels": Way(partial(trained, labels="true", kind="rank")),
    "the shipped PRM": Way(shipped),
}

CLAIMS = {
    "steps instead of outcomes": ("step, sequential labels", "outcome, answers"),
    "true labels instead of rollouts": ("step, true labels", "step, sequential labels"),
    "weighted by certainty": (
        "step, sequential labels by certainty",
        "step, sequential labels",
    ),
    "squared error instead of cross entropy": (
        "value, squared error, sequential labels",
        "step, sequential labels",
    ),
    "order instead of classes": ("rank, sequential labels", "step, sequential labels"),
}
"""What is compared: the first with the second."""


def say(text: str) -> None:
    print(text, flush=True)


def drawn(policy: HFPolicy, split: Split, start: int, n: int, of_each: int, place: Path) -> Any:
    """Solutions of the policy, problem by problem."""
    about = {"split": split, "start": start, "n": n, "of_each": of_each, "policy": policy.name}
    with Ledger(place / f"{split}-{start}-{n}x{of_each}.sqlite", about) as ledger:
        items = list(problems(split, n, start))
        return list(
            sample(
                policy,
                items,
                of_each,
                split_lines,
                judge,
                settings=SAMPLING,
                seed=11,
                ledger=ledger,
            )
        )


def label_all(items: Sequence[Trajectory], policy: HFPolicy, place: Path) -> tuple[Labelled, Any]:
    """The labels that ways learn from, and how true those of rollouts are."""
    with Ledger(place / "rollouts.sqlite", {"policy": policy.name, "seed": 3}) as ledger:
        store = RolloutStore(policy, judge, SAMPLING, 3, ledger)
        found: list[StepLabels] = []
        for at in range(0, len(items), 64):
            found += run([sequential(t) for t in items[at : at + 64]], store)
    truth = [true_labels(t) for t in items]
    answers = [
        StepLabels(values=(None,) * (len(t.steps) - 1) + (float(bool(t.correct)),), kind="hard")
        for t in items
    ]
    hits = [f.first_error == t.first_error for f, t in zip(found, truth, strict=True)]
    told = {
        "solutions": len(items),
        "right_answers": float(np.mean([bool(t.correct) for t in items])),
        "first_error_accuracy_of_sequential_labels": float(np.mean(hits)),
    }
    by_whom = {"true": truth, "sequential": found, "answer": answers}
    return {
        who: [Record(trajectory=t, labels=made) for t, made in zip(items, labels, strict=True)]
        for who, labels in by_whom.items()
    }, told


class Pool(NamedTuple):
    """Samples of fresh problems.

    Attributes:
        groups: of each problem.
        samples: the same as arrays.
        truth: of each problem's samples.
        majority: [P, n] the share of votes over n samples that are right.
        oracle: [P, n] pass@n.
    """

    groups: list[tuple[Trajectory, ...]]
    samples: Samples
    truth: list[list[StepLabels]]
    majority: Any
    oracle: Any

    @classmethod
    def of(cls, groups: list[tuple[Trajectory, ...]]) -> Pool:
        """From samples."""
        samples = samples_of([[Record(trajectory=t) for t in group] for group in groups], "text")
        oracle, majority = without_scores(samples, PICKS)
        return cls(groups, samples, [[true_labels(t) for t in g] for g in groups], majority, oracle)


def scores_of(scorer: Scorer, pool: Pool) -> list[list[Scored]]:
    """Scores of all samples; the same text is scored once."""
    scored = []
    for group in pool.groups:
        unique = {t.text: t for t in group}
        found = dict(zip(unique, scorer.score(list(unique.values())), strict=True))
        scored.append([found[t.text] for t in group])
    return scored


def measured(scored: list[list[Scored]], pool: Pool, how: Aggregation) -> dict[str, Any]:
    """[P, n] curves of best-of-N and the weighted vote, and how well steps are judged."""
    table = pick_table(pool.samples, scored, PICKS, [how])
    overall = aggregated(scored, [how], pool.samples.correct.shape[1])[how]
    steps = [
        (value, label == 1, p)
        for p, (group, truth) in enumerate(zip(scored, pool.truth, strict=True))
        for scores, labels in zip(group, truth, strict=True)
        if isinstance(scores, StepScores)
        for value, label in zip(scores.values, labels.values, strict=True)
    ]
    values, right, home = (list(column) for column in zip(*steps, strict=True))
    flat = [s for group in scored for s in group]
    firsts = [t.first_error for group in pool.truth for t in group]
    where = np.broadcast_to(np.arange(len(scored))[:, None], overall.shape)
    solutions = (overall.ravel().tolist(), pool.samples.correct.ravel().tolist())
    try:
        within = within_group_auc(*solutions, where.ravel().tolist()).auc
    except NothingToMeasure:
        within = None
    return {
        "best": table.best[how],
        "weighted": table.weighted[how],
        "step_auc": roc_auc(values, right),
        "step_auc_within_problems": within_group_auc(values, right, home).auc,
        "first_error_f1": processbench_f1(flat, firsts).f1,
        "solution_auc_within_problems": within,
    }


def mean_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; curves stay per problem."""
    return {
        key: None if any(r[key] is None for r in runs) else np.mean([r[key] for r in runs], axis=0)
        for key in runs[0]
    }


def told(way: dict[str, Any], runs: Sequence[dict[str, Any]], pool: Pool) -> dict[str, Any]:
    """One way's figures in one split."""
    numbers = shown_numbers(pool.majority.shape[1])
    shown: dict[str, Any] = {"seeds": len(runs)}
    for name in ("best", "weighted"):
        curve = way[name].mean(axis=0)
        shown[f"{name}_of_n"] = {str(n): float(curve[n - 1]) for n in numbers}
        shown[f"{name}_minus_majority"] = {
            str(n): list(paired_bootstrap(way[name][:, n - 1], pool.majority[:, n - 1]))
            for n in numbers
        }
        last = [float(r[name][:, -1].mean()) for r in runs]
        shown[f"{name}_of_all_by_seed"] = last
    figures = ("step_auc", "step_auc_within_problems", "first_error_f1")
    for name in (*figures, "solution_auc_within_problems"):
        shown[name] = None if way[name] is None else float(way[name])
    return shown


def compare(
    pools: dict[Split, Pool],
    labelled: Labelled,
    options: Any,
    place: Path,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """All ways in all splits, and the claims; `keep` is given what is known after each way."""
    found: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in pools}
    results: dict[str, Any] = {split: {"ways": {}, "claims": {}} for split in pools}
    for split, pool in pools.items():
        numbers = shown_numbers(pool.majority.shape[1])
        for name, curve in (("majority", pool.majority), ("pass", pool.oracle)):
            results[split][name] = {str(n): float(curve[:, n - 1].mean()) for n in numbers}
            say(f"{split}, {name}: {results[split][name]}")
    for name, way in WAYS.items():
        if not name.startswith(options.only):
            continue
        runs: dict[str, list[dict[str, Any]]] = {split: [] for split in pools}
        for seed in range(options.seeds):
            begun, busy = time.perf_counter(), time.process_time()
            folder = f"{name}-{options.solutions}-{seed}".replace(" ", "_")
            scorer = way.make(labelled, place / folder, seed)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - busy
            for split, pool in pools.items():
                runs[split].append(measured(scores_of(scorer, pool), pool, way.aggregation))
            say(f"{name}, seed {seed}: made in {seconds:.0f} s ({cpu:.0f} s of CPU)")
        for split, pool in pools.items():
            found[split][name] = mean_of(runs[split])
            row = results[split]["ways"][name] = told(found[split][name], runs[split], pool)
            results[split]["claims"] = claims(found[split])
            last = str(pool.majority.shape[1])
            figures = {k: v for k, v in row.items() if isinstance(v, float)}
            say(
                f"  {split}: best of {last} {row['best_of_n'][last]}, minus majority "
                f"{row['best_minus_majority'][last]}, {figures}"
            )
        keep(results)
    for split in pools:
        for claim, gaps in results[split]["claims"].items():
            say(f"{split}, {claim}: {gaps}")


def claims(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Differences of ways that were run, with intervals over problems, by the number of samples."""
    shown: dict[str, Any] = {}
    for claim, (a, b) in CLAIMS.items():
        if a not in found or b not in found:
            continue
        shown[claim] = {
            how: {
                str(n): list(paired_bootstrap(found[a][how][:, n - 1], found[b][how][:, n - 1]))
                for n in shown_numbers(found[a][how].shape[1])[1:]
            }
            for how in ("best", "weighted")
        }
    return shown


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solutions", type=int, default=1200)
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="ways whose name begins so")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    begun, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        policy = HFPolicy(WEIGHTS / "policy", device="cpu")
        n = -(-options.solutions // PER_PROBLEM)
        to_label = drawn(policy, "train", 70_000, n, PER_PROBLEM, place)
        items = [t for group in to_label for t in group if t.steps][: options.solutions]
        labelled, about = label_all(items, policy, place)
        say(f"{about} ({time.perf_counter() - begun:.0f} s)")
        pools = {
            split: Pool.of(drawn(policy, split, 30_000, options.problems, options.samples, place))
            for split in SPLITS
        }
        say(f"sampled ({time.perf_counter() - begun:.0f} s)")
        described = {
            "prmkit": __version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "problems": options.problems,
            "samples": options.samples,
            "labelling": about,
        }

        def keep(results: dict[str, Any]) -> None:
            spent = {
                "wall": time.perf_counter() - begun,
                "cpu": time.process_time() - busy,
            }
            write_json(options.out, rounded(described | {"seconds": spent} | results))

        compare(pools, labelled, options, place, keep)


if __name__ == "__main__":
    main()
