"""A small world of solutions of letters, whose posterior is known by enumerating all of them."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.catalogue import algorithm
from prmkit.search.drive import search
from prmkit.search.settings import SearchSettings

LETTERS = ("a", "b", "c")
CHANCES = {(): (0.6, 0.3, 0.1), ("a",): (0.1, 0.2, 0.7), ("b",): (0.5, 0.25, 0.25)}
DEPTH = 3


def chances(steps):
    """How likely each letter comes next; `b` ends a solution that begins with it."""
    return CHANCES.get(steps[-1:], (1 / 3, 1 / 3, 1 / 3))


def ends(steps):
    return len(steps) == DEPTH or steps == ("b",)


def value(steps):
    """A score in (0, 1) that changes its mind from step to step."""
    return {"a": 0.2, "b": 0.5, "c": 0.9}[steps[-1]] * (0.5 if steps[0] == "a" else 1.0)


def script(prefix, rng):
    steps = tuple(step.text.strip() for step in prefix.steps)
    text = ""
    while True:
        letter = rng.choices(LETTERS, chances(steps))[0]
        steps = (*steps, letter)
        if ends(steps):
            return text + letter
        text += letter + "\n"


def likely(prefix, text, ends_there):
    """The logarithm of how likely the script writes a text."""
    steps = tuple(step.text.strip() for step in prefix.steps)
    chance = 1.0
    for letter in text.split():
        if ends(steps):
            return -math.inf
        chance *= chances(steps)[LETTERS.index(letter)]
        steps = (*steps, letter)
    return math.log(chance) if ends(steps) == ends_there else -math.inf


def score(problem, steps):
    return value(tuple(step.strip() for step in steps))


def exactly(increments, potential=lambda v: v):
    """The posterior over whole solutions, by enumeration of all of them."""
    weights = {}
    for length in range(1, DEPTH + 1):
        for steps in itertools.product(LETTERS, repeat=length):
            if not ends(steps) or any(ends(steps[:i]) for i in range(1, length)):
                continue
            p = 1.0
            for i in range(length):
                p *= chances(steps[:i])[LETTERS.index(steps[i])]
            values = [potential(value(steps[: i + 1])) for i in range(length)]
            weights[steps] = p * (values[-1] if increments else float(np.prod(values)))
    total = sum(weights.values())
    return {steps: w / total for steps, w in weights.items()}


def estimated(name, runs, **options):
    """The mean of the particles' weights over many searches."""
    settings = SearchSettings(
        step_stop=("\n",), split="line", answers="text", aggregation="last", answer_ends=False
    )
    found = search(
        [Problem(id=str(i), prompt="?") for i in range(runs)],
        partial(algorithm(name, **options)),
        ScriptedPolicy(script, likely=likely),
        ScriptedScorer(score),
        settings=settings,
        judge=lambda problem, text: Outcome(text, None),
    )
    mean = dict.fromkeys(exactly(True), 0.0)
    for one in found:
        for node, weight in zip(one.candidates, one.weights, strict=True):
            mean[tuple(node.solution().split("\n"))] += weight / runs
    return mean


def distance(p, q):
    """Total variation."""
    return sum(abs(p[k] - q[k]) for k in p) / 2
