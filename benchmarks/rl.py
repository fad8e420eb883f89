"""Policies of the embedded world taught by outcomes and step scores, at equal numbers of steps.

    python benchmarks/rl.py [--arms NAME ...] [--seeds N ...] [--steps N] [--work DIR]
        [--processes N] [--out FILE]

Every run begins with the shipped policy, draws the same number of responses to fresh problems of
the training stories a step, and is judged on other problems, in domain. DIR keeps the runs, so that
each can be made by itself, or gone on with; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.files import write_json
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.rl import saving
from prmkit.rl.loop import Plan, train_policy
from prmkit.rl.monitors import MonitorSettings
from prmkit.rl.settings import (
    Algorithm,
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.splitting import splitter

RESULTS = Path(__file__).parent / "results" / "rl.json"
RATE = 3e-4
"""Of policies; 1e-4 and 1e-3 were worse with outcomes alone. PRIME's reward model learns with 5e-4
and β 0.5, as implicit PRMs do in `training.py`; with 3e-4 and 0.05 it learnt nothing."""

ARMS: dict[str, tuple[Algorithm, dict[str, Any]]] = {
    "RLOO, outcome": ("rloo", {}),
    "GRPO, outcome": ("grpo", {}),
    "PRIME": ("prime", {"reward": "implicit"}),
    "PRIME, unscaled": ("prime", {"reward": "implicit"}),
    "GRPO, PRM": ("grpo", {"reward": "score"}),
    "PURE, PRM and outcome": ("rloo", {"reward": "min", "outcome_weight": 1.0}),
    "PURE, PRM": ("rloo", {"reward": "min"}),
    "sum of scores": ("reinforce", {"reward": "score"}),
    "sum of scores, outcome": ("reinforce", {"reward": "score", "outcome_weight": 10.0}),
    "min, for the sum": ("reinforce", {"reward": "min"}),
}
"""By name: the algorithm, and what is earned. The last three are about being fooled."""

USUAL = ["RLOO, outcome", "GRPO, outcome", "PRIME", "GRPO, PRM", "PURE, PRM and outcome"]
"""Arms that are made unless others are named: half an hour of two cores with three seeds."""

PRACTICE, WATCHED, JUDGED = 200_000, 50_000, 55_000
"""Where problems begin: to practise on, to evaluate on meanwhile, and to judge by in the end."""

GOAL = 0.6
"""Of samples right: how many tokens a run took to that is its efficiency."""


def say(text: str) -> None:
    print(text, flush=True)


def taught(name: str, seed: int, steps: int, folder: Path) -> None:
    """One run, and what its policy does in the end."""
    algorithm, rewards = ARMS[name]
    plan = Plan(
        run=RLSettings(
            policy=str(WEIGHTS / "policy"), out=folder, algorithm=algorithm, steps=steps,
            save_every=20, eval_every=10, eval_samples=3, seed=seed, device="cpu",
        ),
        rollouts=RolloutSettings(problems=16, samples=8, max_new_tokens=200, split="line"),
        rewards=RewardSettings(**rewards),
        update=UpdateSettings(learning_rate=RATE),
        implicit=(
            ImplicitSettings(beta=0.5, prm_learning_rate=5e-4, scaled="unscaled" not in name)
            if algorithm == "prime"
            else ImplicitSettings()
        ),
        # Soon: these runs are short.
        monitors=MonitorSettings(baseline=5, window=5),
    )  # fmt: skip
    begun = time.perf_counter()
    train_policy(
        list(problems("train", 16 * steps, PRACTICE)),
        plan,
        judge,
        scorer=DiscriminativeScorer(WEIGHTS / "prm", device="cpu"),
        held_out=list(problems("test", 125, WATCHED)),
    )
    last = saving.rows(folder)[-1]
    say(
        f"  {name}, seed {seed}: {last['eval_accuracy']:.3f} right, greedily "
        f"{last['eval_greedy']:.3f} ({time.perf_counter() - begun:.0f} s)"
    )


def made(name: str, seed: int, steps: int, folder: Path) -> None:
    """A run and how its policy is judged, on one core: so no run waits for another's."""
    torch.set_num_threads(1)
    taught(name, seed, steps, folder)
    write_json(folder / "judged.json", judged(folder / "policy"))


def make(arms: Sequence[str], seeds: Sequence[int], steps: int, place: Path, n: int) -> None:
    """Make the runs that are not there yet, `n` at a time."""
    wanted = [
        (name, seed, steps, folder)
        for name in arms
        for seed in seeds
        if not ((folder := place / f"{name.replace(' ', '_')}-{seed}") / "judged.json").is_file()
    ]
    with ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")) as pool:
        for one in as_completed([pool.submit(made, *what) for what in wanted]):
            one.result()


def judged(policy: Path, n: int = 300, samples: int = 4) -> list[float]:
    """Of fresh problems, the share of right responses to each."""
    settings = SamplingSettings(temperature=1.0, max_new_tokens=200)
    drawn = sample(
        HFPolicy(policy, device="cpu"), list(problems("test", n, JUDGED)), samples,
        splitter("line"), judge, settings=settings, in_flight=64,
    )  # fmt: skip
    return [sum(one.correct is True for one in of) / samples for of in drawn]


def interval(
    runs: Sequence[Sequence[float]],
    base: Sequence[float] | Sequence[Sequence[float]] | None = None,
) -> list[float]:
    """Mean over runs and problems with 95 % of a bootstrap over both; less another's, if given."""
    table = np.asarray(runs) - (0 if base is None else np.asarray(base))
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        some = table[rng.integers(len(table), size=len(table))]
        means.append(some[:, rng.integers(table.shape[1], size=table.shape[1])].mean())
    return [float(table.mean()), *np.quantile(means, [0.025, 0.975]).tolist()]


def tokens_to(rows: Sequence[dict[str, Any]], goal: float) -> float | None:
    """Sampled tokens at which an evaluation reached a goal, between two evaluations by a line."""
    before: tuple[float, float] | None = None
    for row in rows:
        if "eval_accuracy" not in row:
            continue
        at, here = float(row["sampled_tokens"]), float(row["eval_accuracy"])
        if here >= goal:
            if before is None or here == before[1]:
                return at
            return before[0] + (at - before[0]) * (goal - before[1]) / (here - before[1])
        before = at, here
    return None


def described(name: str, folders: Sequence[Path], start: list[float]) -> dict[str, Any]:
    """The figures of an arm."""
    rows = [saving.rows(folder) for folder in folders]
    finals = [json.loads((folder / "judged.json").read_text()) for folder in folders]
    alarms = [next((a["step"] for row in of for a in row.get("alarms", ())), None) for of in rows]
    return {
        "algorithm": ARMS[name][0], **ARMS[name][1],
        "seeds": len(folders),
        "after": interval(finals),
        "gain": interval(finals, start),
        "greedy": [of[-1]["eval_greedy"] for of in rows],
        "sampled_tokens": float(np.mean([of[-1]["sampled_tokens"] for of in rows])),
        "seconds": float(np.mean([of[-1]["seconds"] for of in rows])),
        "curve": [
            [row["sampled_tokens"], float(np.mean([of[i]["eval_accuracy"] for of in rows]))]
            for i, row in enumerate(rows[0]) if "eval_accuracy" in row
        ],
        "steps_of_a_response": float(np.mean([of[-1]["steps"] for of in rows])),
        "prm": [float(np.mean([of[i]["prm"] for of in rows])) for i in (1, -1)],
        "first_alarm": alarms,
        "monitors": sorted({a["monitor"] for of in rows for r in of for a in r.get("alarms", ())}),
        "accuracy": [
            [float(np.mean([row["accuracy"] for row in of[at : at + 10]])) for of in rows]
            for at in range(1, len(rows[0]), 10)
        ],
    }  # fmt: skip


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=USUAL)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time"
    )
    parser.add_argument(
        "--machine",
        default=f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        help="where the runs were made, if elsewhere",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    # Large blocks are used again and not given back: to get them anew is a quarter of all time.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        make(options.arms, options.seeds, options.steps, place, options.processes)
        say(f"runs made in {time.perf_counter() - begun:.0f} s, {options.processes} at a time")
        first = place / "start.json"
        if not first.is_file():
            write_json(first, judged(WEIGHTS / "policy"))
        start = json.loads(first.read_text())
        found: dict[str, Any] = {}
        kept: dict[str, list[Path]] = {}
        for name in ARMS:
            folders = sorted(place.glob(f"{name.replace(' ', '_')}-[0-9]*"))
            kept[name] = [folder for folder in folders if (folder / "judged.json").is_file()]
            if kept[name]:
                found[name] = described(name, kept[name], start)
        for name, one in found.items():
            one["tokens_to_goal"] = [tokens_to(saving.rows(f), GOAL) for f in kept[name]]
    for name, one in found.items():
        after, gain = one["after"], one["gain"]
        say(
            f"{name:26} {after[0]:.3f} [{after[1]:.3f}, {after[2]:.3f}]  gain {gain[0]:+.3f} "
            f"[{gain[1]:+.3f}, {gain[2]:+.3f}]  {one['sampled_tokens']:.0f} tokens  "
            f"first alarm {one['first_alarm']} {one['monitors']}"
        )
    about = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "machine": options.machine,
        "steps": options.steps,
        "goal": GOAL,
        "before": interval([start]),
    }
    write_json(options.out, rounded({**about, "arms": found}))


if __name__ == "__main__":
    main()
