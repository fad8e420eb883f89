"""What ``prm search`` and ``prm play --search`` read alike: an algorithm's options, a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.cli.console import say
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.search.settings import LIMITS, Budget


def options_given(n: int | None, given: Sequence[str]) -> dict[str, Any]:
    """The options of an algorithm, as they were given.

    Raises:
        InvalidSetting: if one is no NAME=VALUE.
    """
    options: dict[str, Any] = {} if n is None else {"n": n}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise InvalidSetting(f"--set is {one!r}; give it as NAME=VALUE, such as width=4")
        options[name.replace("-", "_")] = value
    return options


def say_preset(name: str, settings: Mapping[str, Any]) -> None:
    """Tell which settings are a preset's; nothing where none are."""
    if settings:
        say(
            f"{name} runs with {', '.join(f'{field} {value}' for field, value in settings.items())}"
        )


def budget_given(text: str | None, prices: tuple[float, float, float] | None) -> Budget:
    """The budget, as it was given.

    Raises:
        UnknownName: if it names no limit.
        InvalidSetting: if a limit is no number.
    """
    limits: dict[str, Any] = {}
    for part in (text or "").split(","):
        name, _, value = part.strip().partition("=")
        if not part.strip():
            continue
        if name not in LIMITS:
            raise UnknownName("limit of a budget", name, LIMITS)
        try:
            limits[name] = LIMITS[name](value)
        except ValueError:
            raise InvalidSetting(
                f"the budget's {name} is {value!r}; give a number, such as {name}=100"
            ) from None
    return Budget(**limits, prices=prices)
