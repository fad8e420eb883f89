"""Requests to a server that runs models: retried, with a deadline, and no secret in a message."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prmkit.errors import BackendError, InvalidSetting, MissingDependency

try:
    import httpx2
    import stamina
except ImportError:
    raise MissingDependency("httpx2 and stamina", "http", "talking to a model server") from None

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
MESSAGE = 300


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How a server is talked to.

    Attributes:
        url: its root, such as ``http://127.0.0.1:8000``.
        api_key: sent as a bearer token, where given.
        timeout: seconds that one try may take.
        deadline: seconds that a request may take with all its tries.
        attempts: tries at most.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    deadline: float = 600.0
    attempts: int = 6


class _Again(Exception):
    """A try that failed in a way that another one may not."""


class Endpoint:
    """A server.

    Args:
        settings: how it is talked to.
        transport: for tests: what answers in the server's place.

    Raises:
        InvalidSetting: if its address is none.
    """

    def __init__(self, settings: EndpointSettings, transport: httpx2.BaseTransport | None = None):
        self.settings = settings
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        try:
            url = httpx2.URL(settings.url.rstrip("/"))
        except httpx2.InvalidURL as error:
            raise InvalidSetting(f"the server's address is no URL: {error}") from None
        self.shown = str(url.copy_with(username=None, password=None))
        """Its address without a password, for messages."""
        self._client = httpx2.Client(
            base_url=url, headers=headers, timeout=settings.timeout, transport=transport
        )
        # Whoever forgets close(): its connections are closed with the last reference to it.
        self._closing = weakref.finalize(self, self._client.close)

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that a route answers.

        Raises:
            BackendError: if the server refuses the request, or does not answer in time.
        """
        end = time.monotonic() + self.settings.deadline
        last = "no try was made"
        try:
            for attempt in stamina.retry_context(
                on=_Again,
                attempts=self.settings.attempts,
                timeout=self.settings.deadline,
                wait_initial=0.2,
                wait_max=10.0,
            ):
                with attempt:
                    try:
                        return self._try(route, body, end)
                    except _Again as error:
                        last = str(error)
                        raise
        except _Again:
            pass
        raise BackendError(
            f"{self.shown}{route} did not answer after {self.settings.attempts} tries or "
            f"{self.settings.deadline:.0f} s: {last}"
        )

    def _try(self, route: str, body: Mapping[str, Any], end: float) -> dict[str, Any]:
        left = end - time.monotonic()
        if left <= 0:
            raise _Again("the deadline has passed")
        try:
            answer = self._client.post(
                route, json=dict(body), timeout=min(self.settings.timeout, left)
            )
        except httpx2.HTTPError as error:
            raise _Again(f"{type(error).__name__}: {error}") from None
        if answer.status_code in BUSY:
            raise _Again(f"status {answer.status_code}: {answer.text[:MESSAGE]}")
        if answer.status_code != 200:
            raise BackendError(
                f"{self.shown}{route} answers {answer.status_code}: {answer.text[:MESSAGE]}"
            )
        try:
            found = answer.json()
        except ValueError:
            raise _Again(f"the answer is no JSON: {answer.text[:MESSAGE]}") from None
        if not isinstance(found, dict):
            raise BackendError(f"{self.shown}{route} answers {type(found).__name__}, not an object")
        return found

    def close(self) -> None:
        """Close its connections."""
        self._closing()
