"""Particle filtering: solutions as particles, weighed by their scores as they grow.

The particles of a population follow, at the end, p(x) psi(x): the policy's own distribution times
the potential of the whole solution, or, where increments are off, times the potentials of all its
prefixes. Weights are kept as logarithms and carried along; resampling happens when few particles
hold them, and moves no expectation. A particle that has ended keeps its weight and takes no part
in it: it is neither continued, nor doubled, nor lost.

References: Puri et al. 2025, arXiv:2502.01618 (particle filtering and particle Gibbs with reward
models); Gordon et al. 1993; Andrieu et al. 2010 (particle Gibbs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple, get_args

import numpy as np

from prmkit.errors import InvalidSetting, UnknownName
from prmkit.search.requests import Pool, Scene, Search, Steps, expand, note
from prmkit.search.resampling import SCHEMES, Floats, Ints, Scheme, effective_size, normalised
from prmkit.search.tree import Node
from prmkit.settings import at_least

Potential = Literal["value", "odds", "exp"]
Tempering = Literal["none", "ess", "entropy", "linear"]

LEAST = 1e-7
"""Scores are kept so far from 0 and 1, so that no potential is 0 or infinite."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """How particles are weighed and resampled.

    Attributes:
        n: particles.
        max_steps: steps at most; then each particle is drawn to its end.
        scheme: of resampling (systematic, stratified, residual, multinomial).
        ess: particles are resampled when their effective number is below this share of them; 1
            for at every step.
        potential: of an aggregated score v: v itself (value), v / (1 - v) (odds), or exp(v) for
            scores that are no probabilities.
        increments: weigh by the ratio of a potential to the one before, so that the last one
            alone counts in the end; without, all potentials count (as in arXiv:2502.01618).
        absorbing: particles that have ended take no part in resampling.
        tempering: flattens weights that are resampled early, so that few particles do not take
            over: by their effective number (ess), their entropy, or the step alone (linear).
        early: the share of the steps that is early.
        corrected: the flattening is made up for in the weights, so that it moves no expectation.
    """

    n: int = 16
    max_steps: int = 40
    scheme: Scheme = "systematic"
    ess: float = 0.5
    potential: Potential = "value"
    increments: bool = True
    absorbing: bool = True
    tempering: Tempering = "none"
    early: float = 0.5
    corrected: bool = True

    def __post_init__(self) -> None:
        at_least(1, n=self.n, max_steps=self.max_steps)
        if self.scheme not in SCHEMES:
            raise UnknownName("resampling scheme", self.scheme, SCHEMES)
        for name, known in (("potential", get_args(Potential)), ("tempering", get_args(Tempering))):
            if getattr(self, name) not in known:
                raise UnknownName(name, getattr(self, name), known)
        if not 0 < self.ess <= 1:
            raise InvalidSetting(f"ess is {self.ess!r}; it must be above 0 and at most 1")
        if not 0 <= self.early <= 1:
            raise InvalidSetting(f"early is {self.early!r}; it must be from 0 to 1")


def particle_filter(
    scene: Scene,
    *,
    n: int = 16,
    max_steps: int = 40,
    scheme: Scheme = "systematic",
    ess: float = 0.5,
    potential: Potential = "value",
    increments: bool = True,
    absorbing: bool = True,
) -> Search:
    """Grow n particles step by step, and resample them by their weights.

    Args:
        scene: the run.
        n: see `Filter`, as for all others.
        max_steps: steps at most.
        scheme: of resampling.
        ess: when to resample.
        potential: of a score.
        increments: whether the last potential alone counts.
        absorbing: whether ended particles take no part in resampling.
    """
    how = Filter(
        n=n,
        max_steps=max_steps,
        scheme=scheme,
        ess=ess,
        potential=potential,
        increments=increments,
        absorbing=absorbing,
    )
    population = yield from _filtered(scene, how, "pf")
    return population.pool()


def entropic_particle_filter(
    scene: Scene,
    *,
    n: int = 16,
    max_steps: int = 40,
    scheme: Scheme = "systematic",
    ess: float = 0.5,
    potential: Potential = "value",
    increments: bool = True,
    tempering: Tempering = "entropy",
    early: float = 0.5,
    corrected: bool = True,
) -> Search:
    """A particle filter whose weights are flattened while it is early, so that it stays diverse.

    Where the effective number of particles is low in the early part, weights are raised to 1 / T
    before resampling, with T from `tempering`; what that takes from a particle's weight is given
    back to it after, so that the result is still that of the filter. Without `corrected` it is
    the entropic particle filter as its_hub has it.

    Args:
        scene: the run.
        n: see `Filter`, as for all others.
        max_steps: steps at most.
        scheme: of resampling.
        ess: when to resample.
        potential: of a score.
        increments: whether the last potential alone counts.
        tempering: how weights are flattened.
        early: until when.
        corrected: whether that is made up for.
    """
    how = Filter(
        n=n,
        max_steps=max_steps,
        scheme=scheme,
        ess=ess,
        potential=potential,
        increments=increments,
        tempering=tempering,
        early=early,
        corrected=corrected,
    )
    population = yield from _filtered(scene, how, "epf")
    return population.pool()


@dataclass
class Population:
    """Particles and their weights.

    Attributes:
        nodes: [N] the end of each.
        logs: [N] logarithms of their weights; minus infinity for one that is lost.
        potentials: [N] logarithms of the potentials at their ends.
    """

    nodes: list[Node]
    logs: Floats
    potentials: Floats

    @classmethod
    def at(cls, root: Node, n: int) -> Population:
        """So many particles at the beginning."""
        return cls([root] * n, np.zeros(n), np.zeros(n))

    def move(self, i: int, node: Node, factor: float, potential: float) -> None:
        """Take a particle to a node; see `weighed`."""
        self.logs[i] += factor
        self.nodes[i], self.potentials[i] = node, potential

    @property
    def live(self) -> Ints:
        """Those that can be gone on with."""
        return np.array(
            [i for i, node in enumerate(self.nodes) if node.is_open and self.logs[i] > -np.inf],
            dtype=np.int64,
        )

    def pool(self) -> Pool:
        """The particles that have ended, with their weights."""
        ended = [i for i, node in enumerate(self.nodes) if node.is_finished]
        if not ended:
            return Pool(tuple(self.nodes))
        weights = normalised(self.logs[ended])
        nodes = tuple(self.nodes[i] for i in ended)
        return Pool(nodes, tuple(weights.tolist()), nodes[int(weights.argmax())])


def log_potential(value: float, kind: Potential) -> float:
    """The logarithm of the potential of an aggregated score; minus infinity for none."""
    if value == float("-inf"):
        return value
    if kind == "exp":
        return value
    value = min(max(value, LEAST), 1 - LEAST)
    return math.log(value) - (math.log1p(-value) if kind == "odds" else 0.0)


def _filtered(scene: Scene, how: Filter, name: str) -> Steps[Population]:
    """Run one filter from the root."""
    population = Population.at(scene.root, how.n)
    for t in count():
        live = population.live
        if not len(live):
            return population
        yield from grown(scene, how, population, live, whole=t >= how.max_steps)
        ancestors, temperature = resampled(how, population, t, scene.rng(name, t))
        if ancestors is not None:
            yield from note(
                "resample",
                t=t,
                ancestors=ancestors.tolist(),
                paths=[list(node.path) for node in population.nodes],
                temperature=temperature,
            )
    raise AssertionError("count() has no end")


def grown(
    scene: Scene, how: Filter, population: Population, live: Ints, *, whole: bool
) -> Steps[None]:
    """One more step of some particles, in place; those that stand at one node draw together."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i in live:
        members.setdefault(population.nodes[i].path, []).append(int(i))
    nodes = [population.nodes[of_node[0]] for of_node in members.values()]
    drawn = yield from expand(nodes, [len(m) for m in members.values()], whole=whole, score=True)
    for of_node, children in zip(members.values(), drawn, strict=True):
        for i, child in zip(of_node, children, strict=True):
            population.move(i, child, *weighed(scene, how, child, population.nodes[i].n_steps,
                                               float(population.potentials[i])))  # fmt: skip


def weighed(
    scene: Scene, how: Filter, child: Node, n_steps: int, before: float
) -> tuple[float, float]:
    """What a step does to the weight of a particle.

    Args:
        scene: the run.
        how: of the filter.
        child: where the particle goes.
        n_steps: up to where it comes from.
        before: the logarithm of the potential there.

    Returns:
        Logarithms: of the factor of its weight, and of its potential.
    """
    if not child.is_open and not child.is_finished:
        potential = float("-inf")
    elif child.n_steps == n_steps:
        # It ended without another step: what it is worth is known.
        potential = before if n_steps else float("-inf")
    else:
        potential = log_potential(scene.value(child), how.potential)
    if potential == float("-inf"):
        return potential, potential
    return potential - (before if how.increments else 0.0), potential


class Uneven(NamedTuple):
    """Particles that are to be resampled.

    Attributes:
        among: [M] their numbers.
        weights: [M] that add up to 1.
        size: their effective number.
    """

    among: Ints
    weights: Floats
    size: float


def uneven(how: Filter, population: Population) -> Uneven | None:
    """The particles that are to be resampled; None where it is not time to."""
    # Those that are lost weigh nothing, and make room for others.
    open_ones = [i for i, node in enumerate(population.nodes) if not node.is_finished]
    among = np.array(open_ones if how.absorbing else range(len(population.nodes)), dtype=np.int64)
    if len(among) < 2 or not len(population.live):
        return None
    logs = population.logs[among]
    if not np.isfinite(logs).any():
        return None
    weights = normalised(logs)
    size = effective_size(weights)
    # Equal weights come out a little below their number.
    if how.ess < 1 and size >= how.ess * len(among) - 1e-9:
        return None
    return Uneven(among, weights, size)


def resampled(
    how: Filter,
    population: Population,
    t: int,
    rng: np.random.Generator,
    reference: tuple[int, int] | None = None,
) -> tuple[Ints | None, float]:
    """Resample a population in place, if it is time to.

    Args:
        how: the filter.
        population: its particles.
        t: steps so far.
        rng: where chance comes from.
        reference: a particle, and the one that it shall come from; the others are drawn without
            it. The result has the law of resampling given that only where the scheme draws each
            particle by itself, as multinomial resampling does. A particle that takes no part in
            it changes nothing.

    Returns:
        The particle that each one now comes from, or None; and the temperature.
    """
    found = uneven(how, population)
    if found is None:
        return None, 1.0
    among, weights, size = found
    logs = population.logs[among]
    temperature = _temperature(how, weights, size, t)
    flat = normalised(logs / temperature)
    if reference is not None and reference[0] in among:
        own, origin = np.searchsorted(among, reference)
        # The draws come in order, so none of them may be overwritten: that one would not be
        # drawn by chance.
        chosen = np.insert(SCHEMES[how.scheme](flat, len(among) - 1, rng), own, origin)
    else:
        chosen = SCHEMES[how.scheme](flat, len(among), rng)
    total = _log_sum(logs)
    # Each stands for an equal part of the whole weight, corrected for the flattening.
    left = logs[chosen] - np.log(flat[chosen]) if temperature > 1 and how.corrected else None
    after = np.full(len(among), total) if left is None else left
    ancestors = np.arange(len(population.nodes))
    ancestors[among] = among[chosen]
    population.nodes[:] = [population.nodes[a] for a in ancestors]
    population.potentials = population.potentials[ancestors]
    population.logs[among] = after - math.log(len(among))
    return ancestors, temperature


def _log_sum(logs: Floats) -> float:
    highest = logs.max()
    return float(highest + np.log(np.exp(logs - highest).sum()))


def _temperature(how: Filter, weights: Floats, size: float, t: int) -> float:
    """T of entropic particle filtering; 1 where it is not early, or the particles are diverse."""
    done = t / how.max_steps
    n = len(weights)
    if how.tempering == "none" or done >= how.early or size >= how.ess * n:
        return 1.0
    if how.tempering == "ess":
        return max(1.0, n / size * (1 - done))
    if how.tempering == "linear":
        return max(1.0, 2 - done)
    held = weights[weights > 0]
    entropy = float(-(held * np.log(held)).sum() / math.log(n))
    return 1 / max(entropy + (1 - entropy) * done, LEAST)
