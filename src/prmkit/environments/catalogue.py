"""The environments that run on this machine, by name: for the command line and for files."""

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
    "textworld": _textworld,
}
"""By the name in problems' ``meta``; what each needs is imported when it is asked for."""


def environment(name: str, games: Path | None = None) -> MakeEnvironment:
    """What makes environments of a name.

    Args:
        name: of the environment.
        games: the folder for compiled games; TextWorld needs one.

    Raises:
        UnknownName: if there is none of that name.
        InvalidSetting: if it needs a folder and there is none.
        MissingDependency: if it needs a package that is not installed.
    """
    if name not in ENVIRONMENTS:
        raise UnknownName("environment", name, ENVIRONMENTS)
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
