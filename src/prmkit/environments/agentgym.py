"""Environments of AgentGym, behind its HTTP servers.

Xi et al. 2024, arXiv:2406.04151. The protocol was read in the servers and clients of
WooooDyy/AgentGym: ``/create`` makes an environment with a number, ``/reset`` sets a task by its
number, ``/step`` acts. Servers differ in the names of fields; `DIALECTS` has those that are known.

What fails there comes back with the status 200 and an ``error`` in the body; here it is an error.
A step is sent once: sent again after a lost answer, it would be done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.environments.base import Reply, Start, Task, after_the_end, problem_of, task_name
from prmkit.errors import BackendError, EnvironmentFailed, UnknownName

logger = logging.getLogger(__name__)


class Dialect(NamedTuple):
    """How one of the servers speaks.

    Attributes:
        reset: from a task's number to the fields of ``/reset``.
        id: the field with the environment's number.
        observation: the field with what is seen.
        score: the field by which success is told.
        solved: the least score of a solved task.
        prefix: before every route.
        observes: what is seen after ``/reset`` is asked for on its own.
        actions: the route that lists what can be done, where there is one.
        before: the field that says what is to be done, before the first observation.
    """

    reset: Callable[[int], dict[str, Any]] = lambda number: {"data_idx": number}
    id: str = "id"
    observation: str = "observation"
    score: str = "reward"
    solved: float = 1.0
    prefix: str = ""
    observes: bool = False
    actions: str | None = None
    before: str | None = None


DIALECTS: dict[str, Dialect] = {
    # The reward of a solved level falls with the steps that it took.
    "babyai": Dialect(score="score", solved=1e-9),
    "textcraft": Dialect(),
    "sciworld": Dialect(score="score", solved=100.0, before="task_description"),
    "alfworld": Dialect(
        reset=lambda number: {"game": number, "world_type": "Text"}, actions="available_actions"
    ),
    "webshop": Dialect(
        reset=lambda number: {"session_id": number},
        id="env_idx",
        observation="state",
        observes=True,
    ),
}
"""The servers that are known."""


class AgentGym:
    """An environment on one of AgentGym's servers; a task's seed is its number there.

    It has no snapshots: `prmkit.environments.rollout.from_turns` replays.

    Args:
        kind: which server, of `DIALECTS`; or a dialect, with a name in `name`.
        settings: where it is, and how it is talked to.
        description: what an agent is told before the first observation.
        name: of the kind, where `kind` is a dialect.

    Raises:
        UnknownName: if no such server is known.
    """

    can_snapshot = False

    def __init__(
        self,
        kind: str | Dialect,
        settings: EndpointSettings,
        description: str = "Answer with one action at a time.",
        name: str = "agentgym",
    ):
        if isinstance(kind, str):
            if kind not in DIALECTS:
                raise UnknownName("AgentGym server", kind, DIALECTS)
            name, kind = kind, DIALECTS[kind]
        self.name, self.tasks = f"agentgym-{name}", (name,)
        self._speaks, self._description = kind, description
        self._asking = Endpoint(settings)
        # A second try could act a second time.
        self._acting = Endpoint(replace(settings, attempts=1))
        self._id: Any = None
        self._last: Reply | None = None

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        task = task._replace(name=task_name(task.name, self.tasks))
        try:
            return self._begin(task)
        except EnvironmentFailed:
            # A server that was started anew does not know the number; ask for another next time.
            self._id = self._last = None
            raise

    def _begin(self, task: Task) -> Start:
        speaks = self._speaks
        if self._id is None:
            made = self._sent(self._asking, "create", {}, with_id=False)
            self._id = made.get(speaks.id, made.get("id")) if isinstance(made, dict) else made
            if not isinstance(self._id, int | str):
                raise EnvironmentFailed(f"{self._asking.shown} made no environment: {made!r:.200}")
        begun = self._sent(self._asking, "reset", speaks.reset(task.seed))
        if speaks.observes:
            observation = _text(self._got("observation"))
        else:
            observation = _text(_field(begun, speaks.observation))
        description = self._description
        if speaks.before is not None:
            description = f"{description}\n\n{_text(_field(begun, speaks.before))}"
        self._last = Reply(observation)
        return Start(problem_of(self.name, task, description, observation), observation)

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        last = self._begun()
        if last.done:
            return after_the_end(last)
        speaks = self._speaks
        # What no text can hold, no server can be sent.
        sent = action.encode(errors="replace").decode()
        answer = self._sent(self._acting, "step", {"action": sent})
        done = _field(answer, "done")
        score = _number(_field(answer, speaks.score))
        reward = _number(answer.get("reward", score))
        if not isinstance(done, bool):
            raise EnvironmentFailed(f"'done' is {done!r:.60}; expected true or false")
        success = score >= speaks.solved if done else None
        self._last = Reply(_text(_field(answer, speaks.observation)), done, success, reward)
        return self._last

    def actions(self) -> tuple[str, ...] | None:
        """See `prmkit.environments.base.Environment.actions`."""
        if self._begun().done:
            return ()
        if self._speaks.actions is None:
            return None
        found = self._got(self._speaks.actions)
        if not isinstance(found, list):
            raise EnvironmentFailed(f"the actions are {found!r:.100}; expected a list")
        return tuple(dict.fromkeys(str(action) for action in found if str(action).strip()))

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`: there is none."""
        raise EnvironmentFailed(f"{self.name!r} keeps no states; replay the actions")

    def restore(self, state: object) -> None:
        """See `prmkit.environments.base.Environment.restore`: there is none."""
        raise EnvironmentFailed(f"{self.name!r} keeps no states; replay the actions")

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`."""
        if self._id is not None:
            try:
                self._sent(self._acting, "close", {})
            except EnvironmentFailed as error:
                # Some servers have no such route.
                logger.debug("%s was not closed: %s", self.name, error)
            self._id = self._last = None
        self._asking.close()
        self._acting.close()

    def _begun(self) -> Reply:
        if self._last is None:
            raise EnvironmentFailed(f"no episode of {self.name!r} has begun; call reset first")
        return self._last

    def _sent(
        self, endpoint: Endpoint, route: str, body: Mapping[str, Any], with_id: bool = True
    ) -> Any:
        given = {self._speaks.id: self._id} if with_id else {}
        where = f"{self._speaks.prefix}/{route}"
        return self._seen(where, lambda: endpoint.post_any(where, {**given, **body}))

    def _got(self, route: str) -> Any:
        where = f"{self._speaks.prefix}/{route}?{self._speaks.id}={self._id}"
        return self._seen(where, lambda: self._asking.get_any(where))

    def _seen(self, where: str, ask: Callable[[], Any]) -> Any:
        try:
            answer = ask()
        except BackendError as error:
            raise EnvironmentFailed(str(error)) from error
        if isinstance(answer, Mapping) and "error" in answer:
            raise EnvironmentFailed(f"{self._asking.shown}{where} says: {answer['error']!s:.300}")
        return answer


def _field(answer: Any, key: str) -> Any:
    if not isinstance(answer, Mapping) or key not in answer:
        raise EnvironmentFailed(f"an answer has no {key!r}: {answer!r:.200}")
    return answer[key]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise EnvironmentFailed(f"an observation is {value!r:.100}; expected a text")
    return value.encode(errors="replace").decode() if value.strip() else "Nothing is said."


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise EnvironmentFailed(f"a score is {value!r:.60}; expected a number")
    return float(value)
