"""Every algorithm and every preset keeps the laws of searches."""

from __future__ import annotations

from typing import get_args

import pytest

from prmkit.search import laws
from prmkit.search.catalogue import ALGORITHMS, PRESETS, algorithm
from prmkit.search.laws import ACTING_LAWS, SEARCH_LAWS, check_search
from prmkit.search.maze import Acts

SMALL = {
    "best-of-n": {"n": 5},
    "majority": {"n": 5},
    "adaptive-self-consistency": {"n": 7},
    "beam": {"n": 6, "width": 3, "max_steps": 4},
    "dvts": {"n": 6, "width": 3, "max_steps": 4},
    "rebase": {"n": 6, "max_steps": 4},
    "mcts": {"n": 6, "width": 2, "rollouts": 1, "at_once": 2, "max_depth": 4},
    "particle-filter": {"n": 6, "max_steps": 4},
    "particle-gibbs": {"n": 4, "iterations": 3, "max_steps": 4, "ess": 1.0},
    "entropic-particle-filter": {"n": 6, "max_steps": 6},
    "early-rejection": {"n": 6, "max_steps": 4},
    "adaptive": {"n": 6},
    "sal-beam": {"n": 6, "width": 3, "max_steps": 4},
}
OTHERS = [
    ("beam", {"n": 4, "width": 2, "lookahead": 2, "max_steps": 4}),
    ("dvts", {"n": 4, "width": 2, "lookahead": 1, "max_steps": 4}),
    ("particle-filter", {"n": 5, "scheme": "residual", "ess": 1.0, "absorbing": False}),
    ("mcts", {"n": 5, "width": 2}),
    ("particle-gibbs", {"n": 3, "iterations": 3, "ess": 1.0, "max_steps": 4, "ancestors": True}),
    ("beam", {"n": 1, "width": 1}),
]
FIRST = [(name, SMALL.get(name, {})) for name in ALGORITHMS] + OTHERS[-2:]
"""These run by default; the others are of the same kinds."""
SLOW = [(name, {}) for name in PRESETS if name not in ALGORITHMS] + OTHERS[:-2]
CASES = [
    pytest.param(
        name,
        options,
        id=f"{name}-{'-'.join(map(str, options.values()))}",
        marks=[pytest.mark.slow] if (name, options) in SLOW else [],
    )
    for name, options in FIRST + SLOW
]


@pytest.mark.parametrize("law", SEARCH_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_algorithm_keeps_the_laws(law, name, options):
    law(algorithm(name, **options))


REPLAYED = ("best-of-n", "beam", "mcts")
"""An algorithm does not see how an environment comes to a turn: these stand for all by default."""
ACTING = [
    pytest.param(
        name,
        options,
        acts,
        id=f"{name}-{acts}",
        marks=[] if acts == "snapshot" or name in REPLAYED else [pytest.mark.slow],
    )
    for name, options in FIRST
    if not options.get("ancestors") and options.get("n") != 1
    for acts in get_args(Acts)
]


@pytest.mark.parametrize("law", ACTING_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options", "acts"), ACTING)
def test_every_algorithm_keeps_the_laws_in_an_environment(law, name, options, acts):
    law(algorithm(name, **options), acts)


def test_the_laws_are_run_in_an_environment_on_demand(monkeypatch):
    run = []
    monkeypatch.setattr(laws, "ACTING_LAWS", (lambda one, acts: run.append((one, acts)),))
    check_search("any", acting=True)
    assert run == [("any", "snapshot"), ("any", "replay")]
