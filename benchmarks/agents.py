"""Agents: what a process reward model is worth to a policy that acts, at equal environment steps.

    python benchmarks/agents.py [--worlds NAME ...] [--tasks N] [--seeds N] [--work DIR]
        [--processes N] [--out FILE]

In each world a small policy is cloned from the environment's planner. It plays practice tasks; from
those episodes an outcome reward model and AgentPRMs learn: (a) promise and progress by temporal
differences (arXiv:2511.08325), of actions, and of the states behind what they were answered, (b)
counted outcomes (arXiv:2502.10325). Then all choose among the policy's episodes and actions in
tasks that nobody has seen. Beside that: what labels cost by temporal differences and by Monte
Carlo, and what the policy learns from rewards, from one draw of practice tasks or from several
(--seeds). DIR keeps what is made, so that a run can be stopped and gone on with, also with more
seeds.
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
from concurrent.futures import Future, ProcessPoolExecutor, wait
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents_choosing import by_chance, by_search, by_votes, chosen, last_scores, turns_told
from agents_worlds import (
    HELD_OUT,
    PER_TASK,
    PRACTISED,
    SAMPLING,
    WORLDS,
    N,
    Stages,
    World,
    held_out_of,
    n_steps,
    played,
    policy_of,
    practised,
    say,
    shares,
    told_of,
)
from prmkit import __version__
from prmkit.environments.actions import turns_of
from prmkit.environments.base import Task
from prmkit.environments.rollout import from_turns
from prmkit.errors import NothingToMeasure
from prmkit.files import write_json
from prmkit.labelling.promise_progress import counted_targets
from prmkit.policies.base import Policy
from prmkit.policies.hf import HFPolicy
from prmkit.records import Record, StepLabels, Trajectory
from prmkit.rl import saving
from prmkit.rl.episodes import train_agent
from prmkit.rl.loop import Plan
from prmkit.rl.settings import RewardSettings, RLSettings, RolloutSettings, UpdateSettings
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.training.episodes import PromiseSettings
from prmkit.training.trainer import TrainSettings, train
from rl import interval

RESULTS = Path(__file__).parent / "results" / "agents.json"
PRICED, TAUGHT = ("go to",), ("go to",)
"""Worlds in which labels' cost is measured, and in which the policy is taught."""


def counted(episodes: Sequence[Trajectory]) -> list[Record]:
    """Labels by the mean outcome of what did the same in the same situation."""
    targets = counted_targets([(turns_of(one), float(one.correct is True)) for one in episodes])
    return [
        Record(trajectory=one, labels=StepLabels(values=tuple(values), kind="soft"))
        for one, values in zip(episodes, targets, strict=True)
    ]


def of_ends(episodes: Sequence[Trajectory]) -> list[Record]:
    """Labels of the last turns alone: an outcome model, read as the others are."""
    return [
        Record(
            trajectory=one,
            labels=StepLabels(
                values=(*[None] * (len(one.steps) - 1), float(one.correct is True)), kind="soft"
            ),
        )
        for one in episodes
    ]


def from_outcomes(episodes: Sequence[Trajectory]) -> list[Record]:
    """Records whose outcome is all that they teach."""
    return [Record(trajectory=one) for one in episodes]


def monte_carlo(
    world: World, policy: Policy, episodes: Sequence[Trajectory], n: int
) -> tuple[list[Record], int]:
    """Soft labels by going on from each turn, and the environment steps that it took."""
    prefixes = {
        prefix.key: prefix
        for one in episodes
        for k in range(1, len(one.steps))
        for prefix in [one.prefix(k)]
    }
    found = dict(
        zip(
            prefixes,
            from_turns(
                policy, world.make, [*prefixes.values()], n,
                sampling=SAMPLING, settings=world.settings,
            ),
            strict=True,
        )
    )  # fmt: skip
    records = []
    for one in episodes:
        shares = [
            found[one.prefix(k).key].successes / max(found[one.prefix(k).key].trials, 1)
            for k in range(1, len(one.steps))
        ]
        values = (*shares, float(one.correct is True))
        records.append(Record(trajectory=one, labels=StepLabels(values=values, kind="soft")))
    return records, sum(of.steps for of in found.values()) + sum(len(one.steps) for one in episodes)


def taught(place: Path, base: Path, records: Sequence[Record], **settings: Any) -> Path:
    """A reward model from the policy's weights; all read about as many rows."""
    if not place.is_dir():
        promises = settings.pop("promises", None)
        how: dict[str, Any] = {
            "kind": "value", "family": "turn_value", "learning_rate": 1e-3,
            "epochs": float(np.clip(ROWS / len(records), 1.0, MOST)),
        }  # fmt: skip
        settings = {**how, **settings, "base": str(base), "out": place}
        train(records, TrainSettings(**settings), promises=promises)
    return place


ROWS, MOST = 1600, 80
"""Rows that a reward model reads, and passes over its data at most."""

PROMISE: dict[str, Any] = {"loss": "progress", "promises": PromiseSettings(targets="temporal")}

MODELS: dict[str, dict[str, Any]] = {
    "outcome model": {},
    "AgentPRM (a)": PROMISE,
    "AgentPRM (a) of states": {**PROMISE, "family": "turn_state"},
    "AgentPRM (b)": {},
}
SEARCHED = ("AgentPRM (a)", "AgentPRM (a) of states", "AgentPRM (b)")
"""Those by which beams are chosen, too."""
WIDER = SEARCHED[:2]
"""Those by which also twice as many beams of half the width are chosen."""


def main_of(name: str, place: Path, n_tasks: int) -> None:
    """Clone, practise, learn, choose."""
    torch.set_num_threads(1)
    world, stages = WORLDS[name], Stages(place)
    policy = policy_of(world, stages)
    stages("practice played", lambda: told_of(practised(world, policy, place)))
    every = [*chain(*practised(world, policy, place))]
    labelled = {
        "outcome model": of_ends(every),
        "AgentPRM (a)": from_outcomes(every),
        "AgentPRM (a) of states": from_outcomes(every),
        "AgentPRM (b)": counted(every),
    }
    stages("held out played", lambda: told_of(held_out_of(world, policy, place, n_tasks)))
    held_out = held_out_of(world, policy, place, n_tasks)
    stages("majority of episodes", lambda: chosen(held_out))
    stages("majority of actions", lambda: by_votes(world, policy, n_tasks))
    shortest = [[-float(len(one.steps)) for one in of] for of in held_out]
    stages("shortest of episodes", lambda: chosen(held_out, shortest))
    chance = ScriptedScorer(by_chance, semantics="value")
    stages("beam, chance", lambda: by_search(world, policy, chance, n_tasks))
    stages("wider beam, chance", lambda: by_search(world, policy, chance, n_tasks, width=2))
    for model, how in MODELS.items():
        learnt(world, stages, policy, model, labelled[model], how, held_out)
    models = {model: place / model.replace(" ", "_") for model in MODELS}
    stages("turns", lambda: turns_told(world, policy, models, held_out))


def learnt(
    world: World,
    stages: Stages,
    policy: Policy,
    model: str,
    records: Sequence[Record],
    how: dict[str, Any],
    held_out: list[list[Trajectory]],
) -> None:
    """Train a reward model, and choose by it."""
    folder = stages.place / model.replace(" ", "_")
    base = stages.place / "policy"
    stages(f"{model} trained", lambda: str(taught(folder, base, records, **how)))
    stages(f"best of episodes, {model}", lambda: chosen(held_out, last_scores(folder, held_out)))
    if model in SEARCHED:
        scorer = DiscriminativeScorer(folder, device="cpu")
        stages(f"beam, {model}", lambda: by_search(world, policy, scorer, len(held_out)))
        if model in WIDER:
            stages(
                f"wider beam, {model}",
                lambda: by_search(world, policy, scorer, len(held_out), width=2),
            )


COSTS = (2, 6, 20)
"""Practice tasks whose episodes are labelled: by temporal differences all `PER_TASK` of each are
played, by Monte Carlo one, and it is gone on `PER_TASK` times from each of its turns."""

WAYS = ("temporal", "Monte Carlo")


def cost_of(name: str, place: Path, way: str, n: int, seed: int) -> None:
    """What labels of `n` tasks cost, and what best-of-N by a model of them is worth.

    All seeds have other tasks.
    """
    torch.set_num_threads(1)
    world, stages = WORLDS[name], Stages(place)
    policy = HFPolicy(place / "policy", device="cpu")
    label = f"{way}, {n} tasks, seed {seed}"

    def make() -> dict[str, Any]:
        first = seed * COSTS[-1]
        practice = practised(world, policy, place)[first : first + n]
        how = dict(PROMISE)
        if way == "temporal":
            records, steps = from_outcomes([*chain(*practice)]), n_steps(practice)
        else:
            records, steps = monte_carlo(world, policy, [of[0] for of in practice], PER_TASK)
            # The same loss; its targets are those of the labels.
            how = {"loss": "progress"}
        try:
            folder = place / label.replace(" ", "_")
            taught(folder, place / "policy", records, seed=seed, **how)
        except NothingToMeasure as error:
            # So few tasks may all have been failed.
            return {"environment_steps": steps, "not_trained": str(error)}
        held_out = held_out_of(world, policy, place, 0)
        return {"environment_steps": steps, **chosen(held_out, last_scores(folder, held_out))}

    stages(label, make)


RL_STEPS, RL_TASKS = 40, 8
RL_FIRST = 10_000
"""Where the practice tasks of the first seed begin, and so on: no reward model has seen them."""
PROGRESS: dict[str, Any] = {"reward": "progress", "outcome_weight": 1.0}
REWARDS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "GRPO, outcome": (None, {}),
    "GRPO, progress and outcome": ("AgentPRM (a)", PROGRESS),
    "GRPO, progress of states and outcome": ("AgentPRM (a) of states", PROGRESS),
}
"""By which model's scores, and how they count."""


def reinforced(name: str, place: Path, way: str, seed: int, n_tasks: int) -> None:
    """Teach the policy by what it earns, and play the held-out tasks again."""
    torch.set_num_threads(1)
    world, stages = WORLDS[name], Stages(place)
    label = f"{way}, seed {seed}"
    folder = place / label.replace(" ", "_")

    def make() -> dict[str, Any]:
        model, rewards = REWARDS[way]
        first = PRACTISED + RL_FIRST * (seed + 1)
        scorer = None
        if model is not None:
            scorer = DiscriminativeScorer(place / model.replace(" ", "_"), device="cpu")
        train_agent(
            world.make,
            [Task(at, world.task) for at in range(first, first + RL_STEPS * RL_TASKS)],
            Plan(
                run=RLSettings(
                    policy=str(place / "policy"),
                    out=folder,
                    algorithm="grpo",
                    steps=RL_STEPS,
                    save_every=10,
                    seed=seed,
                    device="cpu",
                ),
                rollouts=RolloutSettings(
                    problems=RL_TASKS, samples=N, max_new_tokens=SAMPLING.max_new_tokens
                ),
                rewards=RewardSettings(**rewards),
                update=UpdateSettings(learning_rate=1e-3),
                episodes=world.settings,
            ),
            scorer=scorer,
        )
        after = played(
            world,
            HFPolicy(folder / "policy", device="cpu"),
            HELD_OUT,
            n_tasks,
            4,
            folder / "held_out.jsonl",
        )
        rows, right = saving.rows(folder), shares(after)
        return {
            "success": interval([right]),
            "environment_steps": rows[-1]["env_steps"],
            "curve": [row["accuracy"] for row in rows if "accuracy" in row],
            "right": right,
        }  # fmt: skip

    stages(label, make)


def taught_by(made: dict[str, Any]) -> dict[str, Any]:
    """What teaching came to over seeds and tasks, beside what was before, and beside outcomes."""
    runs = {
        way: [value["right"] for label, value in made.items() if label.startswith(f"{way}, seed ")]
        for way in REWARDS
    }
    outcome, *others = REWARDS
    before = made["held out played"]["right"]
    told: dict[str, Any] = {
        way: {"seeds": len(of), "success": interval(of), "gain": interval(of, before)}
        for way, of in runs.items()
        if of
    }
    for way in others:
        if runs[outcome] and len(runs[outcome]) == len(runs[way]):
            told[way]["over outcome"] = interval(runs[way], runs[outcome])
    return told


def over_chance(made: dict[str, Any]) -> dict[str, Any]:
    """By how much beams that a model chooses are better than as many by chance; the same tasks."""
    return {
        f"{kind}, {model}": interval(
            [made[f"{kind}, {model}"]["right"]], [made[f"{kind}, chance"]["right"]]
        )
        for kind in ("beam", "wider beam")
        for model in SEARCHED
        if f"{kind}, {model}" in made
    }


def priced_by(made: dict[str, Any]) -> dict[str, Any]:
    """What labels cost, and what the best of `N` by them is worth: means over seeds, and each."""
    told = {}
    for label in (f"{way}, {n} tasks" for way in WAYS for n in COSTS):
        runs = [one for stage, one in made.items() if stage.startswith(f"{label}, seed ")]
        each = [one["at"][-1]["best"][0] for one in runs if "at" in one]
        if each:
            told[label] = {
                "environment_steps": float(np.mean([one["environment_steps"] for one in runs])),
                "best": float(np.mean(each)),
                "of seeds": each,
                "not_trained": len(runs) - len(each),
            }
    return told


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items() if key != "right"}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def run_all(worlds: Sequence[str], place: Path, n_tasks: int, seeds: int, processes: int) -> None:
    """All that is not made yet, on so many cores: what builds on a world, once it is there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        firsts = {
            pool.submit(main_of, name, place / name.replace(" ", "_"), n_tasks): name
            for name in worlds
        }
        waiting: set[Future[None]] = set(firsts)
        while waiting:
            done, waiting = wait(waiting, return_when="FIRST_COMPLETED")
            for one in done:
                one.result()
                name = firsts.get(one)
                if name is None:
                    continue
                of = place / name.replace(" ", "_")
                for seed in range(seeds):
                    if name in TAUGHT:
                        waiting |= {
                            pool.submit(reinforced, name, of, way, seed, n_tasks) for way in REWARDS
                        }
                    if name in PRICED:
                        waiting |= {
                            pool.submit(cost_of, name, of, way, n, seed)
                            for way in WAYS
                            for n in COSTS
                        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--tasks", type=int, default=60, help="held out, of 8 episodes each")
    parser.add_argument(
        "--seeds", type=int, default=1, choices=(1, 2, 3), help="of labels' cost and of teaching"
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    # Large blocks are used again and not given back: to get them anew is a quarter of all time.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.work or Path(temporary)
        n_tasks = Stages(place)("tasks", lambda: options.tasks)
        if n_tasks != options.tasks:
            raise SystemExit(
                f"{place} was begun with --tasks {n_tasks}; give the same, or another --work"
            )
        run_all(options.worlds, place, options.tasks, options.seeds, options.processes)
        found = {}
        for name in options.worlds:
            folder = place / name.replace(" ", "_")
            made = {f.stem: json.loads(f.read_text()) for f in sorted(folder.glob("*.json"))}
            values = {stage: one["value"] for stage, one in made.items()}
            sums = {
                "over chance": over_chance(values),
                "taught": taught_by(values),
                "labels": priced_by(values),
            }
            found[name] = {
                **{what: told for what, told in sums.items() if told},
                **{k: one["value"] for k, one in made.items() if isinstance(one["value"], dict)},
                "core_seconds": {stage: one["core_seconds"] for stage, one in made.items()},
            }
    wall = time.perf_counter() - begun
    cores = sum(sum(one["core_seconds"].values()) for one in found.values())
    say(f"{wall:.0f} s with {options.processes} processes; {cores:.0f} s of a core")
    about = {
        "prmkit": __version__, "torch": torch.__version__,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "tasks": options.tasks, "episodes": N, "core_seconds": cores,
    }  # fmt: skip
    write_json(options.out, rounded({**about, "worlds": found}))


if __name__ == "__main__":
    main()
