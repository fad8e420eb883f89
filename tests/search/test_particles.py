"""Particle methods against exact enumeration, and resampling schemes against their law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from letters import distance, estimated, exactly
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.records import Problem
from prmkit.search.particles import Filter, Population, log_potential, resampled
from prmkit.search.resampling import SCHEMES, effective_size, normalised
from prmkit.search.tree import Node

FEW = [s if s == "systematic" else pytest.param(s, marks=pytest.mark.slow) for s in SCHEMES]


@pytest.mark.parametrize("scheme", FEW)
def test_the_posterior_is_that_of_enumeration(scheme):
    found = estimated("particle-filter", 4, n=1200, ess=1.0, scheme=scheme)
    assert distance(found, exactly(True)) < 0.03
    # The policy's own distribution is another one, so this can tell them apart.
    assert distance(exactly(True), exactly(True, lambda v: 1.0)) > 0.2


@pytest.mark.slow
def test_it_comes_closer_with_more_particles():
    errors = [distance(estimated("particle-filter", 60, n=n), exactly(True)) for n in (2, 8, 128)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def test_without_increments_all_potentials_count():
    found = estimated("particle-filter", 4, n=1200, increments=False)
    assert distance(found, exactly(False)) < 0.03
    assert distance(exactly(False), exactly(True)) > 0.1


@pytest.mark.slow
def test_odds_are_potentials_too():
    found = estimated("particle-filter", 8, n=1200, potential="odds")
    assert distance(found, exactly(True, lambda v: v / (1 - v))) < 0.03


@pytest.mark.parametrize(
    "tempering",
    ["linear", *(pytest.param(t, marks=pytest.mark.slow) for t in ("ess", "entropy"))],
)
def test_tempering_that_is_corrected_moves_no_expectation(tempering):
    options = {"n": 1200, "ess": 1.0, "early": 1.0, "max_steps": 4, "tempering": tempering}
    right = distance(estimated("entropic-particle-filter", 4, **options), exactly(True))
    assert right < 0.03
    if tempering == "linear":
        off = estimated("entropic-particle-filter", 4, **options, corrected=False)
        assert distance(off, exactly(True)) > right + 0.02


WEIGHTS = st.lists(st.floats(0, 10), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(weights=WEIGHTS, n=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_a_scheme_gives_n_particles_that_have_weight(scheme, weights, n, seed):
    w = np.array(weights) / sum(weights)
    chosen = SCHEMES[scheme](w, n, np.random.default_rng(seed))
    assert len(chosen) == n
    assert (np.diff(chosen) >= 0).all()
    assert (w[chosen] > 0).all()
    counts = np.bincount(chosen, minlength=len(w))
    if scheme == "systematic":
        assert (np.abs(counts - n * w) < 1 + 1e-6).all()
    if scheme == "residual":
        assert (counts >= np.floor(n * w - 1e-6)).all()
    if scheme == "stratified":
        assert (np.abs(counts - n * w) < 2 + 1e-6).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_is_unbiased(scheme):
    rng = np.random.default_rng(1)
    for _ in range(4):
        w = rng.dirichlet(np.full(6, 0.5))
        total = np.zeros(6)
        for _ in range(4000):
            total += np.bincount(SCHEMES[scheme](w, 5, rng), minlength=6)
        # Five standard errors of the largest variance, that of multinomial draws.
        assert (np.abs(total / 4000 - 5 * w) < 5 * np.sqrt(5 * w * (1 - w) / 4000) + 1e-9).all()


def test_the_schemes_differ_in_their_spread():
    rng, w = np.random.default_rng(2), np.array([0.3, 0.3, 0.25, 0.15])
    spread = {
        name: np.var([np.bincount(s(w, 10, rng), minlength=4)[0] for _ in range(2000)])
        for name, s in SCHEMES.items()
    }
    assert spread["multinomial"] == pytest.approx(10 * 0.3 * 0.7, rel=0.15)
    assert max(spread["systematic"], spread["stratified"]) < spread["residual"] + 0.5
    assert spread["residual"] < spread["multinomial"]


def test_effective_size():
    assert effective_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_size(np.array([1.0, 0.0])) == 1
    assert effective_size(np.array([0.5, 0.25, 0.25])) == pytest.approx(1 / 0.375)


def test_normalised():
    assert normalised(np.log([1.0, 3.0])) == pytest.approx([0.25, 0.75])
    assert normalised(np.array([-1e9, -1e9 + np.log(3)])) == pytest.approx([0.25, 0.75], rel=1e-6)
    assert normalised(np.full(4, -np.inf)) == pytest.approx([0.25] * 4)


def test_log_potential():
    assert log_potential(0.25, "value") == pytest.approx(np.log(0.25))
    assert log_potential(0.25, "odds") == pytest.approx(np.log(1 / 3))
    assert log_potential(-2.0, "exp") == -2.0
    assert np.isfinite(log_potential(0.0, "odds"))
    assert np.isfinite(log_potential(1.0, "odds"))
    assert log_potential(float("-inf"), "value") == float("-inf")


def particles(finishes, weights):
    problem = Problem(id="p", prompt="?")
    root = Node(problem)
    nodes = [
        Node(problem, root, i, text="x", steps=("x",), finish=f) for i, f in enumerate(finishes)
    ]
    return Population(nodes, np.log(weights), np.log(weights))


def test_resampling_keeps_the_whole_weight():
    """Of those that take part, and of the others."""
    for tempering in ("none", "linear"):
        population = particles(["open", "eos", "open", "open"], [0.7, 0.2, 0.05, 0.05])
        how = Filter(n=4, ess=1.0, tempering=tempering, max_steps=10)
        totals = []
        for seed in range(3000):
            copy = Population(
                list(population.nodes), population.logs.copy(), population.potentials.copy()
            )
            ancestors, temperature = resampled(how, copy, 0, np.random.default_rng(seed))
            assert temperature == (2.0 if tempering == "linear" else 1.0)
            assert ancestors[1] == 1
            assert np.exp(copy.logs[1]) == pytest.approx(0.2)
            of_first = np.isin(ancestors, [0]) & (np.arange(4) != 1)
            totals.append([np.exp(copy.logs).sum(), np.exp(copy.logs[of_first]).sum()])
        mean = np.mean(totals, axis=0)
        assert mean == pytest.approx([1.0, 0.7], abs=0.02)


def test_particles_that_are_not_unequal_are_left_alone():
    population = particles(["open"] * 4, [0.25] * 4)
    assert resampled(Filter(n=4), population, 0, np.random.default_rng(0))[0] is None
    assert resampled(Filter(n=4, ess=1.0), population, 0, np.random.default_rng(0))[0] is not None


def test_lost_particles_make_room():
    population = particles(["open", "length", "open", "length"], [0.5, 1e-300, 0.5, 1e-300])
    population.logs[[1, 3]] = -np.inf
    ancestors, _ = resampled(Filter(n=4, ess=1.0), population, 0, np.random.default_rng(0))
    assert sorted(ancestors) == [0, 0, 2, 2]
    assert np.exp(population.logs).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"n": 0}, InvalidSetting),
        ({"ess": 0.0}, InvalidSetting),
        ({"early": 2.0}, InvalidSetting),
        ({"scheme": "sistematic"}, UnknownName),
        ({"potential": "log"}, UnknownName),
        ({"tempering": "hot"}, UnknownName),
    ],
)
def test_settings_out_of_range_are_refused(setting, error):
    with pytest.raises(error):
        Filter(**setting)
