"""The families of reward models that prmkit can read, by name."""

from __future__ import annotations

from prmkit.errors import UnknownName
from prmkit.scorers.families.base import Discriminative, Implicit, Rendered
from prmkit.scorers.families.step_end import STEP_END_FAMILY

__all__ = ["DISCRIMINATIVE", "Discriminative", "Implicit", "Rendered", "discriminative"]

DISCRIMINATIVE: dict[str, Discriminative] = {STEP_END_FAMILY.name: STEP_END_FAMILY}


def discriminative(name: str) -> Discriminative:
    """The discriminative family of that name.

    Raises:
        UnknownName: naming the near matches.
    """
    if name not in DISCRIMINATIVE:
        raise UnknownName("family of reward models", name, DISCRIMINATIVE)
    return DISCRIMINATIVE[name]
