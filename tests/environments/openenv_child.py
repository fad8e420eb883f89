"""OpenEnv's side of `test_rubric.py`: run by the Python of openenv-core's own environment.

    PYTHONPATH=src .venv-openenv/bin/python tests/environments/openenv_child.py

An environment of OpenEnv with our rubric plays; what came of it is printed as a line of JSON.
"""

from __future__ import annotations

import json

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.rubrics.trajectory import TrajectoryRubric

from prmkit.environments.rubric import PRMRubric
from prmkit.scorers.scripted import ScriptedScorer


class Say(Action):
    """What the agent says."""

    message: str


class Told(Observation):
    """What it is told."""

    text: str = ""


class Echo(Environment):
    """Says again what is said, until that is "stop"."""

    def reset(self, seed=None, episode_id=None, **more):
        self._reset_rubric()
        return Told(text="Go.")

    def step(self, action, timeout_s=None, **more):
        seen = Told(text=f"You said {action.message}.", done=action.message == "stop")
        seen.reward = self._apply_rubric(action, seen)
        return seen

    @property
    def state(self):
        return State()


def value(problem, texts):
    return len(texts[-1]) / 10 + (problem.text == "Talk.") / 100


rubric = PRMRubric(ScriptedScorer(value, semantics="value", name="length"), "Talk.")
assert isinstance(rubric, TrajectoryRubric)
env = Echo(rubric=rubric)
env.reset()
rewards = [env.step(Say(message=m)).reward for m in ("hello", "hi", "stop")]
steps = rubric.compute_step_rewards()
many = rubric.step_rewards([rubric.trajectory, rubric.trajectory[:1], []])
hooked = []
rubric.register_forward_hook(lambda r, action, seen, result: hooked.append(result))
env.reset()
empty = rubric.compute_step_rewards()
env.step(Say(message="stop"))
print("TOLD " + json.dumps(
    {"rewards": rewards, "steps": steps, "many": many, "empty": empty, "hooked": hooked,
     "named": [name for name, _ in env.rubric.named_rubrics()], "state": rubric.state_dict()}
))  # fmt: skip
