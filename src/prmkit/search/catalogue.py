"""The search algorithms by name, and presets with the exact semantics of other libraries.

An algorithm of your own needs no entry here: any function from a `Scene` to a search will do.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from prmkit.errors import InvalidSetting, UnknownName
from prmkit.records import Problem
from prmkit.search.adaptive import adaptive
from prmkit.search.beam import beam_search, dvts
from prmkit.search.best_of_n import best_of_n, greedy, majority
from prmkit.search.early_rejection import early_rejection
from prmkit.search.mcts import mcts
from prmkit.search.particle_gibbs import particle_gibbs
from prmkit.search.particles import entropic_particle_filter, particle_filter
from prmkit.search.presets import sal_beam
from prmkit.search.rebase import rebase
from prmkit.search.requests import Scene, Search
from prmkit.search.run import Algorithm
from prmkit.search.self_consistency import adaptive_self_consistency
from prmkit.search.settings import SearchSettings
from prmkit.search.tree import Cost, Node

ALGORITHMS: dict[str, Callable[..., Search]] = {
    "greedy": greedy,
    "best-of-n": best_of_n,
    "majority": majority,
    "adaptive-self-consistency": adaptive_self_consistency,
    "beam": beam_search,
    "dvts": dvts,
    "rebase": rebase,
    "mcts": mcts,
    "particle-filter": particle_filter,
    "particle-gibbs": particle_gibbs,
    "entropic-particle-filter": entropic_particle_filter,
    "early-rejection": early_rejection,
    "adaptive": adaptive,
    "sal-beam": sal_beam,
}
"""Each by its name; its options are the keyword arguments of the function."""

UNSCORED = frozenset({"greedy", "majority", "adaptive-self-consistency"})
"""Those that need no scorer."""


_NOWHERE = Scene(
    root=Node(Problem(id="options", prompt="")),
    seed=0,
    aggregation="min",
    semantics="correctness",
    spent=Cost,
    answers=lambda nodes: [None] * len(nodes),
)
"""An algorithm that begins here asks for something, and is sent nothing."""


class Preset(NamedTuple):
    """An algorithm as another library runs it.

    Attributes:
        algorithm: its name in `ALGORITHMS`.
        options: of the algorithm.
        settings: fields of `SearchSettings` that differ from the defaults.
        deviations: where it still differs from that library, and why.
    """

    algorithm: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    deviations: str


PRESETS: dict[str, Preset] = {
    "sal-beam": Preset(
        "sal-beam",
        {"n": 4, "width": 4, "max_steps": 40},
        {"temperature": 0.8, "max_step_tokens": 2048, "aggregation": "last", "choice": "best"},
        "search-and-learn scores the empty text after a step's trailing separator as a step of its "
        "own; here the step itself is scored. A step that the length limit cut is a dead end, not "
        "a finished solution. Several problems may be searched at once. The result is not tiled "
        "up to n where fewer finished.",
    ),
    "sal-dvts": Preset(
        "dvts",
        {"n": 4, "width": 4, "max_steps": 40},
        {"temperature": 0.8, "max_step_tokens": 2048, "aggregation": "last", "choice": "best"},
        "As of sal-beam for scores and lengths. Equal problems stay apart. Every solution that "
        "ended is a candidate, not the siblings of the last step alone.",
    ),
    "its-pf": Preset(
        "particle-filter",
        {
            "n": 8,
            "max_steps": 32,
            "scheme": "multinomial",
            "ess": 1.0,
            "potential": "odds",
            "increments": False,
            "absorbing": False,
        },
        {"temperature": 0.8, "choice": "algorithm"},
        "its_hub does not see that the model ended its text, and goes on to max_steps; here such "
        "a particle has ended. Chance comes from the seed, not from a global source. A particle's "
        "weight is the product of the odds since it was last resampled, which at every step is "
        "that of the step.",
    ),
    "rebase": Preset(
        "rebase",
        {"n": 16, "max_steps": 25, "balance": 0.2, "sharing": "ceiling"},
        {"temperature": 1.0, "max_step_tokens": 256, "max_tokens": 1024, "aggregation": "last"},
        "A step ends at step_stop instead of at the words 'Step k'. What is open after max_steps "
        "is drawn to its end.",
    ),
}
"""Peers' semantics by name; see `docs/search.md`."""


def algorithm(name: str, **options: Any) -> Algorithm:
    """An algorithm or a preset by its name.

    Args:
        name: in `ALGORITHMS` or `PRESETS`.
        options: other than the defaults.

    Raises:
        UnknownName: if there is no such algorithm, or it has no such option.
        InvalidSetting: if an option is of the wrong kind, or does not go with the others.
    """
    if name not in ALGORITHMS and name not in PRESETS:
        raise UnknownName("search algorithm", name, {*ALGORITHMS, *PRESETS})
    preset = PRESETS.get(name)
    function = ALGORITHMS[preset.algorithm if preset else name]
    known = options_of(function)
    for option, value in options.items():
        if option not in known:
            raise UnknownName(f"option of {name}", option, known)
        options[option] = _read(option, value, known[option])
    made = partial(function, **{**(preset.options if preset else {}), **options})
    # What is wrong with options is told by whoever begins; so that is told here, not in a run.
    next(made(_NOWHERE))
    return made


def with_preset(name: str, settings: SearchSettings) -> tuple[SearchSettings, dict[str, Any]]:
    """The settings that a preset runs with.

    Args:
        name: of an algorithm or a preset.
        settings: what differs from the defaults in them stands.

    Returns:
        The settings, and those of them that are the preset's.
    """
    preset = PRESETS.get(name)
    usual = SearchSettings()
    changed = {
        field: value
        for field, value in (preset.settings if preset else {}).items()
        if getattr(settings, field) == getattr(usual, field) != value
    }
    return replace(settings, **changed), changed


def options_of(function: Callable[..., Search]) -> dict[str, Any]:
    """The options of an algorithm, with their types."""
    types = typing.get_type_hints(function)
    return {
        name: types[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _read(name: str, value: Any, kind: Any) -> Any:
    """An option's value as its type has it; a command line gives text."""
    choices = typing.get_args(kind)
    if choices:
        if value not in choices:
            raise InvalidSetting(f"{name} is {value!r}; it is one of {', '.join(choices)}")
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        found = kind(value)
        if found != float(value):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise InvalidSetting(f"{name} is {value!r}; it is {wanted}") from None
    return found
