"""Where the agents of `agents.py` act, and what is made once: policies and episodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents_policies import cloned, demonstrations
from prmkit.environments.base import MakeEnvironment, Planner, Task
from prmkit.environments.catalogue import environment
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import rollout
from prmkit.files import write_json
from prmkit.formats.files import read_records, write_records
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.records import Trajectory

SAMPLING = SamplingSettings(temperature=1.0, max_new_tokens=40)
N = 8
"""Episodes among which is chosen."""
SHOWN, PRACTISED, HELD_OUT = 1_000_000, 200_000, 500_000
"""Where seeds begin: of demonstrations, of practice, and of the tasks that are judged by."""
PER_TASK = 16
"""Episodes of a practice task, as in arXiv:2511.08325."""


@dataclass(frozen=True)
class World:
    """Where an agent acts.

    Attributes:
        env: the environment.
        task: the kind of its tasks.
        max_steps: of an episode.
        demonstrations: that the policy learns from.
        cloning: how, see `agents_policies.cloned`.
        mistakes: turns of them that are left to chance, see `agents_policies.demonstrations`.
        practice: tasks of it.
    """

    env: str
    task: str
    max_steps: int
    demonstrations: int
    cloning: dict[str, Any]
    mistakes: float = 0.2
    practice: int = 60

    @property
    def make(self) -> MakeEnvironment:
        """What makes the environment."""
        return environment(self.env)

    @property
    def settings(self) -> EpisodeSettings:
        """How episodes are played."""
        return EpisodeSettings(max_steps=self.max_steps, in_flight=48)


WORLDS = {
    "go to": World(
        "babyai-words", "BabyAI-GoToRedBall-v0", 10, 2000, {"steps": 500, "tokens": 2048}
    ),
    "put next": World("babyai-words", "BabyAI-PutNextLocalS5N3-v0", 12, 1500, {"steps": 220}),
    "craft": World(
        "crafting", "depth-1", 8, 4000, {"steps": 1200, "tokens": 2048, "observations": True},
        mistakes=0.1,
    ),
}  # fmt: skip


def say(text: str) -> None:
    print(text, flush=True)


class Stages:
    """What is made once and found again, with the seconds that it took, and those of a core.

    Args:
        place: the world's folder.
    """

    def __init__(self, place: Path):
        self.place = place
        place.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, as JSON."""
        file = self.place / f"{name}.json"
        if not file.is_file():
            begun, of_core = time.perf_counter(), time.process_time()
            value = make()
            seconds, of_core = time.perf_counter() - begun, time.process_time() - of_core
            write_json(file, {"value": value, "seconds": seconds, "core_seconds": of_core})
            say(f"  {self.place.name}: {name} ({seconds:.0f} s, {of_core:.0f} of a core)")
        return json.loads(file.read_text())["value"]


def policy_of(world: World, stages: Stages) -> HFPolicy:
    """The cloned policy."""
    folder = stages.place / "policy"

    def make() -> dict[str, float]:
        planner = world.make()
        assert isinstance(planner, Planner)
        shown = demonstrations(planner, world.task, SHOWN, world.demonstrations, world.mistakes)
        return cloned(folder, shown, **world.cloning)

    stages("cloned", make)
    return HFPolicy(folder, device="cpu")


def played(
    world: World, policy: Policy, first: int, n: int, samples: int, file: Path
) -> list[list[Trajectory]]:
    """Episodes of tasks, as records in a file; [tasks][samples]."""
    if not file.is_file():
        tasks = [Task(seed, world.task) for seed in range(first, first + n)]
        groups = rollout(
            policy, world.make, tasks, samples, sampling=SAMPLING, settings=world.settings
        )
        write_records([episode.record for group in groups for episode in group], file)
    every = [record.trajectory for record in read_records(file)]
    return [every[at : at + samples] for at in range(0, len(every), samples)]


def n_steps(episodes: Sequence[Sequence[Trajectory]]) -> int:
    """Steps of the environment that episodes took."""
    return sum(len(one.steps) for group in episodes for one in group)


def shares(episodes: Sequence[Sequence[Trajectory]]) -> list[float]:
    """Of each task, the share of its episodes that succeeded."""
    return [float(np.mean([one.correct is True for one in group])) for group in episodes]


def practised(world: World, policy: Policy, place: Path) -> list[list[Trajectory]]:
    """Episodes that reward models learn from."""
    return played(world, policy, PRACTISED, world.practice, PER_TASK, place / "practice.jsonl")


def held_out_of(world: World, policy: Policy, place: Path, n: int) -> list[list[Trajectory]]:
    """Episodes of the tasks that are judged by."""
    return played(world, policy, HELD_OUT, n, N, place / "held_out.jsonl")


def told_of(episodes: Sequence[Sequence[Trajectory]]) -> dict[str, Any]:
    """What episodes cost, and how many succeeded."""
    right = shares(episodes)
    return {
        "environment_steps": n_steps(episodes), "success": float(np.mean(right)), "right": right,
    }  # fmt: skip
