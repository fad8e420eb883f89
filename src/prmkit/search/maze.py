"""A small world to search in, in which the laws of searches are tried: as texts, or as actions.

Some texts end, some are cut, some are blank, some cannot be drawn and some cannot be scored. As an
environment it breaks at times, too, and counts what is done in it.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from prmkit.environments.base import Reply, Start, Task, problem_of
from prmkit.environments.world import WorldEnvironment
from prmkit.errors import EnvironmentFailed
from prmkit.policies.base import Completion, SamplingSettings, failed
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Trajectory
from prmkit.search.tree import Cost
from prmkit.splitting import by_line

WORDS = ("a", "bb", "日本", "e\u0301", "<s>", "\u2028", "Step 1:", "+ - ки")


class Maze(NamedTuple):
    """How likely things happen at each step.

    Attributes:
        ends: that a solution ends after it.
        blank: that a blank line comes first.
        long: that it is longer than a step may be.
        fails: that it cannot be drawn.
        unscored: that it cannot be scored.
        most: steps at most.
    """

    ends: float = 0.3
    blank: float = 0.1
    long: float = 0.05
    fails: float = 0.0
    unscored: float = 0.0
    most: int = 6

    def script(self, prefix: Trajectory, rng: random.Random) -> str:
        """The rest of a solution."""
        lines = []
        written = sum(bool(line.strip()) for line in prefix.text.split("\n"))
        for i in range(written, self.most):
            if rng.random() < self.blank:
                lines.append("\n")
            if rng.random() < self.long:
                lines.append("long " * 8 + "\n")
            if rng.random() < self.ends or i == self.most - 1:
                lines.append(f"= {rng.randrange(3)}")
                break
            lines.append(f"{rng.choice(WORDS)} {rng.randrange(10)}\n")
        return "".join(lines)

    def score(self, problem: Problem, steps: Sequence[str]) -> float | None:
        """The score of the last of some steps."""
        rng = random.Random(json.dumps([problem.id, *steps]))
        return None if rng.random() < self.unscored else rng.random()

    def likely(self, prefix: Trajectory, text: str, ends: bool) -> float:
        """How likely it writes a text step by step: the logarithm."""
        del ends  # It ends where it says what it comes to, and nowhere else.
        at = sum(bool(line.strip()) for line in prefix.text.split("\n"))
        chance = 1.0
        for line in by_line(text):
            if not line.strip():
                chance *= self.blank
                continue
            over = 1.0 if at == self.most - 1 else self.ends
            last = line.startswith("= ")
            chance *= (1 - self.blank) * (1 - self.long) * (over / 3 if last else (1 - over) / 80)
            at += 1
        return math.log(chance) if chance > 0 else -math.inf


class MazePolicy(ScriptedPolicy):
    """The maze's policy; counts what it draws, and fails where the maze says so.

    Args:
        maze: the maze.
        takes_ids: whether it goes on from tokens.
    """

    def __init__(self, maze: Maze, takes_ids: bool = True):
        super().__init__(maze.script, split=by_line, likely=maze.likely)
        self.takes_ids = takes_ids
        self._fails = maze.fails
        self.drawn = Cost()

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Sequence[bool],
        temperature: float,
    ) -> list[float]:
        """See `prmkit.policies.base.LikelihoodPolicy.log_likelihoods`."""
        self.drawn = self.drawn.plus(Cost(readings=len(prefixes)))
        return super().log_likelihoods(prefixes, continuations, ends, temperature)

    def _completions(
        self, prefix: Trajectory, n: int, settings: SamplingSettings, seed: int, begin: int
    ) -> list[Completion]:
        found = []
        for i, one in enumerate(super()._completions(prefix, n, settings, seed, begin), begin):
            lost = random.Random(f"{seed}/{i}/fails").random() < self._fails
            found.append(failed("the maze") if lost else one)
            if not lost:
                more = Cost(completions=1, policy_tokens=one.n_tokens)
                self.drawn = self.drawn.plus(more)
        return found


def judge(problem: Problem, text: str) -> Outcome:
    """The answer is what stands after the last equals sign; 0 is right."""
    del problem
    answer = answer_in(text)
    return Outcome(answer, None if answer is None else answer == "0")


def answer_in(text: str) -> str | None:
    """What stands after the last equals sign."""
    return text.rpartition("= ")[2].strip() if "= " in text else None


Acts = Literal["snapshot", "replay"]
"""Whether the states of the environment can be kept, where there is one."""


class MazeWorld:
    """The maze as a world: an episode ends with what it comes to."""

    name, tasks = "maze", ("maze",)

    def begin(self, task: Task) -> tuple[tuple[str, ...], Start]:
        """See `prmkit.environments.world.World.begin`; a state is what was done."""
        return (), Start(problem_of(self.name, task, "?" * (task.seed + 1), "A way."), "A way.")

    def act(self, state: tuple[str, ...], action: str) -> tuple[tuple[str, ...], Reply]:
        """See `prmkit.environments.world.World.act`."""
        over = action.startswith("= ")
        told = f"{len(state)}: {action!r}"
        return (*state, action), Reply(told, over, action == "= 0" if over else None)

    def actions(self, state: tuple[str, ...]) -> None:
        """See `prmkit.environments.world.World.actions`; there are too many."""

    def plan(self, state: tuple[str, ...]) -> tuple[str, ...]:
        """See `prmkit.environments.world.World.plan`."""
        return ("= 0",)


class Mazes:
    """Makes mazes to act in, and counts what is done in all of them.

    Args:
        maze: how likely it breaks at a step.
        acts: whether its states can be kept.
    """

    def __init__(self, maze: Maze, acts: Acts):
        self.maze, self.acts = maze, acts
        self.steps = self.open = 0
        self.lock = threading.Lock()

    def make(self) -> MazeEnvironment:
        """One of them."""
        with self.lock:
            self.open += 1
        return MazeEnvironment(self)


class MazeEnvironment(WorldEnvironment[tuple[str, ...]]):
    """A maze to act in."""

    def __init__(self, mazes: Mazes):
        super().__init__(MazeWorld())
        self._mazes, self._done = mazes, list[str]()
        self.can_snapshot = mazes.acts == "snapshot"

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        self._done = [str(task.seed)]
        return super().reset(task)

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        with self._mazes.lock:
            self._mazes.steps += 1
        self._done.append(action)
        if random.Random(json.dumps(self._done)).random() < self._mazes.maze.fails:
            raise EnvironmentFailed("the maze")
        return super().step(action)

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`."""
        if not self.can_snapshot:
            raise EnvironmentFailed("this maze cannot be kept")
        return super().snapshot(), tuple(self._done)

    def restore(self, state: Any) -> None:
        """See `prmkit.environments.base.Environment.restore`."""
        world, done = state
        super().restore(world)
        self._done = [*done]

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`."""
        with self._mazes.lock:
            self._mazes.open -= 1
