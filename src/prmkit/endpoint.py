"""Requests to a server that runs models: retried, with a deadline, and no secret in a message."""

from __future__ import annotations

import json
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, overload

from prmkit.errors import (
    BackendError,
    BadStatus,
    InvalidSetting,
    MissingDependency,
    RequestRefused,
)
from prmkit.settings import above, at_least

try:
    import httpx2
    import stamina
except ImportError:
    raise MissingDependency("httpx2 and stamina", "http", "talking to a model server") from None

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
MESSAGE = 300
HIDDEN = "[hidden]"
"""What stands in a message where the server's words held a secret."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How a server is talked to.

    Attributes:
        url: its root, such as ``http://127.0.0.1:8000``.
        api_key: sent as a bearer token, where given.
        timeout: seconds that one try may take.
        deadline: seconds that a request may take with all its tries.
        attempts: tries at most.
        connections: that are open at once at most; who asks from more threads waits.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    deadline: float = 600.0
    attempts: int = 6
    connections: int = 100

    def __post_init__(self) -> None:
        above(0, timeout=self.timeout, deadline=self.deadline)
        at_least(1, attempts=self.attempts, connections=self.connections)


class FaultyAnswer(Exception):
    """What a reader of answers raises of one that is not what was asked for: it is asked again."""


class _Again(Exception):
    """A try that failed in a way that another one may not.

    Args:
        reason: what failed.
        status: of the answer, where one came that told of a failure.
        wait: seconds after which the server wants to be asked again, where it says so.
    """

    def __init__(self, reason: str, status: int | None = None, wait: float | None = None):
        self.status, self.wait = status, wait
        super().__init__(reason)


class Endpoint:
    """A server; may be used from many threads.

    Args:
        settings: how it is talked to.
        transport: for tests: what answers in the server's place.

    Raises:
        InvalidSetting: if its address is none, or its key cannot be sent.
    """

    def __init__(self, settings: EndpointSettings, transport: httpx2.BaseTransport | None = None):
        self.settings = settings
        try:
            url = httpx2.URL(settings.url.rstrip("/"))
        except httpx2.InvalidURL as error:
            raise InvalidSetting(f"the server's address is no URL: {error}") from None
        if settings.api_key is not None and not (
            settings.api_key.isascii() and settings.api_key.isprintable()
        ):
            raise InvalidSetting("the API key holds characters that no HTTP header can carry")
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self.shown = str(url.copy_with(username=None, password=None))
        """Its address without a password, for messages."""
        self._secrets = [s for s in (settings.api_key, url.password) if s]
        limits = httpx2.Limits(
            max_connections=settings.connections, max_keepalive_connections=settings.connections
        )
        self._client = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=settings.timeout,
            limits=limits,
            transport=transport,
        )
        # Whoever forgets close(): its connections are closed with the last reference to it.
        self._closing = weakref.finalize(self, self._client.close)

    @overload
    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    @overload
    def post(
        self,
        route: str,
        body: Mapping[str, Any],
        read: Callable[[dict[str, Any]], T],
        cancelled: threading.Event | None = None,
    ) -> T: ...

    def post(
        self,
        route: str,
        body: Mapping[str, Any],
        read: Callable[[dict[str, Any]], Any] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Any:
        """What a route answers.

        Args:
                route: from the server's root, such as ``/v1/completions``.
                body: the JSON object that is sent.
                read: makes of the JSON object that comes back what is wanted of it; where it raises
                    `FaultyAnswer`, the request is sent again. By default the object as it is.
                cancelled: once it is set, nothing more is sent.

        Raises:
        XX the server does not answer in time, or not as it should.
        """
        content = json.dumps(dict(body)).encode()
        headers = {"Content-Type": "application/json"}
        return self._ask(
            "POST",
            route,
            {"content": content, "headers": headers},
            lambda answer: _object(answer, read),
            cancelled,
        )

    def post_any(self, route: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a route answers, of whatever kind; raises as `post` does."""
        content = json.dumps(dict(body)).encode()
        headers = {"Content-Type": "application/json"}
        return self._ask("POST", route, {"content": content, "headers": headers}, _decoded)

    def get_any(self, route: str) -> Any:
        """The JSON that a route answers to a GET, of whatever kind; raises as `post` does."""
        return self._ask("GET", route, {}, _decoded)

    def get(self, route: str) -> dict[str, Any]:
        """The JSON object that a route answers to a GET; raises as `post` does."""
        found: dict[str, Any] = self._ask("GET", route, {}, lambda answer: _object(answer, None))
        return found

    def get_text(self, route: str) -> str:
        """The text that a route answers to a GET; raises as `post` does."""
        found: str = self._ask("GET", route, {}, lambda answer: answer.text)
        return found

    def get_bytes(self, route: str) -> bytes:
        """The bytes that a route answers to a GET; raises as `post` does."""
        found: bytes = self._ask("GET", route, {}, lambda answer: answer.content)
        return found

    def _ask(
        self,
        method: str,
        route: str,
        sent: dict[str, Any],
        read: Callable[[httpx2.Response], T],
        cancelled: threading.Event | None = None,
    ) -> T:
        end = time.monotonic() + self.settings.deadline
        last = "no try was made"

        def again(error: Exception) -> bool | float:
            """Whether to try again; seconds, where the server says when."""
            if not isinstance(error, _Again) or (cancelled is not None and cancelled.is_set()):
                return False
            if error.wait is None:
                return True
            # The server told the same to everybody who asked: not all at the same instant.
            wait = error.wait + random.uniform(0, min(1.0, 0.1 + error.wait / 10))
            return wait if time.monotonic() + wait < end else False

        try:
            for attempt in stamina.retry_context(
                on=again,
                attempts=self.settings.attempts,
                timeout=self.settings.deadline,
                wait_initial=0.2,
                wait_max=10.0,
            ):
                with attempt:
                    if cancelled is not None and cancelled.is_set():
                        raise _Again("cancelled")
                    left = end - time.monotonic()
                    if left <= 0:
                        raise _Again(f"the deadline has passed; before: {last}")
                    try:
                        return self._try(method, route, sent, read, left)
                    except _Again as error:
                        last = str(error)
                        raise
        except _Again as error:
            message = (
                f"{self.shown}{route} did not answer after at most {self.settings.attempts} tries "
                f"in {self.settings.deadline:.0f} s: {error}"
            )
            if error.status is not None:
                raise BadStatus(message, error.status) from None
            raise BackendError(message) from None
        raise AssertionError("a try returns or raises")

    def _try(
        self,
        method: str,
        route: str,
        sent: dict[str, Any],
        read: Callable[[httpx2.Response], T],
        left: float,
    ) -> T:
        seconds = min(self.settings.timeout, left)
        try:
            answer = self._client.request(method, route, timeout=seconds, **sent)
        except httpx2.HTTPError as error:
            raise _Again(self._hide(f"{type(error).__name__}: {error}")) from None
        if answer.status_code in BUSY:
            raise _Again(
                f"status {answer.status_code}: {self._hide(answer.text)}",
                answer.status_code,
                _seconds(answer.headers.get("retry-after")),
            )
        if answer.status_code != 200:
            raise RequestRefused(
                f"{self.shown}{route} answers {answer.status_code}: {self._hide(answer.text)}",
                answer.status_code,
            )
        try:
            return read(answer)
        except FaultyAnswer as error:
            raise _Again(self._hide(str(error))) from None

    def _hide(self, text: str) -> str:
        """The beginning of a server's words without the secrets that it may have repeated."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text[:MESSAGE]

    def close(self) -> None:
        """Close its connections."""
        self._closing()


def _decoded(answer: httpx2.Response) -> Any:
    try:
        return json.loads(answer.content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise FaultyAnswer(f"the answer is no JSON ({error}): {answer.text[:MESSAGE]}") from None


def _object(answer: httpx2.Response, read: Callable[[dict[str, Any]], Any] | None) -> Any:
    found = _decoded(answer)
    if not isinstance(found, dict):
        raise FaultyAnswer(f"the answer is {type(found).__name__}, not an object")
    return found if read is None else read(found)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not finite")


def _seconds(after: str | None) -> float | None:
    """A Retry-After, in seconds or as a date; None where there is none that can be read."""
    if after is None:
        return None
    try:
        return max(0.0, float(after)) if float(after) < float("inf") else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(after)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
