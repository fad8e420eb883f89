"""An agent that plays the crafting game by its plan, with some nonsense, and a scorer of it."""

from __future__ import annotations

from prmkit.environments.actions import action_of
from prmkit.environments.base import Task, replay, task_of
from prmkit.environments.crafting import crafting
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.scorers.scripted import ScriptedScorer


def at(problem, texts):
    """The game after some turns."""
    game = crafting()
    replay(game, task_of(problem), [action_of(text) for text in texts])
    return game


class Agent(ScriptedPolicy):
    """Plays the crafting game well, but for a share of nonsense; sees what it is answered."""

    def __init__(self, wrong=0.3):
        super().__init__(self._turn, "agent")
        self._wrong, self.calls = wrong, []

    def _turn(self, prefix, rng):
        game = at(prefix.problem, [step.text for step in prefix.steps])
        action = "dance" if rng.random() < self._wrong else game.plan()[0]
        return f"Thought: number {rng.randrange(1000)}.\nAction: {action}"

    def complete(self, prefixes, n, settings, seeds, first=None):
        self.calls.append(len(prefixes))
        return super().complete(prefixes, n, settings, seeds, first)


class Elsewhere(Agent):
    """Plays AgentGym's TextCraft, a crafting game behind a server; wastes turns."""

    def _turn(self, prefix, rng):
        game = crafting()
        game.reset(Task(task_of(prefix.problem).seed, "depth-1"))
        for step in prefix.steps:
            game.step(action_of(step.text))
        return f"Action: {'inventory' if rng.random() < 0.4 else game.plan()[0]}"


def share_done(problem, texts):
    """A promise: the share of the plan that is done, less what was wasted."""
    game = at(problem, texts)
    wasted = sum("dance" in text for text in texts)
    done, left = len(texts) - wasted, len(game.plan())
    return done / (done + left + wasted)


def promises():
    return ScriptedScorer(share_done, semantics="value", name="promises", extends=False)
