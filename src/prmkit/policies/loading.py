"""A policy by its settings: in this process, or on a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prmkit.checkpoints import find_checkpoint, load_tokenizer
from prmkit.errors import InvalidSetting
from prmkit.policies.settings import PolicySettings

if TYPE_CHECKING:
    from prmkit.policies.hf import HFPolicy
    from prmkit.policies.openai import OpenAIPolicy


def load_policy(settings: PolicySettings) -> HFPolicy | OpenAIPolicy:
    """The policy that the settings name.

    Args:
        settings: with folders, or an id of the hub, in place of the embedded world's names.

    Raises:
        InvalidSetting: if the server's address or its API key is none.
        CheckpointError: if there is no such folder, or it holds another kind of model.
        PolicyError: if the server draws no completion in any way.
        UnknownName: if it lists other models than the one named.
        BackendError: if it does not answer.
        MissingDependency: if the library that is needed is not installed.
    """
    if settings.server is None:
        from prmkit.policies.hf import HFPolicy

        if settings.policy is None:
            raise InvalidSetting("neither a policy nor a server with one was named")
        return HFPolicy(find_checkpoint(settings.policy), device=settings.device)
    from prmkit.endpoint import Endpoint, EndpointSettings
    from prmkit.policies.openai import OpenAIPolicy

    endpoint = Endpoint(
        EndpointSettings(
            url=server_root(settings.server),
            api_key=api_key(settings.api_key_env),
            timeout=settings.timeout,
            deadline=settings.deadline,
            attempts=settings.attempts,
            connections=settings.concurrency,
        )
    )
    tokenizer = None if settings.tokenizer is None else load_tokenizer(settings.tokenizer)
    return OpenAIPolicy(
        endpoint, settings.policy, tokenizer=tokenizer, concurrency=settings.concurrency
    )


def server_root(server: str) -> str:
    """The server's root; people give it with and without the ``/v1`` of its routes.

    Raises:
        InvalidSetting: if it is no address.
    """
    if not server.startswith(("http://", "https://")):
        raise InvalidSetting(
            f"the server is {server!r}; it must be an address such as http://127.0.0.1:8000"
        )
    return server.rstrip("/").removesuffix("/v1")


def api_key(variable: str | None) -> str | None:
    """The key that an environment variable holds; None where none is named.

    Raises:
        InvalidSetting: if it is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise InvalidSetting(
            f"the environment variable {variable!r}, which is to hold the server's API key, is "
            "not set"
        )
    return key
