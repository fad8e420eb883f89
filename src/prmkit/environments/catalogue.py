"""Environments by name, for the command line and for files.

Those of prmkit have names alone. Others say where they are:

    agentgym:babyai=http://127.0.0.1:36001     one of AgentGym's servers, of the kind babyai
    openenv=http://127.0.0.1:8000              a server of OpenEnv; actions are JSON objects
    openenv:message=http://127.0.0.1:8000      the same; what is said is the field "message"
    gymnasium:FrozenLake-v1                    of Gymnasium's registry, with numbered actions
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prmkit.environments.base import MakeEnvironment
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.records import Trajectory


def _crafting(games: Path | None) -> MakeEnvironment:
    from prmkit.environments.crafting import crafting

    return crafting


def _tools(games: Path | None) -> MakeEnvironment:
    from prmkit.environments.tools import tools

    return tools


def _babyai(games: Path | None) -> MakeEnvironment:
    from prmkit.environments.babyai import BabyAI

    return BabyAI


def _babyai_words(games: Path | None) -> MakeEnvironment:
    from prmkit.environments.babyai import BabyAI

    return partial(BabyAI, map_too=False)


def _textworld(games: Path | None) -> MakeEnvironment:
    if games is None:
        raise InvalidSetting(
            "TextWorld's games are kept in a folder, and none was given; name one, such as 'games'"
        )
    from prmkit.environments.textworld import TextWorld

    return partial(TextWorld, games)


ENVIRONMENTS: dict[str, Callable[[Path | None], MakeEnvironment]] = {
    "crafting": _crafting,
    "tools": _tools,
    "babyai": _babyai,
    "babyai-words": _babyai_words,
    "textworld": _textworld,
}
"""By the name in problems' ``meta``; what each needs is imported when it is asked for."""


def _agentgym(kind: str, url: str) -> MakeEnvironment:
    from prmkit.endpoint import EndpointSettings
    from prmkit.environments.agentgym import DIALECTS, AgentGym

    if kind not in DIALECTS:
        raise UnknownName("AgentGym server", kind, DIALECTS)
    return partial(AgentGym, kind, EndpointSettings(url=_address("agentgym:babyai", url)))


def _openenv(field: str, url: str) -> MakeEnvironment:
    from prmkit.endpoint import EndpointSettings
    from prmkit.environments.openenv import OpenEnv, plain_words

    return partial(OpenEnv, EndpointSettings(url=_address("openenv", url)), plain_words(field))


def _gymnasium(name: str, url: str) -> MakeEnvironment:
    from prmkit.environments.gym import GymnasiumEnvironment, numbered

    if url or not name:
        raise InvalidSetting(
            "Gymnasium's environments are named as in its registry: gymnasium:FrozenLake-v1"
        )
    make, spoken = numbered(name)
    return partial(GymnasiumEnvironment, named(f"gymnasium:{name}"), (name,), make, spoken)


def _address(example: str, url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidSetting(
            f"the server's address is {url!r}; name it, such as {example}=http://127.0.0.1:8000"
        )
    return url


ADDRESSED: dict[str, Callable[[str, str], MakeEnvironment]] = {
    "agentgym": _agentgym,
    "openenv": _openenv,
    "gymnasium": _gymnasium,
}
"""What takes a name with more behind it: a kind, and an address."""


def _parts(name: str) -> tuple[str, str, str]:
    """``family:kind=address``, of which the last two may be empty."""
    said, _, url = name.partition("=")
    family, _, kind = said.partition(":")
    return family, kind, url


def named(name: str) -> str:
    """How an environment calls itself in problems: without the address where it is."""
    family, kind, _ = _parts(name)
    # The field that an action is said in is no part of what is played.
    return f"{family}-{kind}" if family in ADDRESSED and kind and family != "openenv" else family


def environment(name: str, games: Path | None = None) -> MakeEnvironment:
    """What makes environments of a name.

    Args:
        name: of the environment; with more behind it, see the module.
        games: the folder for compiled games; TextWorld needs one.

    Raises:
        UnknownName: if there is none of that name.
        InvalidSetting: if it needs a folder or an address and there is none.
        MissingDependency: if it needs a package that is not installed.
    """
    family, kind, url = _parts(name)
    if family in ADDRESSED:
        return ADDRESSED[family](kind, url)
    if name not in ENVIRONMENTS:
        raise UnknownName("environment", name, [*ENVIRONMENTS, *ADDRESSED])
    return ENVIRONMENTS[name](games)


def answer_of(trajectory: Trajectory) -> str | None:
    """The answer that an episode gave, in a form in which equal answers are equal.

    None where its environment asks for deeds and not for answers, or where it gave none.
    """
    if trajectory.problem.meta.get("environment") != "tools":
        return None
    from prmkit.environments.tools import answered

    return answered(trajectory)


def answers_count(name: str, task: str) -> bool:
    """Whether a kind of task is solved by an answer, so that a majority has a meaning."""
    return name == "tools" and task != "invoice"
