"""The settings of a policy; light, so that the command line's help loads no model library."""

from __future__ import annotations

from dataclasses import dataclass

from prmkit.errors import InvalidSetting
from prmkit.settings import above, at_least


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Which language model, and where it runs.

    Attributes:
        policy: folder of a causal language model, its id on the Hugging Face hub, or
            embedded/policy, which is the default; with a server, the name under which it serves
            the model, by default the only one that it lists.
        server: instead of this process, the address of an OpenAI-compatible server with the model
            (vLLM, SGLang, llama.cpp, hosted), such as http://127.0.0.1:8000.
        tokenizer: with a server: folder of the model's tokenizer, so that prefixes go as token
            ids.
        api_key_env: with a server: the environment variable that holds its API key.
        concurrency: with a server: requests under way at once.
        timeout: with a server: seconds that one try of a request may take.
        deadline: with a server: seconds that a request may take with all its tries.
        attempts: with a server: tries of a request at most.
        device: without a server: cpu or cuda; by default a GPU where there is one.
    """

    policy: str | None = None
    server: str | None = None
    tokenizer: str | None = None
    api_key_env: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    deadline: float = 600.0
    attempts: int = 6
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(1, concurrency=self.concurrency, attempts=self.attempts)
        above(0, timeout=self.timeout, deadline=self.deadline)
        if self.server is None:
            for name in ("tokenizer", "api_key_env"):
                if getattr(self, name) is not None:
                    raise InvalidSetting(f"{name} has no meaning without a server")
        elif self.device is not None:
            raise InvalidSetting("device has no meaning with a server, which has its own")
