"""Particle Gibbs: particle filters one after the other, each holding on to a solution of the last.

One filter with few particles is biased: what it lost early it cannot find again. Here the next one
runs with one particle of the one before, drawn by weight, which no resampling can lose; that is a
step of a Markov chain over solutions that leaves p(x) psi(x) as it is, whatever the number of
particles (Andrieu et al. 2010, theorem 5). So the mean over many iterations is right where a single
filter with as many particles in all is not, and the particles need not be there at the same time.

Resampling is multinomial: there the other particles, given that one goes on as itself, are just
drawn without it. A filter that resamples by its effective number, and leaves particles alone that
have ended, is the same chain on a smaller index: whether, and among how many, is known from all
weights, the kept particle's among them.

With ancestor sampling the kept particle is not held on to as a whole: whenever the others are
resampled, the rest of its way may be put behind any of them, so that its beginning is drawn anew,
too (Lindsten et al. 2014). Without it, the beginnings of all particles come to be the kept one's
where there are few particles and many steps. A rest is a text of tokens; where its tokens are not
known exactly, because a stop text ended inside one, it counts as the tokenizer encodes it.

More than one kept particle, as its_hub has it (num_ref_particles), would not leave the
distribution as it is: several that were drawn from one filter are not independent.

References: Andrieu, Doucet, Holenstein 2010, "Particle Markov chain Monte Carlo methods";
Lindsten, Jordan, Schön 2014, "Particle Gibbs with ancestor sampling", JMLR 15;
Puri et al. 2025, arXiv:2502.01618, algorithm 2 (with reward models).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from prmkit.errors import InvalidSetting
from prmkit.search.particles import (
    Filter,
    Population,
    Potential,
    grown,
    resampled,
    uneven,
    weighed,
)
from prmkit.search.requests import (
    Pool,
    Scene,
    Search,
    Steps,
    join,
    log_likelihoods,
    note,
    score,
)
from prmkit.search.resampling import normalised
from prmkit.search.tree import Node
from prmkit.settings import at_least

KEPT = 0
"""The number of the particle that goes where one of the last iteration went."""


def particle_gibbs(
    scene: Scene,
    *,
    n: int = 16,
    iterations: int = 4,
    max_steps: int = 40,
    ess: float = 0.5,
    potential: Potential = "value",
    increments: bool = True,
    ancestors: bool = False,
    burn_in: int = 0,
) -> Search:
    """Run particle filters that hold on to one solution, and pool their particles.

    Args:
        scene: the run.
        n: particles of each iteration, the kept one included; at least 2.
        iterations: filters.
        max_steps: steps at most; then each particle is drawn to its end.
        ess: see `Filter`, as for the others below.
        potential: of a score.
        increments: whether the last potential alone counts.
        ancestors: whether the rest of the kept particle's way may be put behind another particle.
            Needs a policy that tells how likely it is to write a text.
        burn_in: iterations whose particles are left out of the pool; the first knows no kept
            particle, and the chain forgets it as it goes.

    Raises:
        SearchError: if `ancestors` is set and the policy tells no likelihoods.
    """
    at_least(2, n=n)
    at_least(1, iterations=iterations)
    if not 0 <= burn_in < iterations:
        raise InvalidSetting(
            f"burn_in is {burn_in} of {iterations} iterations; it must leave one at least"
        )
    how = Filter(
        n=n,
        max_steps=max_steps,
        scheme="multinomial",
        ess=ess,
        potential=potential,
        increments=increments,
    )
    if ancestors:
        # Refused before anything is spent.
        yield from log_likelihoods([], [])
    kept: Node | None = None
    populations = []
    for i in range(iterations):
        population = yield from _iteration(scene, how, i, kept, ancestors)
        populations.append(population)
        if i < iterations - 1:
            chosen = _chosen(population, scene.rng("pg", i, "keep"))
            kept = None if chosen is None else population.nodes[chosen]
            path = None if kept is None else list(kept.path)
            yield from note("keep", iteration=i, particle=chosen, path=path)
    return _pool(populations[burn_in:])


def _iteration(
    scene: Scene, how: Filter, number: int, kept: Node | None, ancestors: bool
) -> Steps[Population]:
    """One filter from the root; with a kept particle, if there is one."""
    population = Population.at(scene.root, how.n)
    rest = [] if kept is None else places(kept)
    for t in count():
        live = population.live
        if not len(live):
            return population
        free = live[live != KEPT] if kept is not None else live
        yield from grown(scene, how, population, free, whole=t >= how.max_steps)
        if rest:
            yield from _followed(scene, how, population, rest.pop(0))
        origin = KEPT
        if ancestors and rest and uneven(how, population) is not None:
            rng = scene.rng("pg", number, t, "ancestor")
            origin, rest = yield from _ancestor(scene, how, population, rest, rng)
        reference = None if kept is None else (KEPT, origin)
        came_from, _ = resampled(how, population, t, scene.rng("pg", number, t), reference)
        if came_from is not None:
            yield from note(
                "resample",
                iteration=number,
                t=t,
                ancestors=came_from.tolist(),
                paths=[list(node.path) for node in population.nodes],
            )
    raise AssertionError("count() has no end")


def places(end: Node) -> list[Node]:
    """Where a particle stood after each of its steps; blank pieces on its way are none."""
    line = end.line()[1:]
    return [node for node in line if node.steps or node is end]


def _followed(scene: Scene, how: Filter, population: Population, node: Node) -> Steps[None]:
    """Take the kept particle one step further on its way."""
    if node.n_steps:
        yield from score([node])
    n_steps, before = population.nodes[KEPT].n_steps, float(population.potentials[KEPT])
    population.move(KEPT, node, *weighed(scene, how, node, n_steps, before))


def _ancestor(
    scene: Scene, how: Filter, population: Population, rest: list[Node], rng: np.random.Generator
) -> Steps[tuple[int, list[Node]]]:
    """Draw the particle that the rest of the kept one's way comes after (Lindsten et al. 2014).

    Particle i with the probability that is proportional to its weight, times how likely the policy
    goes on from it with that rest, times what the potentials along the rest make of its weight.

    Returns:
        Its number, and the nodes of the rest behind it.
    """
    others = [int(i) for i in population.live if i != KEPT]
    behind = yield from join([population.nodes[i] for i in others], [rest] * len(others))
    ways = {KEPT: rest, **dict(zip(others, behind, strict=True))}
    asked = [*ways]
    likely = yield from log_likelihoods(
        [ways[i][-1] for i in asked], [population.nodes[i] for i in asked]
    )
    logs = np.full(how.n, -np.inf)
    possible = [(i, log) for i, log in zip(asked, likely, strict=True) if log > -np.inf]
    # In the end the last potential alone counts, unless they all do.
    yield from score(
        [
            node
            for i, _ in possible
            for node in (ways[i][-1:] if how.increments else ways[i])
            if node.n_steps
        ]
    )
    for i, log in possible:
        logs[i] = population.logs[i] + log + _along(scene, how, population, i, ways[i])
    origin, possible_way = KEPT, False
    # What the kept particle did is possible, though its likelihood may be rounded to nothing.
    while not possible_way and np.isfinite(logs).any():
        origin = int(rng.choice(how.n, p=normalised(logs)))
        steps = [node for node in ways[origin] if node.n_steps]
        yield from score(steps)
        possible_way = origin == KEPT or all(scene.value(node) > -np.inf for node in steps)
        if not possible_way:
            logs[origin], origin = -np.inf, KEPT
    yield from note(
        "ancestor",
        ancestor=origin,
        path=list(population.nodes[origin].path),
        logs=[round(float(log), 6) if np.isfinite(log) else None for log in logs],
    )
    return origin, list(ways[origin])


def _along(scene: Scene, how: Filter, population: Population, i: int, way: Sequence[Node]) -> float:
    """The logarithm of the factor that the potentials along a way bring to a particle's weight."""
    total, potential = 0.0, float(population.potentials[i])
    n_steps = population.nodes[i].n_steps
    if how.increments:
        # Those between cancel out; a blank end is worth what comes before it.
        last = way[-1] if way[-1].n_steps > n_steps else None
        return 0.0 if last is None else weighed(scene, how, last, n_steps, potential)[0]
    for node in way:
        factor, potential = weighed(scene, how, node, n_steps, potential)
        total, n_steps = total + factor, node.n_steps
    return total


def _chosen(population: Population, rng: np.random.Generator) -> int | None:
    """A particle that has ended, drawn by weight; None where none has any."""
    ended = np.array([i for i, node in enumerate(population.nodes) if node.is_finished], dtype=int)
    if not len(ended) or not np.isfinite(population.logs[ended]).any():
        return None
    weights = normalised(population.logs[ended])
    return int(rng.choice(ended, p=weights))


def _pool(populations: Sequence[Population]) -> Pool:
    """The particles of all iterations that have ended, each solution once.

    Every iteration weighs alike. One in which no solution has a weight counts only where there is
    no other.
    """
    told = [
        population
        for population in populations
        if any(node.is_finished and log > -np.inf
               for node, log in zip(population.nodes, population.logs, strict=True))
    ]  # fmt: skip
    weights: dict[Node, float] = {}
    for population in told or populations:
        pool = population.pool()
        for node, weight in zip(pool.nodes, pool.weights or (), strict=False):
            weights[node] = weights.get(node, 0.0) + weight / len(told or populations)
    if not weights:
        return Pool(tuple(dict.fromkeys(node for p in populations for node in p.nodes)))
    return Pool(tuple(weights), tuple(weights.values()), max(weights, key=weights.__getitem__))
