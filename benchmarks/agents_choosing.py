"""Choosing among an agent's episodes and actions, for `agents.py`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from agents_worlds import HELD_OUT, PER_TASK, SAMPLING, N, World, n_steps, say, shares
from prmkit.environments.base import Task
from prmkit.environments.rollout import from_turns, rollout
from prmkit.evaluation.episodes import Played, measure_episodes
from prmkit.policies.base import Completion, Policy, SamplingSettings
from prmkit.records import Problem, StepScores, Trajectory
from prmkit.scorers.base import Scorer
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.search.acting import Acting, set_tasks
from prmkit.search.beam import beam_search
from prmkit.search.drive import DriveSettings, search
from prmkit.search.settings import SearchSettings
from rl import interval


def last_scores(folder: Path, episodes: Sequence[Sequence[Trajectory]]) -> list[list[float]]:
    """Of each episode, what the model says at its last turn."""
    scorer = DiscriminativeScorer(folder, device="cpu")
    every = [one for group in episodes for one in group]
    scores = [
        scored.values[-1] if isinstance(scored, StepScores) and scored.values else float("nan")
        for scored in scorer.score(every)
    ]
    width = len(episodes[0])
    return [scores[at : at + width] for at in range(0, len(scores), width)]


def chosen(
    episodes: Sequence[Sequence[Trajectory]], scores: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """What choosing by scores, or by the most frequent course, is worth; figures by N."""
    groups = [
        [
            Played(
                one.correct is True,
                len(one.steps),
                None if scores is None else scores[i][j],
                tuple(step.text for step in one.steps),
            )
            for j, one in enumerate(group)
        ]
        for i, group in enumerate(episodes)
    ]
    return measure_episodes(groups, votes=scores is None).metrics()


class Voting:
    """A policy that does what it would do most often: of `n` completions the most frequent.

    Args:
        policy: asked `n` times a turn.
        n: completions.
    """

    def __init__(self, policy: Policy, n: int):
        self._policy, self._n = policy, n
        self.name = f"{policy.name}, the most frequent of {n}"

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`."""
        assert n == 1
        drawn = self._policy.complete(prefixes, self._n, settings, seeds, first)
        found = []
        for of_prefix in drawn:
            most = Counter(one.text for one in of_prefix).most_common(1)[0][0]
            found.append([next(one for one in of_prefix if one.text == most)])
        return found


def by_chance(problem: Problem, turns: Sequence[str]) -> float:
    """A promise that knows nothing: what a beam is worth by that is worth of its form alone."""
    return random.Random(f"{problem.id} {turns}").random()


def by_search(
    world: World, policy: Policy, scorer: Scorer, n_tasks: int, width: int = 4
) -> dict[str, Any]:
    """Beam search over actions: `N` of them a turn, from the best N / `width` beams."""
    tasks = [Task(seed, world.task) for seed in range(HELD_OUT, HELD_OUT + n_tasks)]
    problems = set_tasks(world.make, tasks, lambda problem, error: say(f"  {problem.id}: {error}"))
    found = search(
        problems,
        lambda scene: beam_search(scene, n=N, width=width, max_steps=world.max_steps),
        policy,
        scorer,
        settings=SearchSettings(
            temperature=SAMPLING.temperature, max_step_tokens=SAMPLING.max_new_tokens,
            aggregation="last", choice="best",
        ),
        driving=DriveSettings(in_flight=32),
        acting=Acting(make=world.make, max_steps=world.max_steps),
    )  # fmt: skip
    right, steps, replayed = [], 0, 0
    for one in found:
        right.append(float(one.correct is True))
        steps += one.cost.env_steps
        replayed += one.cost.replayed
    n = len(right)
    return {
        "success": interval([right]), "tasks": n, "environment_steps": steps / n,
        "replayed": replayed / n, "right": right,
    }  # fmt: skip


def by_votes(world: World, policy: Policy, n_tasks: int) -> dict[str, Any]:
    """In each turn the most frequent of `N` actions: one episode, N times the policy's tokens."""
    tasks = [Task(seed, world.task) for seed in range(HELD_OUT, HELD_OUT + n_tasks)]
    voting = Voting(policy, N)
    groups = rollout(voting, world.make, tasks, 1, sampling=SAMPLING, settings=world.settings)
    every = [episode.trajectory for (episode,) in groups]
    right = [float(one.correct is True) for one in every]
    return {
        "success": interval([right]), "environment_steps": n_steps([every]) / len(every),
        "right": right,
    }  # fmt: skip


def siblings(episodes: Sequence[Sequence[Trajectory]], n: int) -> list[list[Trajectory]]:
    """Beginnings of episodes that differ in their last action alone, two or more together."""
    found: list[list[Trajectory]] = []
    for group in episodes:
        for k in range(1, max(len(one.steps) for one in group)):
            ways: dict[str, dict[str, Trajectory]] = {}
            for one in group:
                if len(one.steps) > k:
                    after = one.prefix(k)
                    ways.setdefault(one.prefix(k - 1).key, {})[after.key] = after
            found += [[*way.values()] for way in ways.values() if len(way) > 1]
    random.Random(0).shuffle(found)
    return found[:n]


def turns_told(
    world: World,
    policy: Policy,
    models: Mapping[str, Path],
    held_out: Sequence[Sequence[Trajectory]],
) -> dict[str, Any]:
    """What actions are worth that models choose among those of one situation, by going on.

    There are as many situations as tasks. The best of some is found by one half of the
    continuations and judged by the other: by the same ones the luckiest would be the best.
    """
    ways = siblings(held_out, len(held_out))
    every = [*chain(*ways)]
    went = from_turns(
        policy, world.make, every, PER_TASK, sampling=SAMPLING, settings=world.settings
    )
    first, second = (
        np.array(shares([[one.trajectory for one in of.episodes[half::2]] for of in went]))
        for half in (0, 1)
    )
    worth = (first + second) / 2
    spans = [slice(*ends) for ends in pairwise(np.cumsum([0, *map(len, ways)]))]

    def over_any(*judged: tuple[np.ndarray, np.ndarray]) -> list[float]:
        """By how much what the first numbers choose is better than any, by the second ones."""
        gains = [
            [by[span][of[span].argmax()] - by[span].mean() for of, by in judged] for span in spans
        ]
        return interval([[float(np.mean(gain)) for gain in gains]])

    def centred(numbers: np.ndarray) -> np.ndarray:
        return np.concatenate([numbers[span] - numbers[span].mean() for span in spans])

    told: dict[str, Any] = {
        "situations": len(ways),
        "any": float(np.mean([worth[span].mean() for span in spans])),
        "best, over any": over_any((first, second), (second, first)),
    }
    for model, folder in models.items():
        said = np.array(last_scores(folder, [every])[0])
        told[model] = {
            "over any": over_any((said, worth)),
            "correlation": float(np.corrcoef(said, worth)[0, 1]),
            "inside situations": float(np.corrcoef(centred(said), centred(worth))[0, 1]),
        }
    return told
