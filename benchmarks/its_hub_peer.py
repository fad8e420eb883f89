"""Beam search and particle filtering beside its_hub 1.2.0, with one policy, scorer and problems.

    make its && .venv-its/bin/python benchmarks/its_hub_peer.py [--problems N] [--n N] [--out FILE]

Both sides draw with the embedded policy through `HFPolicy` (so its_hub profits from the keys and
values that it keeps) and score with the embedded PRM; its_hub is told by a stop text where
solutions end, since it does not see that the model ended its text. Tokens are counted where they
are drawn and read. One problem at a time on both sides; ours is also run with 16 under way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.step_generation import StepGeneration

from prmkit import __version__
from prmkit.aggregate import aggregate_scores
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge, split_lines
from prmkit.embedded.world import problems
from prmkit.evaluation import paired_bootstrap
from prmkit.files import write_json
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.records import Problem, Step, StepScores, Trajectory
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.search import DriveSettings, SearchSettings, algorithm, search

RESULTS = Path(__file__).parent / "results" / "its_hub.json"
START = 45_000
STEPS = 20


class Policy(AbstractLanguageModel):
    """The embedded policy as its_hub wants one; counts what it draws."""

    def __init__(self, policy: HFPolicy, items: Sequence[Problem]):
        self._policy = policy
        self._problems = {problem.text: problem for problem in items}
        self.tokens = self.calls = 0
        self._seed = 0

    async def agenerate(self, messages: Any, stop: Any = None, **options: Any) -> Any:
        """Completions of conversations."""
        batch = messages if isinstance(messages[0], list) else [messages]
        prefixes = []
        for turns in batch:
            problem = self._problems[turns[0].content]
            so_far = turns[1].content if len(turns) > 1 else ""
            steps = tuple(Step(text=text) for text in split_lines(so_far))
            prefixes.append(Trajectory(problem=problem, steps=steps))
        heat = options.get("temperature")
        settings = SamplingSettings(
            temperature=heat[0] if isinstance(heat, list) else heat,
            max_new_tokens=60,
            stop=(stop,),
        )
        seeds = range(self._seed, self._seed + len(prefixes))
        self._seed += len(prefixes)
        drawn = self._policy.complete(prefixes, 1, settings, list(seeds))
        self.calls += len(prefixes)
        self.tokens += sum(completion.n_tokens for (completion,) in drawn)
        told = [{"role": "assistant", "content": completion.text} for (completion,) in drawn]
        return told if isinstance(messages[0], list) else told[0]


class Reward(AbstractProcessRewardModel):
    """The embedded PRM as its_hub wants one: one number for a text."""

    def __init__(self, scorer: DiscriminativeScorer, items: Sequence[Problem]):
        self._scorer = scorer
        self._problems = {problem.text: problem for problem in items}
        self.tokens = 0

    def score(self, prompt_or_messages: Any, steps: Any) -> Any:
        """The lowest score of each text's steps."""
        problem = self._problems[prompt_or_messages]
        texts = [steps] if isinstance(steps, str) else steps
        trajectories = [
            Trajectory(
                problem=problem, steps=tuple(Step(text=text) for text in split_lines(response))
            )
            for response in texts
        ]
        self.tokens += sum(self._scorer.n_tokens(trajectories))
        found = [
            aggregate_scores(scores, "min") if isinstance(scores, StepScores) else 0.0
            for scores in self._scorer.score(trajectories)
        ]
        return found[0] if isinstance(steps, str) else found

    async def ascore(self, prompt_or_messages: Any, steps: Any) -> Any:
        """The same."""
        return self.score(prompt_or_messages, steps)


def theirs(kind: str, items: Sequence[Problem], n: int, width: int) -> dict[str, Any]:
    """its_hub's side."""
    random.seed(0)
    np.random.seed(0)
    policy = Policy(HFPolicy(WEIGHTS / "policy", device="cpu"), items)
    reward = Reward(DiscriminativeScorer(WEIGHTS / "prm", device="cpu"), items)
    steps = StepGeneration(
        STEPS,
        step_token="\n",
        stop_token="The answer is",
        temperature=0.8,
        include_stop_str_in_output=True,
    )
    searching = (
        BeamSearch(steps, reward, width) if kind == "beam" else ParticleFiltering(steps, reward)
    )
    right, begun = [], time.perf_counter()
    for problem in items:
        answer = asyncio.run(searching.ainfer(policy, problem.text, n))
        right.append(bool(judge(problem, answer["content"]).correct))
    return told(right, policy.tokens, reward.tokens, time.perf_counter() - begun, policy.calls)


def ours(
    name: str, options: dict[str, Any], items: Sequence[Problem], in_flight: int, choice: str
) -> dict[str, Any]:
    """Prmkit's side."""
    settings = SearchSettings(
        split="line", max_step_tokens=60, max_tokens=200, answers="text", choice=choice
    )
    begun = time.perf_counter()
    found = list(
        search(
            items,
            algorithm(name, **options),
            HFPolicy(WEIGHTS / "policy", device="cpu"),
            DiscriminativeScorer(WEIGHTS / "prm", device="cpu"),
            settings=settings,
            judge=judge,
            driving=DriveSettings(in_flight=in_flight),
        )
    )
    return told(
        [bool(one.correct) for one in found],
        sum(one.cost.policy_tokens for one in found),
        sum(one.cost.scorer_tokens for one in found),
        time.perf_counter() - begun,
        sum(one.cost.completions for one in found),
    )


def told(right: list[bool], policy: int, scorer: int, seconds: float, calls: int) -> dict[str, Any]:
    n = len(right)
    return {
        "right": right,
        "accuracy": float(np.mean(right)),
        "policy_tokens": policy / n,
        "scorer_tokens": scorer / n,
        "completions": calls / n,
        "seconds": seconds / n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    items = list(problems(options.split, options.problems, START))
    n, width = options.n, options.width
    beam, particles = {"n": n, "width": width}, {"n": n}
    rows: dict[str, dict[str, Any]] = {}
    for name, run in {
        "beam, its_hub": lambda: theirs("beam", items, n, width),
        "beam": lambda: ours("beam", beam, items, 1, "best"),
        # its_hub's first level has n / width candidates only: this one draws about as many tokens.
        "beam, as many tokens": lambda: ours(
            "beam", {"n": max(n - 2, 1), "width": max(width - 1, 1)}, items, 1, "best"
        ),
        "beam, vote": lambda: ours("beam", beam, items, 1, "weighted"),
        "beam, vote, 16 problems": lambda: ours("beam", beam, items, 16, "weighted"),
        "particles, its_hub": lambda: theirs("particles", items, n, width),
        "particles, its-pf": lambda: ours("its-pf", particles, items, 1, "algorithm"),
        "particles": lambda: ours("particle-filter", particles, items, 1, "weighted"),
        "particles, 16 problems": lambda: ours("particle-filter", particles, items, 16, "weighted"),
    }.items():
        rows[name] = run()
        shown = {k: round(v, 3) for k, v in rows[name].items() if k != "right"}
        print(f"{name:26} {shown}", flush=True)
    for name, row in rows.items():
        peer = rows["beam, its_hub" if name.startswith("beam") else "particles, its_hub"]
        row["minus_its_hub"] = [round(x, 4) for x in paired_bootstrap(row["right"], peer["right"])]
        row["times_faster"] = round(peer["seconds"] / row["seconds"], 3)
    for row in rows.values():
        del row["right"]
    about = {
        "prmkit": __version__,
        "its_hub": "1.2.0",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "problems": len(items),
        "n": n,
        "width": width,
    }
    write_json(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
