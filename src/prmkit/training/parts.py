"""What one forward pass is told: a forest of sequences, where it is read, what is right there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        prefix: [L] steps with the same number follow the same prefix; empty of examples that have
            no steps.
        following: [L] the token behind each place in its sequence; -1 where that ends.
        problem: [N] the problem of each solution, numbered from 0.
        reference: [N] what the reference says of each solution.
        turn: [L] which turn of its episode each place is; empty where no episodes teach.
        share: [L] what it counts for in the mean of that turn.
    """

    forest: Forest
    places: Tensor
    targets: Tensor
    weights: Tensor
    owner: Tensor
    prefix: Tensor
    following: Tensor
    problem: Tensor
    reference: Tensor
    turn: Tensor
    share: Tensor


def make_part(examples: Sequence[Example], share: bool) -> Part:
    """The pass of some examples."""
    import torch

    if not examples:
        nothing = torch.zeros(0)
        empty = torch.zeros(0, dtype=torch.long)
        return Part(
            plant([[0]], [[]]), empty, nothing, nothing, empty, empty, empty, empty, nothing,
            empty, nothing,
        )  # fmt: skip
    forest = plant([e.ids for e in examples], [e.positions for e in examples], share=share)
    solutions: dict[int, int] = {}
    problems: dict[str, int] = {}
    prefixes: dict[tuple[int, ...], int] = {}
    owner, prefix, following, problem = [], [], [], []
    reference: list[float] = []
    for example in examples:
        number = solutions.setdefault(example.solution, len(solutions))
        if number == len(reference):
            problem.append(problems.setdefault(example.problem, len(problems)))
            reference.append(example.reference)
        owner += [number] * len(example.positions)
        for start in example.starts:
            prefix.append(prefixes.setdefault(tuple(example.ids[:start]), len(prefixes)))
        behind = [*example.ids, -1]
        following += [behind[position + 1] for position in example.positions]
    return Part(
        forest,
        torch.tensor([p for places in forest.places for p in places]),
        torch.tensor([t for e in examples for t in e.targets]),
        torch.tensor([w for e in examples for w in e.weights]),
        torch.tensor(owner),
        torch.tensor(prefix),
        torch.tensor(following),
        torch.tensor(problem),
        torch.tensor(reference, dtype=torch.float64),
        torch.tensor([k for e in examples for k in e.turns], dtype=torch.long),
        torch.tensor([s for e in examples for s in e.shares]),
    )
