"""A reward model of an agent's turns, from its own episodes: is it worth acting by, and again?

    python recipes/8_agents.py [--tasks 24] [--episodes 8] [--rounds 2] [--candidates 2] [--out OUT]

The agent plays the crafting game by its plan, with mistakes. In each round (arXiv:2502.10325) it
plays, its turns are labelled by counting how their episodes ended, less from further away, and a
small model Q learns them. The agent of the next round takes the best of a few turns of the last.

Beside the first Q a second one learns by temporal targets (arXiv:2511.08325), from outcomes alone.
Both are asked at which turn of held-out failures a mistake is suspected.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from prmkit import Record, SamplingSettings, Step, StepScores, Trajectory, load_scorer
from prmkit.checkpoints import load_config, load_tokenizer, save_model
from prmkit.embedded.build import WEIGHTS
from prmkit.environments.actions import action_of, turns_of
from prmkit.environments.base import Task, replay, task_of
from prmkit.environments.crafting import crafting
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import rollout
from prmkit.labelling.promise_progress import counted_targets, progress
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import StepLabels
from prmkit.scorers.base import Scorer
from prmkit.training.batches import BatchSettings
from prmkit.training.episodes import PromiseSettings
from prmkit.training.losses import LossName
from prmkit.training.trainer import TrainSettings, train

GAMMA, MISTAKES = 0.9, ("Action: dance", "Action: inventory")


class Agent(ScriptedPolicy):
    """Knows the plan, and errs."""

    def __init__(self) -> None:
        super().__init__(self._turn, "agent 0")

    def _turn(self, prefix: Trajectory, rng: random.Random) -> str:
        game = crafting()
        replay(game, task_of(prefix.problem), [action_of(step.text) for step in prefix.steps])
        return rng.choice(MISTAKES) if rng.random() < 0.45 else f"Action: {game.plan()[0]}"


class BestOf(ScriptedPolicy):
    """Takes of a few turns of another agent the one that a model promises most of."""

    def __init__(self, agent: Agent | BestOf, scorer: Scorer, n: int, name: str):
        super().__init__(self._turn, name)
        self._agent, self._scorer, self._n = agent, scorer, n

    def _turn(self, prefix: Trajectory, rng: random.Random) -> str:
        texts = list(dict.fromkeys(self._agent._turn(prefix, rng) for _ in range(self._n)))
        ways = [{"steps": (*prefix.steps, Step(text=text))} for text in texts]
        offered = [prefix.model_copy(update=way) for way in ways]
        values = [s.values[-1] for s in self._scorer.score(offered) if isinstance(s, StepScores)]
        return texts[values.index(max(values))]


def play(agent: ScriptedPolicy, tasks: Sequence[Task], n: int) -> list[Trajectory]:
    """Episodes of tasks; of four turns the shortest plan leaves one to waste."""
    limits, drawn = EpisodeSettings(max_steps=4), SamplingSettings(max_new_tokens=200)
    groups = rollout(agent, crafting, tasks, n, sampling=drawn, settings=limits)
    return [episode.trajectory for group in groups for episode in group]


def counted(episodes: Sequence[Trajectory]) -> list[Record]:
    """As ``prm label --method counted --gamma 0.9`` labels them."""
    seen = [([turn.done for turn in turns_of(t)], float(bool(t.correct))) for t in episodes]
    labels = [StepLabels(values=v, kind="soft") for v in counted_targets(seen, gamma=GAMMA)]
    return [Record(trajectory=t, labels=of_t) for t, of_t in zip(episodes, labels, strict=True)]


def suspected(scorer: Scorer, episodes: Sequence[Trajectory]) -> str:
    """At how many of the failures the turn with the largest fall is a mistake."""
    hits, failed = 0, 0
    for t, scores in zip(episodes, scorer.score(episodes), strict=True):
        wrong = [i for i, step in enumerate(t.steps) if step.text in MISTAKES]
        if t.correct or not isinstance(scores, StepScores) or not 0 < len(wrong) < len(t.steps):
            continue
        gained, failed = progress(scores.values), failed + 1
        hits += gained.index(min(gained)) in wrong
    return f"at a mistake in {hits} of {failed} failures (largest fall)"


def start(folder: Path) -> str:
    """A small model of random weights, which learns what a turn is from nothing."""
    torch.manual_seed(0)
    config = load_config(WEIGHTS / "policy")
    config.update({"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2})
    config.update({"num_hidden_layers": 2, "num_key_value_heads": 2, "initializer_range": 0.1})
    tokenizer = load_tokenizer(WEIGHTS / "policy")
    save_model(folder, LlamaForCausalLM(config), tokenizer, {"family": "none"})
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = {"tasks": 24, "episodes": 8, "rounds": 2, "candidates": 2, "epochs": 6}
    for name, default in known.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/agents"))
    options = parser.parse_args()
    practised = [Task(seed, "depth-1") for seed in range(options.tasks)]
    held_out = [Task(seed, "depth-1") for seed in range(1000, 1000 + options.tasks)]
    base = start(options.out / "base")

    def taught(records: Sequence[Record], name: str, temporal: bool = False) -> Scorer:
        loss: LossName = "progress" if temporal else "cross_entropy"
        how = TrainSettings(
            base=base, out=options.out / name, kind="value", loss=loss, learning_rate=3e-3,
            epochs=options.epochs,
        )  # fmt: skip
        targets = PromiseSettings(targets="temporal", gamma=GAMMA) if temporal else None
        train(records, how, batches=BatchSettings(batch_size=8), promises=targets)
        return load_scorer(how.out)

    def tested(agent: Agent | BestOf) -> list[Trajectory]:
        test = play(agent, held_out, 4)
        won = sum(bool(t.correct) for t in test) / len(test)
        print(f"{agent.name}: {won:.3f} of episodes succeed")
        return test

    agent: Agent | BestOf = Agent()
    test = tested(agent)
    for number in range(1, options.rounds + 1):
        episodes = play(agent, practised, options.episodes)
        q = taught(counted(episodes), f"q{number}")
        if number == 1:
            again = taught([Record(trajectory=t) for t in episodes], "temporal", temporal=True)
            for name, scorer in (("counted", q), ("temporal", again)):
                print(f"{name}: {suspected(scorer, test)}")
        # In the paper the policy is now trained against Q, with a KL to the one before: that is
        # `prm rl`. Choosing by Q stands for it here, as sharp as its number of candidates.
        agent = BestOf(agent, q, options.candidates, f"agent {number}")
        tested(agent)


if __name__ == "__main__":
    main()
