"""Searches of the embedded world: accuracy against tokens, all algorithms, in and out of domain.

    python benchmarks/search.py [--problems N] [--only NAME ...] [--split test|ood] [--work DIR]
        [--machine NAME] [--out FILE]

Every algorithm searches the same fresh problems with the shipped policy and PRM. The adaptive
allocator's settings were chosen on problems of the training stories (`--tune`), not on these. DIR
keeps the traces, so that a run can be stopped and gone on with; a trace tells of every smaller
budget too, so each row is a curve.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import Split, problems
from prmkit.evaluation.searches import Searches, compare_searches
from prmkit.files import write_json
from prmkit.policies.hf import HFPolicy
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.search.catalogue import PRESETS, UNSCORED, algorithm
from prmkit.search.drive import DriveSettings, search
from prmkit.search.settings import SearchSettings

RESULTS = Path(__file__).parent / "results" / "search.json"
SPLITS: tuple[Split, ...] = ("test", "ood")
START = 40_000
"""Problems from here on: nobody was trained on them, and no setting was chosen by them."""
BASE = "best-of-16"

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    BASE: ("best-of-n", {"n": 16}),
    "majority-16": ("majority", {"n": 16}),
    "greedy": ("greedy", {}),
    "adaptive": ("adaptive", {"n": 16}),
    "adaptive, repairs": ("adaptive", {"n": 16, "repair": 0.5}),
    "adaptive-self-consistency": ("adaptive-self-consistency", {"n": 16}),
    "early-rejection": ("early-rejection", {"n": 8}),
    "beam": ("beam", {"n": 8, "width": 4}),
    "beam, lookahead 1": ("beam", {"n": 8, "width": 4, "lookahead": 1}),
    "dvts": ("dvts", {"n": 8, "width": 4}),
    "rebase": ("rebase", {"n": 8, "sharing": "largest_remainder"}),
    "particle-filter": ("particle-filter", {"n": 8}),
    "entropic-particle-filter": ("entropic-particle-filter", {"n": 8}),
    "particle-gibbs": ("particle-gibbs", {"n": 4, "iterations": 2}),
    "mcts": ("mcts", {"n": 8, "width": 4, "rollouts": 1, "at_once": 2}),
}
"""Each by its name: the algorithm and its options. Those that go step by step draw 8 at a time."""

TUNED = [
    {"sure": sure, "trust": trust, "agreement": agreement}
    for sure in (0.9, 0.97, 0.99)
    for trust in (0.6, 1.0)
    for agreement in (0.1, 0.3)
]


def say(text: str) -> None:
    print(text, flush=True)


class Models:
    """The shipped policy and PRM."""

    def __init__(self) -> None:
        self.policy = HFPolicy(WEIGHTS / "policy", device="cpu")
        self.prm = DiscriminativeScorer(WEIGHTS / "prm", device="cpu")


def searched(
    models: Models,
    split: Split,
    start: int,
    n: int,
    name: str,
    options: dict[str, Any],
    place: Path,
) -> None:
    """Search problems, with traces in a folder of their own."""
    settings = SearchSettings(
        split="line", max_step_tokens=60, max_tokens=200, answers="text", answer_ends=False
    )
    begun, right, tokens = time.perf_counter(), 0, 0
    inner = PRESETS[name].algorithm if name in PRESETS else name
    for found in search(
        list(problems(split, n, start)),
        algorithm(name, **options),
        models.policy,
        None if inner in UNSCORED else models.prm,
        settings=settings,
        driving=DriveSettings(in_flight=64),
        judge=judge,
        traces=place / "traces",
    ):
        right += bool(found.correct)
        tokens += found.cost.tokens
    spent = time.perf_counter() - begun
    say(f"  {place.name}: {right / n:.3f} right, {tokens / n:.0f} tokens ({spent:.0f} s)")


def tune(models: Models, n: int, place: Path) -> None:
    """What settings of the adaptive allocator do on problems of the training stories."""
    rows = {"best-of-16": ("best-of-n", {"n": 16})}
    rows |= {
        ", ".join(f"{k} {v}" for k, v in options.items()): ("adaptive", {"n": 16, **options})
        for options in TUNED
    }
    folders = {}
    for name, (kind, options) in rows.items():
        folders[name] = place / "tune" / name.replace(" ", "_")
        searched(models, "train", 80_000, n, kind, options, folders[name])
    show(compare_searches(folders, judge))


def show(found: Searches) -> None:
    for run in found.runs:
        gap = "" if run.difference is None else f"{run.difference.mean:+.3f} "
        if run.difference is not None:
            gap += f"[{run.difference.low:+.3f}, {run.difference.high:+.3f}]"
        say(
            f"  {run.name:34} right {run.accuracy.mean:.3f}  oracle {run.oracle.mean():.3f}  "
            f"tokens {run.costs.policy_tokens:6.0f} + {run.costs.scorer_tokens:6.0f}  {gap}"
        )


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="these ways alone")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--tune", type=int, default=0, help="tune on so many problems instead")
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--machine",
        default=f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        help="where the searches ran, if their traces were made elsewhere",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    models = Models()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        if options.tune:
            tune(models, options.tune, place)
            return
        ways = {name: way for name, way in WAYS.items() if name in (options.only or WAYS)}
        results: dict[str, Any] = {}
        for split in [options.split] if options.split else SPLITS:
            folders = {}
            for name, (kind, how) in ways.items():
                folder = place / f"{split}-{options.problems}" / name.replace(" ", "_")
                searched(models, split, START, options.problems, kind, how, folder)
                folders[name] = folder
            found = compare_searches(folders, judge)
            say(f"{split}, {found.n_problems} problems:")
            show(found)
            results[split] = rounded(found.metrics())
        write_json(
            options.out,
            {
                "prmkit": __version__,
                "torch": torch.__version__,
                "machine": options.machine,
                "ways": {name: {"algorithm": k, **o} for name, (k, o) in ways.items()},
                **results,
            },
        )


if __name__ == "__main__":
    main()
