"""What is learnt from the same solutions by different kinds of models: picking against voting.

    python benchmarks/training.py [--solutions N] [--problems N] [--ood-problems N] [--samples N]
        [--seeds N] [--only NAME] [--work DIR] [--out FILE]

Solutions of the embedded policy to training problems have their outcomes, and are labelled by the
world's judge (true) and by rollouts of the policy (sequential, with certainty): line by line, and
once more with steps that begin where the policy is unsure, for no more tokens of rollouts. Each way
of training starts from the policy's weights, sees the same solutions as often, and scores the same
samples of fresh problems, in domain (test) and out of it (ood). Differences are paired over
problems; figures are means over seeds, whose own figures stand beside. DIR keeps samples, rollouts,
models and scores, so that a run can be stopped and gone on with: seed after seed, results are
written after each way.

A further way is a row of `WAYS`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
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
from prmkit.evaluation.pool_table import shown_numbers
from prmkit.evaluation.statistics import Bootstrap
from prmkit.files import write_json
from prmkit.labelling import Budget, RolloutStore, drive, sequential
from prmkit.ledger import Ledger
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Record, Scored, StepLabels, StepScores, Trajectory, Unscored
from prmkit.scorers.backends.log_probs import LogProbs
from prmkit.scorers.base import Scorer
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.training.dynamic import recut, threshold_of, tokens_of
from prmkit.training.implicit import ImplicitSettings
from prmkit.training.trainer import TrainSettings, train
from training_figures import Pool, Row, fitted_first_errors, gaps, measured, told

RESULTS = Path(__file__).parent / "results" / "training.json"
SPLITS: tuple[Split, ...] = ("test", "ood")
PER_PROBLEM = 4
SHARE = 0.1
"""Of tokens at which steps that are cut anew begin: there are then about as many as lines."""
IN_FLIGHT = 512
BETA = 0.5
"""Of the implicit PRM; chosen on other problems, see docs/training.md."""

Labelled = dict[str, list[Record]]
"""The same solutions by who labelled them: ``true``, ``sequential``, ``anew`` or ``answer``."""


class Material(NamedTuple):
    """What all ways learn from.

    Attributes:
        labelled: the solutions.
        cut: cuts others as those labelled ``anew`` are.
        epochs: how often each is seen.
    """

    labelled: Labelled
    cut: Recut
    epochs: float


class Way(NamedTuple):
    """A way to get a scorer from labelled solutions.

    Attributes:
        make: from what there is, a folder of its own and a seed.
        aggregation: of its step scores.
        model: whose weights it has; by default the way's own name.
        scores: ways of the same scores share them; by default the model's.
        once: whether one seed is enough: of ways that no claim is about.
    """

    make: Callable[[Material, Path, int], Scorer]
    aggregation: Aggregation = "min"
    model: str | None = None
    scores: str | None = None
    once: bool = False


def train_in(place: Path, material: Material, seed: int, labels: str, **settings: Any) -> None:
    """A model of `prmkit.training`, from the policy's weights."""
    implicit = settings.pop("implicit", None)
    if not place.is_dir():
        base = {"base": str(WEIGHTS / "policy"), "learning_rate": 1e-3, "epochs": material.epochs}
        how = TrainSettings(**(base | settings), out=place, seed=seed)
        train(material.labelled[labels], how, implicit=implicit)


def trained(material: Material, place: Path, seed: int, *, labels: str, **settings: Any) -> Scorer:
    """A model that is read by a head at the ends of lines."""
    train_in(place, material, seed, labels, **settings)
    return DiscriminativeScorer(place, device="cpu")


class Anew:
    """Scores solutions in steps cut anew; each line has the lowest of those that end in it.

    A line in which none ends has the score of the one that it is part of.

    Args:
        scorer: of steps that are cut so.
        cut: cuts.
    """

    def __init__(self, scorer: Scorer, cut: Recut):
        self._scorer, self._cut = scorer, cut

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        others = self._cut(trajectories)
        found: list[Scored] = []
        for old, new, scored in zip(trajectories, others, self._scorer.score(others), strict=True):
            if isinstance(scored, StepScores):
                values = by_line(ends_of(old), ends_of(new), scored.values)
                scored = scored.model_copy(update={"values": values})
            found.append(scored)
        return found


def ends_of(trajectory: Trajectory) -> list[int]:
    """Where each step ends in the text; steps are joined by nothing here."""
    return np.cumsum([len(step.text) for step in trajectory.steps]).tolist()


def by_line(
    lines: Sequence[int], ends: Sequence[int], values: Sequence[float]
) -> tuple[float, ...]:
    """The lowest of the values whose ends lie in each line, or the next one's."""
    found, begin = [], 0
    for end in lines:
        inside = [v for at, v in zip(ends, values, strict=True) if begin < at <= end]
        after = [v for at, v in zip(ends, values, strict=True) if at > end]
        found.append(min(inside) if inside else after[0])
        begin = end
    return tuple(found)


def trained_anew(material: Material, place: Path, seed: int) -> Scorer:
    """A model of steps that begin where the policy is unsure."""
    train_in(place, material, seed, "anew")
    return Anew(DiscriminativeScorer(place, device="cpu"), material.cut)


def lines_of_anew(material: Material, place: Path, seed: int) -> Scorer:
    """The same model, read at the ends of lines: without the policy."""
    train_in(place, material, seed, "anew")
    return DiscriminativeScorer(place, device="cpu")


class Unsure:
    """Scores each line by how often the policy was unsure in it; nothing is learnt.

    Args:
        cut: cuts where it was.
    """

    def __init__(self, cut: Recut):
        self._cut = cut

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        found: list[Scored] = []
        for old, new in zip(trajectories, self._cut(trajectories), strict=True):
            begins, lines = [0, *ends_of(new)[:-1]], [0, *ends_of(old)]
            values = tuple(
                -float(sum(begin <= at < end for at in begins)) for begin, end in pairwise(lines)
            )
            found.append(StepScores(values=values, semantics="advantage", model="unsure"))
        return found


def unsure(material: Material, place: Path, seed: int) -> Scorer:
    """How seldom the policy was unsure."""
    del place, seed
    return Unsure(material.cut)


def implicit(material: Material, place: Path, seed: int) -> Scorer:
    """A log-ratio to the policy that was trained on outcomes."""
    settings = {"kind": "implicit", "family": "log_ratio", "learning_rate": 5e-4}
    train_in(place, material, seed, "answer", implicit=ImplicitSettings(beta=BETA), **settings)
    return ImplicitScorer(place, WEIGHTS / "policy", device="cpu")


def untrained(material: Material, place: Path, seed: int) -> Scorer:
    """The log-ratio of the model that knows better to the policy: nothing is learnt."""
    del material, place, seed
    return ImplicitScorer(WEIGHTS / "base", WEIGHTS / "policy", device="cpu")


def shipped(material: Material, place: Path, seed: int) -> Scorer:
    """The shipped PRM, which saw many more solutions."""
    del material, place, seed
    return DiscriminativeScorer(WEIGHTS / "prm", device="cpu")


WAYS: dict[str, Way] = {
    "step": Way(partial(trained, labels="sequential")),
    "step, last line": Way(partial(trained, labels="sequential"), "last", model="step"),
    "step by certainty": Way(partial(trained, labels="sequential", weighting="certainty")),
    "outcome": Way(partial(trained, labels="answer", kind="outcome"), "last"),
    "fewest unsure tokens, untrained": Way(unsure, "sum"),
    "step, cut anew": Way(trained_anew),
    "step, cut anew, read at lines": Way(
        lines_of_anew, model="step, cut anew", scores="step, cut anew, read at lines"
    ),
    "implicit, lowest step": Way(implicit, model="implicit"),
    "implicit, sum": Way(implicit, "sum", model="implicit"),
    "log-ratio of base to policy, untrained": Way(untrained, "sum", once=True),
    "the shipped PRM": Way(shipped, once=True),
    "step, true labels": Way(partial(trained, labels="true"), once=True),
    "outcome at every token": Way(
        partial(trained, labels="answer", kind="outcome_tokens"), "last", once=True
    ),
    "value, squared error": Way(
        partial(trained, labels="sequential", kind="value", loss="squared_error"), once=True
    ),
    "rank": Way(partial(trained, labels="sequential", kind="rank"), once=True),
}

CLAIMS = {
    "steps instead of outcomes": ("step", "outcome"),
    "steps instead of outcomes, both read at the last line": ("step, last line", "outcome"),
    "implicit instead of outcomes": ("implicit, lowest step", "outcome"),
    "implicit instead of steps": ("implicit, lowest step", "step"),
    "implicit, against how often the policy is unsure": (
        "implicit, lowest step",
        "fewest unsure tokens, untrained",
    ),
    "sum instead of lowest step of implicit": ("implicit, sum", "implicit, lowest step"),
    "weighted by certainty": ("step by certainty", "step"),
    "cut where the policy is unsure": ("step, cut anew", "step"),
    "cut where the policy is unsure, both read at lines": (
        "step, cut anew, read at lines",
        "step",
    ),
    "cut where the policy is unsure, against how often it is": (
        "step, cut anew",
        "fewest unsure tokens, untrained",
    ),
    "true labels instead of rollouts": ("step, true labels", "step"),
    "outcome at every token": ("outcome at every token", "outcome"),
    "squared error instead of cross entropy": ("value, squared error", "step"),
    "order instead of classes": ("rank", "step"),
}
"""What is compared: the first with the second, over the seeds that both have."""


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


class Recut:
    """Cuts solutions where the policy is unsure (AdaptiveStep), and remembers how.

    Args:
        policy: which is asked.
        threshold: a token less likely than this begins a step.
    """

    def __init__(self, policy: LogProbs, threshold: float):
        self._policy, self._threshold = policy, threshold
        self._known: dict[str, Trajectory] = {}

    def __call__(self, items: Sequence[Trajectory]) -> list[Trajectory]:
        """The same solutions in other steps."""
        new = list({t.key: t for t in items if t.key not in self._known}.values())
        for t, own in zip(new, tokens_of(self._policy, new), strict=True):
            self._known[t.key] = recut(t, own, self._threshold)
        return [self._known[t.key] for t in items]


def labelled_by_rollouts(
    items: Sequence[Trajectory], store: RolloutStore, budget: Budget, name: str
) -> list[Record]:
    """Solutions with sequential labels, as many as the budget pays."""
    found = []
    for t, labels in drive(items, sequential, store, in_flight=IN_FLIGHT, budget=budget):
        assert isinstance(labels, StepLabels)
        found.append(Record(trajectory=t, labels=labels))
        if len(found) % 250 == 0:
            say(f"{name}: {len(found)} labelled, {budget.spent}")
    return found


def label_all(
    items: Sequence[Trajectory], policy: HFPolicy, place: Path
) -> tuple[Labelled, Recut, dict[str, Any]]:
    """The labels that ways learn from, how steps were cut anew, and what the labels cost."""
    log_probs = LogProbs(WEIGHTS / "policy", device="cpu")
    cut = Recut(log_probs, threshold_of(tokens_of(log_probs, items), SHARE))
    with Ledger(place / "rollouts.sqlite", {"policy": policy.name, "seed": 3}) as ledger:
        store = RolloutStore(policy, judge, SAMPLING, 3, ledger)
        paid = Budget()
        by_line = labelled_by_rollouts(items, store, paid, "lines")
        # Not more than what the lines have cost.
        paid_anew = Budget(tokens=max(paid.spent[1], 1))
        anew = labelled_by_rollouts(cut(items), store, paid_anew, "cut anew")
    truth = [Record(trajectory=t, labels=true_labels(t)) for t in items]
    # Trained on outcomes alone: those of the records.
    answers = [Record(trajectory=t) for t in items]
    hits = [
        f.labels.first_error == t.labels.first_error for f, t in zip(by_line, truth, strict=True)
    ]
    told = {
        "solutions": len(items),
        "right_answers": float(np.mean([bool(t.correct) for t in items])),
        "first_error_accuracy_of_sequential_labels": float(np.mean(hits)),
        "steps_by_line": float(np.mean([len(t.steps) for t in items])),
        "steps_cut_anew": float(np.mean([len(r.trajectory.steps) for r in anew])),
        "solutions_cut_anew": len(anew),
        "rollouts_and_tokens_of_labels": {
            "outcome": [0, 0],
            "sequential": list(paid.spent),
            "sequential, cut anew": list(paid_anew.spent),
        },
    }
    by_whom = {"true": truth, "sequential": by_line, "anew": anew, "answer": answers}
    return by_whom, cut, told


def scores_of(make: Callable[[], Scorer], pool: Pool, file: Path) -> list[list[Scored]]:
    """Scores of all samples, kept in a file; the same text is scored once."""
    unique = {(p, t.text): t for p, group in enumerate(pool.groups) for t in group}
    if not file.is_file():
        scored = make().score(list(unique.values()))
        write_json(file, [s.model_dump() if isinstance(s, StepScores) else None for s in scored])
    kept = [
        Unscored(reason="not scored", model=file.stem) if s is None else StepScores(**s)
        for s in json.loads(file.read_text(encoding="utf-8"))
    ]
    found = dict(zip(unique, kept, strict=True))
    return [[found[p, t.text] for t in group] for p, group in enumerate(pool.groups)]


def claims(rows: dict[str, Row], pool: Pool, bootstrap: Bootstrap) -> dict[str, Any]:
    """The claims whose ways were run."""
    return {
        claim: gaps(rows[a], rows[b], pool, bootstrap)
        for claim, (a, b) in CLAIMS.items()
        if a in rows and b in rows
    }


def compare(
    pools: dict[Split, Pool],
    material: Material,
    options: Any,
    place: Path,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """All ways in all splits, and the claims; `keep` is given what is known after each way."""
    rows: dict[str, dict[str, Row]] = {split: {} for split in pools}
    results: dict[str, Any] = {split: {"ways": {}, "claims": {}} for split in pools}
    straps = {split: Bootstrap(len(pool.groups), 10_000) for split, pool in pools.items()}
    for split, pool in pools.items():
        numbers = shown_numbers(pool.majority.shape[1])
        for name, curve in (("majority", pool.majority), ("pass", pool.oracle)):
            results[split][name] = {str(n): float(curve[:, n - 1].mean()) for n in numbers}
            say(f"{split}, {name}: {results[split][name]}")
    names = [name for name in WAYS if name.startswith(options.only)]
    jobs = [(name, seed) for seed in range(options.seeds) for name in names if not WAYS[name].once]
    for name, seed in jobs + [(name, 0) for name in names if WAYS[name].once]:
        way, busy = WAYS[name], time.process_time()
        model, of = way.model or name, f"-{options.solutions}-{seed}"
        folder = place / f"{model}{of}".replace(" ", "_")
        kept = place / f"{way.scores or model}{of}".replace(" ", "_")
        make = cache(partial(way.make, material, folder, seed))
        runs = {}
        for split, pool in pools.items():
            sizes = f"{len(pool.groups)}x{options.samples}"
            scored = scores_of(make, pool, kept.with_name(f"{kept.name}-{split}-{sizes}.json"))
            runs[split] = measured(scored, pool, way.aggregation)
        firsts = fitted_first_errors(runs, pools)
        say(f"{name}, seed {seed}: {time.process_time() - busy:.0f} s of CPU")
        for split, pool in pools.items():
            row = rows[split].setdefault(name, Row([], []))
            row.runs.append(runs[split])
            row.firsts.append(firsts[split])
            shown = results[split]["ways"][name] = told(row, pool, straps[split])
            results[split]["claims"] = claims(rows[split], pool, straps[split])
            say(f"  {split}: {shown['by seed']}")
        keep(results)
    for split in pools:
        for claim, found in results[split]["claims"].items():
            say(f"{split}, {claim}: {found}")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solutions", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--ood-problems", type=int, default=48)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="ways whose name begins so")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        policy = HFPolicy(WEIGHTS / "policy", device="cpu", max_rows=IN_FLIGHT)
        n = -(-options.solutions // PER_PROBLEM)
        to_label = drawn(policy, "train", 70_000, n, PER_PROBLEM, place)
        items = [t for group in to_label for t in group if t.steps][: options.solutions]
        labelled, cut, about = label_all(items, policy, place)
        say(f"{about} ({time.perf_counter() - begun:.0f} s)")
        sizes = {"test": options.problems, "ood": options.ood_problems}
        pools = {
            split: Pool.of(drawn(policy, split, 30_000, sizes[split], options.samples, place))
            for split in SPLITS
        }
        say(f"sampled ({time.perf_counter() - begun:.0f} s)")
        described = {
            "prmkit": __version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "problems": sizes,
            "samples": options.samples,
            "epochs": options.epochs,
            "beta_of_implicit": BETA,
            "labelling": about,
        }

        def keep(results: dict[str, Any]) -> None:
            write_json(options.out, rounded(described | results))

        compare(pools, Material(labelled, cut, options.epochs), options, place, keep)


if __name__ == "__main__":
    main()
