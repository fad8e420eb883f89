"""What one forward pass is told: a forest of sequences, where it is read, what is right there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prmkit.training.kinds import Objective
from prmkit.training.targets import Example
from prmkit.training.trees import Forest, plant

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One forward pass.

    Attributes:
        forest: the sequences; of a pass without an example, one token that keeps company.
        places: [L] tokens of the forest that are read.
        targets: [L].
        weights: [L].
        owner: [L] the solution of each, numbered from 0.
        prefix: [L] steps with the same number follow the same prefix.
    """

    forest: Forest
    places: Tensor
    targets: Tensor
    weights: Tensor
    owner: Tensor
    prefix: Tensor


def make_part(examples: Sequence[Example], share: bool) -> Part:
    """The pass of some examples."""
    import torch

    if not examples:
        nothing = torch.zeros(0)
        empty = torch.zeros(0, dtype=torch.long)
        return Part(plant([[0]], [[]]), empty, nothing, nothing, empty, empty)
    forest = plant([e.ids for e in examples], [e.positions for e in examples], share=share)
    solutions: dict[int, int] = {}
    prefixes: dict[tuple[int, ...], int] = {}
    owner, prefix = [], []
    for example in examples:
        number = solutions.setdefault(example.solution, len(solutions))
        owner += [number] * len(example.positions)
        for start in example.starts:
            prefix.append(prefixes.setdefault(tuple(example.ids[:start]), len(prefixes)))
    return Part(
        forest,
        torch.tensor([p for places in forest.places for p in places]),
        torch.tensor([t for e in examples for t in e.targets]),
        torch.tensor([w for e in examples for w in e.weights]),
        torch.tensor(owner),
        torch.tensor(prefix),
    )


def items_of(examples: Sequence[Example], objective: Objective) -> float:
    """What some examples, which go through the model together, count for in a step's mean."""
    if objective.loss == "pairwise":
        return _n_pairs(examples)
    return sum(objective.items(e.targets, e.weights) for e in examples)


def _n_pairs(examples: Sequence[Example]) -> float:
    """Pairs of a better and a worse step after the same prefix."""
    values: dict[tuple[int, ...], list[float]] = {}
    for e in examples:
        for start, target in zip(e.starts, e.targets, strict=True):
            values.setdefault(tuple(e.ids[:start]), []).append(target)
    return sum(a > b for group in values.values() for a in group for b in group)
