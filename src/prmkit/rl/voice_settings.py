"""Where the responses of a run are drawn; light, so that the command line's help loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from prmkit.errors import InvalidSetting
from prmkit.settings import above, at_least


@dataclass(frozen=True, kw_only=True)
class VoiceSettings:
    """Where responses are drawn: in this process, or on a server that takes each step's weights.

    Attributes:
        server: address of a vLLM server with the policy, started with VLLM_SERVER_DEV_MODE=1, such
            as http://127.0.0.1:8000; responses are drawn there, and it takes the new weights after
            each step. By default this process draws.
        server_model: with a server: the name under which it serves the policy; by default the
            only one that it lists.
        weights: with a server: the folder where new weights are written for it; by default
            `served` in the run folder.
        weights_seen: with a server: the path of that folder on the server, where it is another
            one.
        api_key_env: with a server: the environment variable that holds its API key.
        concurrency: with a server: requests under way at once, of all processes together.
        timeout: with a server: seconds that one try of a request may take, and that the server
            may take to load weights.
        deadline: with a server: seconds that a request may take with all its tries.
        attempts: with a server: tries of a request at most.
    """

    server: str | None = None
    server_model: str | None = None
    weights: Path | None = None
    weights_seen: str | None = None
    api_key_env: str | None = None
    concurrency: int = 32
    timeout: float = 600.0
    deadline: float = 1200.0
    attempts: int = 6

    def __post_init__(self) -> None:
        at_least(1, concurrency=self.concurrency, attempts=self.attempts)
        above(0, timeout=self.timeout, deadline=self.deadline)
        if self.server is None:
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    raise InvalidSetting(f"{field.name} has no meaning without a server")
        if self.weights_seen is not None and not self.weights_seen.startswith("/"):
            raise InvalidSetting(
                f"weights_seen is {self.weights_seen!r}; give the whole path, from / on"
            )
