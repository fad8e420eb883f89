"""Particle Gibbs with few particles against exact enumeration, and what it holds on to."""

from __future__ import annotations

import random

import numpy as np
import pytest

from letters import distance, estimated, exactly
from prmkit.errors import InvalidSetting
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.catalogue import algorithm
from prmkit.search.drive import search
from prmkit.search.particles import Filter, Population, resampled
from prmkit.search.settings import SearchSettings
from prmkit.search.tree import Node


@pytest.mark.parametrize("ess", [0.5, 1.0])
def test_few_particles_are_right_after_many_iterations(ess):
    options = {"n": 4, "ess": ess, "potential": "odds"}
    right = exactly(True, lambda v: v / (1 - v))
    found = estimated("particle-gibbs", 12, iterations=100, burn_in=3, **options)
    assert distance(found, right) < 0.07
    # A filter of as many particles is not, however often it is run.
    options |= {"scheme": "multinomial"}
    assert distance(estimated("particle-filter", 400, **options), right) > 0.14


def test_without_increments_all_potentials_count():
    found = estimated("particle-gibbs", 8, n=4, iterations=80, ess=1.0, increments=False)
    assert distance(found, exactly(False)) < 0.05
    assert distance(exactly(False), exactly(True)) > 0.1


def lines(prefix, rng):
    """One to four lines and an answer."""
    rest = "".join(f"{rng.randrange(9)}\n" for _ in range(rng.randrange(1, 5)))
    return rest + "= 1" if len(prefix.steps) < 5 else "= 1"


def run(script=lines, score=lambda _, steps: random.Random("".join(steps)).random(), **how):
    settings = SearchSettings(step_stop=("\n",), split="line", answers="text", aggregation="last")
    events = []
    (found,) = search(
        [Problem(id="p", prompt="?")],
        algorithm("particle-gibbs", **how),
        ScriptedPolicy(script),
        ScriptedScorer(score),
        settings=settings,
        on_event=lambda problem, event: events.append(event),
    )
    return found, events


def test_the_kept_particle_survives_every_resampling():
    """However bad it is, and however often the others are resampled."""
    _, events = run(n=4, iterations=30, ess=1.0)
    kept, seen = None, 0
    for event in events:
        if event.get("kind") == "keep":
            kept = tuple(event["path"])
        elif event.get("kind") == "resample" and kept:
            place = tuple(event["paths"][0])
            assert event["ancestors"][0] == 0
            assert place == kept[: len(place)]
            seen += 1
    assert seen > 30


def test_each_iteration_draws_for_all_but_the_kept_particle():
    (found, events) = run(lambda prefix, rng: f"= {rng.randrange(9)}", n=4, iterations=5)
    assert found.cost.completions == 4 + 4 * 3
    assert sum(event.get("kind") == "keep" for event in events) == 4
    assert len(found.candidates) == len(set(found.candidates)) == 16
    assert sum(found.weights) == pytest.approx(1.0)


def test_particles_of_the_burn_in_are_no_candidates():
    found, events = run(n=3, iterations=4, burn_in=3)
    (*_, last) = (tuple(e["path"]) for e in events if e.get("kind") == "keep")
    assert len(found.candidates) == 3
    assert last in {node.path for node in found.candidates}


def test_where_nothing_is_scored_nothing_is_kept():
    found, events = run(lambda prefix, rng: "= 1", lambda *_: None, n=3, iterations=3)
    assert {e["path"] for e in events if e.get("kind") == "keep"} == {None}
    assert len(found.candidates) == 9
    assert found.node.solution() == "= 1"


def test_the_others_are_drawn_without_the_kept_one():
    """Each of them by weight, and by itself; those that have ended take no part."""
    problem = Problem(id="p", prompt="?")
    root = Node(problem)
    finishes = ("open", "eos", "open", "open", "open")
    nodes = [
        Node(problem, root, i, text="x", steps=("x",), finish=finish)
        for i, finish in enumerate(finishes)
    ]
    weights = np.array([0.1, 0.3, 0.4, 0.15, 0.05])
    how = Filter(n=5, ess=1.0, scheme="multinomial")
    counts = np.zeros((5, 5))
    for seed in range(4000):
        population = Population(list(nodes), np.log(weights), np.log(weights))
        ancestors, _ = resampled(how, population, 0, np.random.default_rng(seed), (2, 4))
        assert ancestors[1] == 1
        assert ancestors[2] == 4
        assert population.nodes[2] is nodes[4]
        assert np.exp(population.logs).sum() == pytest.approx(1.0)
        others = np.bincount(ancestors[[0, 3, 4]], minlength=5)
        counts += np.outer(others, others)
    w = np.where(np.arange(5) == 1, 0, weights) / 0.7
    # E[n n'] of three multinomial draws.
    expected = 3 * 2 * np.outer(w, w) + np.diag(3 * w)
    assert np.abs(counts / 4000 - expected).max() < 0.12


@pytest.mark.parametrize("options", [{"n": 1}, {"iterations": 0}, {"iterations": 3, "burn_in": 3}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InvalidSetting):
        run(**options)
