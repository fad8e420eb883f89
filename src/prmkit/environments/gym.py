"""Any environment of Gymnasium, by functions between its observations and actions and text."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from prmkit.environments.base import (
    Reply,
    Start,
    Task,
    after_the_end,
    guarded,
    problem_of,
    task_name,
)
from prmkit.errors import EnvironmentFailed, InvalidSetting, MissingDependency, UnknownName

try:
    import gymnasium
except ImportError:
    raise MissingDependency("gymnasium", "agents", "acting in Gymnasium's environments") from None

logger = logging.getLogger(__name__)


class Spoken(NamedTuple):
    """How an environment of Gymnasium is put into words.

    Attributes:
        describe: from the first observation and info to what is to be done, and how.
        observe: from an observation and its info to text.
        act: from an action's text to what the environment's `step` takes; None for a text that is
            no action.
        succeeded: from the sum of rewards, whether the environment ended the episode (and not a
            time limit), and the last info, to whether the task was solved; None: not known.
        actions: what can be said, where that can be listed.
    """

    describe: Callable[[Any, Mapping[str, Any]], str]
    observe: Callable[[Any, Mapping[str, Any]], str]
    act: Callable[[str], Any]
    succeeded: Callable[[float, bool, Mapping[str, Any]], bool | None]
    actions: tuple[str, ...] | None = None


def numbered(name: str) -> tuple[Callable[[str], gymnasium.Env[Any, Any]], Spoken]:
    """What makes an environment of Gymnasium whose actions are numbers, and words for it.

    An action is its number, and an observation is what stands there. A task is solved if the
    rewards reach what Gymnasium's registry asks for, and are positive where it asks for nothing.

    Args:
        name: of the registry, such as ``FrozenLake-v1``.

    Raises:
        InvalidSetting: if there is none of that name, or its actions are not a few numbers.
    """

    def make(kind: str) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(kind, disable_env_checker=True)

    try:
        env = make(name)
    except gymnasium.error.Error as error:
        raise InvalidSetting(f"Gymnasium makes no environment {name!r}: {error}") from error
    actions, wanted = env.action_space, env.spec.reward_threshold if env.spec else None
    env.close()
    if not isinstance(actions, gymnasium.spaces.Discrete):
        raise InvalidSetting(
            f"the actions of {name} are {actions}; by name, Gymnasium's environments whose actions "
            "are numbered are played. Others need words: prmkit.environments.gym, from Python"
        )
    first, known = int(actions.start), tuple(str(actions.start + i) for i in range(int(actions.n)))
    spoken = Spoken(
        describe=lambda seen, info: (
            f"You act in {name}. Answer with the number of an action: {', '.join(known)}."
        ),
        observe=lambda seen, info: f"You observe {seen}.",
        act=lambda text: first + known.index(text.strip()) if text.strip() in known else None,
        succeeded=lambda total, terminated, info: total > 0 if wanted is None else total >= wanted,
        actions=known,
    )
    return make, spoken


class _Episode(NamedTuple):
    """An episode under way, or a snapshot of it.

    Attributes:
        env: the environment, the one thing that steps change; of a snapshot, packed.
        total: of rewards.
        last: the last reply.
    """

    env: Any
    total: float
    last: Reply


_COPYING: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "deep": (copy.deepcopy, copy.deepcopy),
    # What is read is what was pickled here, in this process.
    "pickled": (lambda env: pickle.dumps(env, pickle.HIGHEST_PROTOCOL), pickle.loads),
}
"""How an environment is packed, and what is packed becomes one again."""


class GymnasiumEnvironment:
    """An environment of Gymnasium.

    An episode's task is its name, from which the environment is made, and the seed of its reset.
    A text that is no action costs no step there.

    Args:
        name: written into problems.
        tasks: kinds of task.
        make: from the name of a kind to an environment; without a viewer.
        spoken: how it is put into words.
        copies: what is another environment in the same state, so that snapshots are taken: one
            that is pickled and read again (three times as fast), a deep copy, or nothing.
            `check_environment` sees whether that is so.

    Raises:
        UnknownName: if nothing is known of such copies.
    """

    def __init__(
        self,
        name: str,
        tasks: Sequence[str],
        make: Callable[[str], gymnasium.Env[Any, Any]],
        spoken: Spoken,
        *,
        copies: Literal["pickled", "deep"] | None = None,
    ):
        if copies not in (None, *_COPYING):
            raise UnknownName("way to copy an environment", str(copies), _COPYING)
        self.name, self.tasks, self.can_snapshot = name, tuple(tasks), copies is not None
        self._make, self._spoken = make, spoken
        self._at: _Episode | None = None
        self._pack, self._unpack = _COPYING[copies or "deep"]

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        task = task._replace(name=task_name(task.name, self.tasks))
        self.close()
        return guarded(f"{self.name!r} could not begin", lambda: self._begin(task))

    def _begin(self, task: Task) -> Start:
        env = self._make(task.name)
        seen, info = env.reset(seed=task.seed)
        observation = self._spoken.observe(seen, info)
        self._at = _Episode(env, 0.0, Reply(observation))
        description = self._spoken.describe(seen, info)
        return Start(problem_of(self.name, task, description, observation), observation)

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        at = self._here()
        if at.last.done:
            return after_the_end(at.last)
        return guarded(f"{self.name!r} failed", lambda: self._step(at, action))

    def _step(self, at: _Episode, action: str) -> Reply:
        meant = self._spoken.act(action)
        if meant is None:
            known = self._spoken.actions
            use = f" Use one of: {', '.join(known)}." if known else ""
            return Reply(f"{action!r:.80} is no action.{use}")
        seen, reward, terminated, truncated, info = at.env.step(meant)
        observation = self._spoken.observe(seen, info)
        total, done = at.total + float(reward), bool(terminated or truncated)
        success = self._spoken.succeeded(total, bool(terminated), info) if done else None
        if done:
            solved = "" if success is None else f" The task is {'' if success else 'not '}solved."
            observation += f"\nThe episode is over.{solved}"
        reply = Reply(observation, done, success, float(reward))
        self._at = _Episode(at.env, total, reply)
        return reply

    def actions(self) -> tuple[str, ...] | None:
        """See `prmkit.environments.base.Environment.actions`."""
        return () if self._here().last.done else self._spoken.actions

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`."""
        if not self.can_snapshot:
            raise EnvironmentFailed(
                f"the state of {self.name!r} cannot be copied, as far as its maker said; replay "
                "the actions"
            )
        at = self._here()
        return guarded("it could not be copied", lambda: at._replace(env=self._pack(at.env)))

    def restore(self, state: object) -> None:
        """See `prmkit.environments.base.Environment.restore`."""
        if not self.can_snapshot or not isinstance(state, _Episode):
            raise EnvironmentFailed(f"{type(state).__name__} is no snapshot of {self.name!r}")
        self.close()
        self._at = guarded(
            "it could not be copied", lambda: state._replace(env=self._unpack(state.env))
        )

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`."""
        at, self._at = self._at, None
        if at is not None:
            at.env.close()

    def _here(self) -> _Episode:
        if self._at is None:
            raise EnvironmentFailed(f"no episode of {self.name!r} has begun; call reset first")
        return self._at
