"""Environments of OpenEnv, behind its servers.

The protocol was read in the servers of meta-pytorch/OpenEnv: over HTTP ``/reset``, ``/step`` and
``/state``; over a WebSocket at ``/ws`` messages of the types ``reset``, ``step``, ``state`` and
``close``. Actions and observations are objects of each environment's own, so you say how they are
put into words.

OpenEnv's own server makes a new environment for every HTTP request: what was begun by ``/reset`` is
gone by the next ``/step``. An episode needs its WebSocket, which is the default here; ``http`` is
for servers that keep a state, and a server that is seen not to is an error.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.environments.base import (
    Reply,
    Start,
    Task,
    after_the_end,
    guarded,
    problem_of,
    task_name,
)
from prmkit.environments.objects import words_of
from prmkit.errors import BackendError, EnvironmentFailed, MissingDependency

logger = logging.getLogger(__name__)

Transport = Literal["websocket", "http"]


class Words(NamedTuple):
    """How an environment's objects are put into words.

    Attributes:
        act: from an action's text to the object that is sent; None for a text that is no action.
        observe: from an observation to text.
        succeeded: from the last reward and observation to whether the task was solved; None: not
            known.
        description: what an agent is told before the first observation.
    """

    act: Callable[[str], Mapping[str, Any] | None]
    observe: Callable[[Mapping[str, Any]], str]
    succeeded: Callable[[float | None, Mapping[str, Any]], bool | None]
    description: str


def plain_words(field: str = "") -> Words:
    """Words for an environment that is known by its address alone.

    An observation is told by `words_of`; a task is solved if the last reward is 1 or more, and
    where there is none that is not known.

    Args:
        field: of an action, that takes what is said; without one an action is said as JSON.
    """

    def act(text: str) -> Mapping[str, Any] | None:
        if field:
            return {field: text.encode(errors="replace").decode()} if text.strip() else None
        try:
            said = json.loads(text)
        except ValueError:
            return None
        return said if isinstance(said, dict) else None

    how = "one action at a time" if field else "one action at a time, as a JSON object"
    return Words(
        act=act,
        observe=words_of,
        succeeded=lambda reward, seen: None if reward is None else reward >= 1,
        description=f"Answer with {how}.",
    )


class _Session(Protocol):
    """A way to talk to one environment; each answer is the object with the observation."""

    def reset(self, fields: Mapping[str, Any]) -> Any:
        """Begin an episode."""

    def step(self, action: Mapping[str, Any]) -> Any:
        """Act."""

    def close(self) -> None:
        """End it."""


class _OverHTTP:
    def __init__(self, settings: EndpointSettings):
        self._asking = Endpoint(settings)
        # A second try could act a second time.
        self._acting = Endpoint(replace(settings, attempts=1))
        self._episode: str | None = None
        self._unseen = False

    def reset(self, fields: Mapping[str, Any]) -> Any:
        self._episode, self._unseen = fields.get("episode_id"), True
        return self._asking.post("/reset", fields)

    def step(self, action: Mapping[str, Any]) -> Any:
        answer = self._acting.post("/step", {"action": dict(action)})
        if self._unseen:
            self._look()
            self._unseen = False
        return answer

    def _look(self) -> None:
        """See after a first step whether it was one of the episode that was begun."""
        try:
            state = self._asking.get("/state")
        except BackendError as error:
            logger.warning("whether %s keeps a state is not known: %s", self._asking.shown, error)
            return
        told = state.get("state", state)
        if not told.get("step_count") and told.get("episode_id") != self._episode:
            raise EnvironmentFailed(
                f"{self._asking.shown} keeps no state over HTTP: after a reset and a step its "
                f"/state is {state!r:.200}. Use the transport 'websocket'"
            )

    def close(self) -> None:
        self._asking.close()
        self._acting.close()


class _OverWebSocket:
    def __init__(self, settings: EndpointSettings):
        try:
            from websockets.sync.client import connect
        except ImportError:
            raise MissingDependency("websockets", "agents", "OpenEnv over a WebSocket") from None
        self._settings, self._connect = settings, connect
        self._open = contextlib.ExitStack()
        self._socket: Any = None

    def reset(self, fields: Mapping[str, Any]) -> Any:
        if self._socket is None:
            headers = {"Authorization": f"Bearer {self._settings.api_key}"}
            connection = self._connect(
                "ws" + self._settings.url.rstrip("/").removeprefix("http") + "/ws",
                additional_headers=headers if self._settings.api_key else None,
                open_timeout=self._settings.timeout,
                max_size=None,
            )
            self._socket = self._open.enter_context(connection)
        return self._asked({"type": "reset", "data": dict(fields)})

    def step(self, action: Mapping[str, Any]) -> Any:
        return self._asked({"type": "step", "data": dict(action)})

    def _asked(self, message: Mapping[str, Any]) -> Any:
        self._socket.send(json.dumps(message))
        answer = json.loads(self._socket.recv(timeout=self._settings.timeout))
        kind = answer.get("type") if isinstance(answer, dict) else None
        if kind != "observation":
            told = answer.get("data", answer) if isinstance(answer, dict) else answer
            raise EnvironmentFailed(f"{self._settings.url} answers {kind!r}: {told!r:.300}")
        return answer.get("data")

    def close(self) -> None:
        with self._open:
            if self._socket is not None:
                self._socket.send(json.dumps({"type": "close"}))


class OpenEnv:
    """An environment on a server of OpenEnv; a task's seed is the seed of its reset.

    It has no snapshots: `prmkit.environments.rollout.from_turns` replays.

    Args:
        settings: where it is, and how it is talked to.
        words: how its objects are put into words.
        name: which environment it is; written into problems.
        kinds: kinds of task, with the further fields of their resets; by default one without.
        transport: how it is talked to; see the module.
    """

    can_snapshot = False

    def __init__(
        self,
        settings: EndpointSettings,
        words: Words,
        *,
        name: str = "openenv",
        kinds: Mapping[str, Mapping[str, Any]] | None = None,
        transport: Transport = "websocket",
    ):
        self.name, self._settings, self._words = name, settings, words
        self._kinds = dict(kinds or {name: {}})
        self.tasks = tuple(self._kinds)
        self._transport = transport
        self._session: _Session | None = None
        self._last: Reply | None = None

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        task = task._replace(name=task_name(task.name, self.tasks))
        if self._session is None:
            over_http = self._transport == "http"
            self._session = (_OverHTTP if over_http else _OverWebSocket)(self._settings)
        session: _Session = self._session
        fields = {
            "seed": task.seed,
            "episode_id": f"{task.name}/{task.seed}",
            **self._kinds[task.name],
        }
        seen, _, _ = self._read(lambda: session.reset(fields))
        observation = self._observed(seen)
        self._last = Reply(observation)
        problem = problem_of(self.name, task, self._words.description, observation)
        return Start(problem, observation)

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        if self._last is None or self._session is None:
            raise EnvironmentFailed(f"no episode of {self.name!r} has begun; call reset first")
        if self._last.done:
            return after_the_end(self._last)
        session, meant = self._session, self._words.act(action)
        if meant is None:
            return Reply(f"{action!r:.80} is no action.")
        seen, reward, done = self._read(lambda: session.step(meant))
        success = self._words.succeeded(reward, seen) if done else None
        self._last = Reply(self._observed(seen), done, success, reward)
        return self._last

    def actions(self) -> tuple[str, ...] | None:
        """See `prmkit.environments.base.Environment.actions`: the protocol lists none."""
        return () if self._last is not None and self._last.done else None

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`: there is none."""
        raise EnvironmentFailed(f"{self.name!r} keeps no states; replay the actions")

    def restore(self, state: object) -> None:
        """See `prmkit.environments.base.Environment.restore`: there is none."""
        raise EnvironmentFailed(f"{self.name!r} keeps no states; replay the actions")

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`."""
        session, self._session, self._last = self._session, None, None
        if session is not None:
            try:
                session.close()
            except Exception as error:
                # A connection that is gone is closed.
                logger.debug("%s was not closed: %s", self.name, error)

    def _observed(self, seen: Mapping[str, Any]) -> str:
        said = self._words.observe(seen)
        return said if said.strip() else "Nothing is said."

    def _read(self, ask: Callable[[], Any]) -> tuple[Mapping[str, Any], float | None, bool]:
        try:
            return self._answered(ask)
        except EnvironmentFailed:
            # What began there is lost; the next episode begins anew.
            self.close()
            raise

    def _answered(self, ask: Callable[[], Any]) -> tuple[Mapping[str, Any], float | None, bool]:
        """Observation, reward, and whether the episode is over."""
        answer = guarded(f"{self.name!r} did not answer", ask)
        if not isinstance(answer, Mapping) or not isinstance(answer.get("observation"), Mapping):
            raise EnvironmentFailed(f"{self.name!r} answers without observation: {answer!r:.200}")
        reward, done = answer.get("reward"), answer.get("done", False)
        if not (reward is None or isinstance(reward, int | float)) or not isinstance(done, bool):
            raise EnvironmentFailed(f"{self.name!r} answers reward {reward!r}, done {done!r}")
        return answer["observation"], None if reward is None else float(reward), done
