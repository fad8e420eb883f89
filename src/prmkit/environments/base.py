"""Where an agent acts: an environment sets a task and answers actions with observations.

An agent's trajectory is a `Trajectory` like any other: the text of a step is what the policy wrote
(an action, with or without a thought), and its observation is what the environment answered. What
was to be done stands in the problem, with the name and seed of the task, so that a trajectory
from a file can be played again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import JsonValue

from prmkit.errors import EnvironmentFailed, InvalidRecord, MissingDependency, UnknownName
from prmkit.records import Problem, Step, Trajectory

OVER = "The episode is over; nothing happens any more."
"""What every action after the end is answered with."""

T = TypeVar("T")


class Task(NamedTuple):
    """A task of an environment: the same for the same two values, on any machine.

    Attributes:
        seed: which of the kind.
        name: the kind, such as a level; empty for the environment's first one.
    """

    seed: int = 0
    name: str = ""


class Start(NamedTuple):
    """How an episode begins.

    Attributes:
        problem: its prompt says what is to be done and what is seen first.
        observation: what is seen first, alone.
    """

    problem: Problem
    observation: str


class Reply(NamedTuple):
    """What an environment answers to an action.

    Attributes:
        observation: as text, never empty.
        done: whether the episode is over.
        success: whether the task was solved: True or False once that is known.
        reward: as the environment gives it, where it does.
    """

    observation: str
    done: bool = False
    success: bool | None = None
    reward: float | None = None


class Environment(Protocol):
    """Answers actions. The laws are in `prmkit.environments.laws`; `check_environment` runs them.

    An action that is malformed or not allowed is answered by an observation that says so; only an
    environment that is broken or away raises.
    """

    @property
    def name(self) -> str:
        """Which environment it is."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The kinds of task that it knows, by name; the first is taken where none is named."""

    @property
    def can_snapshot(self) -> bool:
        """Whether its state can be kept. Where not, the two methods for it raise."""

    def reset(self, task: Task) -> Start:
        """Begin an episode.

        Raises:
            UnknownName: if there is no such kind of task.
            EnvironmentFailed: if the environment is broken or away.
        """

    def step(self, action: str) -> Reply:
        """Do something. After the end nothing happens: the reply is `OVER`, and says `done`.

        Raises:
            EnvironmentFailed: if the environment is broken or away, or no episode has begun.
        """

    def actions(self) -> tuple[str, ...] | None:
        """What can be done now, where that can be listed; None where it cannot."""

    def snapshot(self) -> Any:
        """The state, for `restore` of this environment or another of its kind, any number of times.

        Raises:
            EnvironmentFailed: if it cannot be kept, or no episode has begun.
        """

    def restore(self, state: Any) -> None:
        """Go back to a state; what comes after is as it would have been.

        Raises:
            EnvironmentFailed: if that is no state of this environment.
        """

    def close(self) -> None:
        """Give back what it holds; a second time does nothing."""


MakeEnvironment = Callable[[], Environment]
"""Makes one environment of a kind; each episode that is under way has one of its own."""


@runtime_checkable
class Planner(Environment, Protocol):
    """An environment that knows how its tasks are solved, so that it can demonstrate it."""

    def plan(self) -> tuple[str, ...]:
        """Actions that solve the task from the present state; none where it is solved.

        Raises:
            EnvironmentFailed: if it knows no way from here.
        """


def after_the_end(last: Reply) -> Reply:
    """The reply to an action after the last one."""
    return Reply(OVER, True, last.success)


def task_name(name: str, known: Sequence[str]) -> str:
    """The kind of task that is meant; the first where none is named.

    Raises:
        UnknownName: if there is none of that name.
    """
    if not name:
        return known[0]
    if name not in known:
        raise UnknownName("task", name, known)
    return name


def problem_of(
    environment: str, task: Task, description: str, observation: str, **meta: JsonValue
) -> Problem:
    """The problem that a task is, with what is needed to set it again."""
    return Problem(
        id=key_of(environment, task),
        prompt=f"{description}\n\n{observation}" if observation else description,
        meta={**meta, "environment": environment, "task": task.name, "seed": task.seed},
    )


def key_of(environment: str, task: Task) -> str:
    """What tells a task from every other, as text."""
    return f"{environment}/{task.name}/{task.seed}"


def task_of(problem: Problem) -> Task:
    """The task that a problem was made of.

    Raises:
        InvalidRecord: if it does not say.
    """
    seed, name = problem.meta.get("seed"), problem.meta.get("task")
    if not isinstance(seed, int) or not isinstance(name, str):
        raise InvalidRecord(
            f"problem {problem.id!r} names no task of an environment: its meta needs 'seed' (a "
            "whole number) and 'task' (a text), as the environments of prmkit write them"
        )
    return Task(seed, name)


def guarded(what: str, work: Callable[[], T]) -> T:
    """Do something in an environment; whatever it raises there is a failure of the environment.

    Environments are programs of others, which raise what they like. This is the one place where
    that becomes an error of prmkit.

    Raises:
        EnvironmentFailed: with the reason.
    """
    try:
        return work()
    except (EnvironmentFailed, UnknownName, MissingDependency):
        raise
    except Exception as error:
        raise EnvironmentFailed(f"{what}: {type(error).__name__}: {error}") from error


class Replayed(NamedTuple):
    """An episode that was played again.

    Attributes:
        start: how it began.
        replies: one per action.
    """

    start: Start
    replies: tuple[Reply, ...]

    @property
    def last(self) -> Reply:
        """The last reply; before any action, the beginning as one."""
        return self.replies[-1] if self.replies else Reply(self.start.observation)


def replay(environment: Environment, task: Task, actions: Sequence[str]) -> Replayed:
    """Begin a task and do the same again: the way back to a state that cannot be kept.

    Raises:
        EnvironmentFailed: if the environment is broken or away.
    """
    start = environment.reset(task)
    return Replayed(start, tuple(environment.step(action) for action in actions))


def demonstrate(environment: Planner, task: Task) -> Trajectory:
    """A solution by the environment's own plan; the text of a step is the action alone.

    Raises:
        EnvironmentFailed: if it knows no way, or its way does not lead there.
    """
    problem = environment.reset(task).problem
    plan = environment.plan()
    replies = tuple(environment.step(action) for action in plan)
    if not replies or not replies[-1].done or not replies[-1].success:
        raise EnvironmentFailed(
            f"the plan of {environment.name!r} for {problem.id!r} does not solve it: {plan!r}"
        )
    return Trajectory(
        problem=problem,
        steps=tuple(
            Step(text=action, observation=reply.observation)
            for action, reply in zip(plan, replies, strict=True)
        ),
        separator="\n",
        finish="eos",
        correct=True,
        generator=f"{environment.name} planner",
    )
