"""Checks of settings: out of range, a setting is refused before any work is done."""

from __future__ import annotations

from prmkit.errors import InvalidSetting


def at_least(least: float, /, **settings: float) -> None:
    """Refuse settings below `least`.

    Raises:
        InvalidSetting: naming the first one that is.
    """
    for name, value in settings.items():
        if not value >= least:
            raise InvalidSetting(f"{name} is {value!r}; it must be at least {least}")


def above(bound: float, /, **settings: float) -> None:
    """Refuse settings that are not above `bound`.

    Raises:
        InvalidSetting: naming the first one that is not.
    """
    for name, value in settings.items():
        if not value > bound:
            raise InvalidSetting(f"{name} is {value!r}; it must be above {bound}")
