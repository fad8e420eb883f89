"""Worlds that are pure functions, and the environment that any of them makes.

A world has a state that nothing changes: an action gives a new one. So a snapshot is the state
itself, and going back costs nothing.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from prmkit.environments.base import Reply, Start, Task, after_the_end, task_name
from prmkit.errors import EnvironmentFailed

S = TypeVar("S")


class World(Protocol[S]):
    """A small world. Its functions change nothing and raise nothing, whatever the action."""

    @property
    def name(self) -> str:
        """Which world it is."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The kinds of task that it sets."""

    def begin(self, task: Task) -> tuple[S, Start]:
        """The first state of a task, whose name is one of `tasks`."""

    def act(self, state: S, action: str) -> tuple[S, Reply]:
        """The state after an action, and what is answered."""

    def actions(self, state: S) -> tuple[str, ...] | None:
        """What can be done, where that can be listed."""

    def plan(self, state: S) -> tuple[str, ...]:
        """Actions that solve the task from a state."""


class _At(NamedTuple, Generic[S]):
    """Where an episode is: the world's state, and the last reply."""

    state: S
    last: Reply


class WorldEnvironment(Generic[S]):
    """A world as an environment, with snapshots and plans.

    Args:
        world: which.
    """

    can_snapshot = True

    def __init__(self, world: World[S]):
        self.world = world
        self._at: _At[S] | None = None

    @property
    def name(self) -> str:
        """See `prmkit.environments.base.Environment.name`."""
        return self.world.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """See `prmkit.environments.base.Environment.tasks`."""
        return self.world.tasks

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        state, start = self.world.begin(task._replace(name=task_name(task.name, self.tasks)))
        self._at = _At(state, Reply(start.observation))
        return start

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        at = self._here()
        if at.last.done:
            return after_the_end(at.last)
        state, reply = self.world.act(at.state, action)
        self._at = _At(state, reply)
        return reply

    def actions(self) -> tuple[str, ...] | None:
        """See `prmkit.environments.base.Environment.actions`; none after the end."""
        at = self._here()
        return () if at.last.done else self.world.actions(at.state)

    def plan(self) -> tuple[str, ...]:
        """See `prmkit.environments.base.Planner.plan`."""
        at = self._here()
        if not at.last.done:
            return self.world.plan(at.state)
        if at.last.success:
            return ()
        raise EnvironmentFailed("the episode is over and the task was not solved: no way from here")

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`."""
        return self._here()

    def restore(self, state: object) -> None:
        """See `prmkit.environments.base.Environment.restore`."""
        if not isinstance(state, _At):
            raise EnvironmentFailed(f"{type(state).__name__} is no snapshot of {self.name!r}")
        self._at = state

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`; there is nothing to give back."""

    def _here(self) -> _At[S]:
        if self._at is None:
            raise EnvironmentFailed(f"no episode of {self.name!r} has begun; call reset first")
        return self._at
