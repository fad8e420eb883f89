"""Which solutions make an optimiser step, and which of them go through the model together.

A step is a fixed number of solutions, over all processes. How it is cut into passes, and who takes
which, depends on the memory and the number of processes; what is learnt does not.

Solutions of one problem, right and wrong ones, go into the same step: what tells them apart is then
in the steps, and not in how hard the problem is. Steps hold solutions of like length.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prmkit.settings import at_least
from prmkit.training.targets import Example

_SORTED = 32
"""Steps whose solutions are put in the order of their length together."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How solutions become batches.

    Attributes:
        batch_size: solutions of an optimiser step, over all processes.
        pass_tokens: tokens that one forward pass computes at most, where one solution has not
            more; what solutions share counts once. Lower it where memory is short.
        group: solutions of one problem that go into a step together at most; 1 scatters them.
        share: whether what solutions have in common is computed once.
    """

    batch_size: int = 16
    pass_tokens: int = 4096
    group: int = 8
    share: bool = True

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, pass_tokens=self.pass_tokens, group=self.group)


class StepPlan(NamedTuple):
    """One optimiser step.

    Attributes:
        shares: of each process, the passes, each a list of numbers of examples. All processes
            have as many passes; one without an example keeps the others company.
    """

    shares: list[list[list[int]]]

    @property
    def examples(self) -> list[int]:
        """The examples of the step."""
        return sorted(i for share in self.shares for one in share for i in one)


def plan_steps(
    examples: Sequence[Example],
    n_steps: int,
    settings: BatchSettings,
    *,
    world: int = 1,
    seed: int = 0,
    together: bool = False,
) -> list[StepPlan]:
    """The steps of a run, epoch after epoch.

    Args:
        examples: rows of one solution are neighbours.
        n_steps: how many.
        settings: see `BatchSettings`.
        world: processes.
        seed: of the order.
        together: whether what a step has of one problem must go through the model in one pass, as
            losses of pairs need it.
    """
    solutions: dict[int, list[int]] = {}
    for i, example in enumerate(examples):
        solutions.setdefault(example.solution, []).append(i)
    rows = list(solutions.values())
    steps: list[StepPlan] = []
    epoch = 0
    while len(steps) < n_steps:
        rng = random.Random(f"{seed}/{epoch}")
        for chosen in _epoch(examples, rows, settings, rng)[: n_steps - len(steps)]:
            numbers = [i for s in chosen for i in rows[s]]
            steps.append(_cut(numbers, examples, settings, world, together))
        epoch += 1
    return steps


def steps_of_an_epoch(n_solutions: int, settings: BatchSettings) -> int:
    """Optimiser steps of one pass over the data."""
    return -(-n_solutions // settings.batch_size)


def _epoch(
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    settings: BatchSettings,
    rng: random.Random,
) -> list[list[int]]:
    """The solutions of each step of an epoch."""
    units = _groups(examples, rows, settings.group, rng)
    rng.shuffle(units)
    span = settings.batch_size * _SORTED
    steps: list[list[int]] = []
    at, size = 0, 0
    block: list[list[int]] = []
    blocks: list[list[list[int]]] = []
    while at < len(units):
        block.append(units[at])
        size += len(units[at])
        at += 1
        if size >= span or at == len(units):
            blocks.append(block)
            block, size = [], 0
    for of_block in blocks:
        of_block.sort(key=lambda unit: max(_length(examples, rows[s]) for s in unit))
        flat = [s for unit in of_block for s in unit]
        cut = range(0, len(flat), settings.batch_size)
        steps += [flat[i : i + settings.batch_size] for i in cut]
    rng.shuffle(steps)
    return steps


def _groups(
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    most: int,
    rng: random.Random,
) -> list[list[int]]:
    """Solutions of each problem in groups, right and wrong ones mixed."""
    by_problem: dict[str, list[int]] = {}
    for number, of_one in enumerate(rows):
        by_problem.setdefault(examples[of_one[0]].problem, []).append(number)
    units: list[list[int]] = []
    for numbers in by_problem.values():
        rng.shuffle(numbers)
        wrong = [s for s in numbers if _is_wrong(examples, rows[s])]
        right = [s for s in numbers if not _is_wrong(examples, rows[s])]
        n_units = -(-len(numbers) // most)
        # Dealt like cards, so that each group has its part of either kind.
        dealt: list[list[int]] = [[] for _ in range(n_units)]
        for i, s in enumerate([*wrong, *right]):
            dealt[i % n_units].append(s)
        units += dealt
    return units


def _is_wrong(examples: Sequence[Example], rows: Sequence[int]) -> bool:
    return any(target <= 0 for i in rows for target in examples[i].targets)


def _length(examples: Sequence[Example], rows: Sequence[int]) -> int:
    return max(len(examples[i].ids) for i in rows)


def _cut(
    chosen: Sequence[int],
    examples: Sequence[Example],
    settings: BatchSettings,
    world: int,
    together: bool,
) -> StepPlan:
    """Deal a step's examples to processes, and cut each share into passes."""
    # Neighbours share beginnings: a problem's solutions stay with one process where that is fair.
    ordered = sorted(chosen, key=lambda i: (examples[i].problem, examples[i].ids))
    units: list[list[int]] = []
    for i in ordered:
        if together and units and examples[units[-1][0]].problem == examples[i].problem:
            units[-1].append(i)
        else:
            units.append([i])
    sizes = _sizes(units, examples, settings.share)
    total = sum(size.more for size in sizes)
    rank, load = 0, 0
    shares: list[list[tuple[list[int], _Size]]] = [[] for _ in range(world)]
    for unit, size in zip(units, sizes, strict=True):
        if rank < world - 1 and load + size.more / 2 > total / world * (rank + 1):
            rank += 1
        shares[rank].append((unit, size))
        load += size.more
    passes = [_passes(share, settings.pass_tokens) for share in shares]
    most = max(map(len, passes))
    return StepPlan([[*of_one, *[[]] * (most - len(of_one))] for of_one in passes])


class _Size(NamedTuple):
    """Tokens that a unit adds to a pass.

    Attributes:
        alone: where it is the first.
        more: behind the unit before it, with which it may share a beginning.
    """

    alone: int
    more: int


def _sizes(units: Sequence[Sequence[int]], examples: Sequence[Example], share: bool) -> list[_Size]:
    """The sizes of units whose examples are sorted: each shares most with the one before it."""
    sizes: list[_Size] = []
    before: list[int] = []
    for unit in units:
        alone, common = 0, 0
        for i in unit:
            ids = examples[i].ids
            shared = _alike(before, ids) if share else 0
            if i == unit[0]:
                common, shared = shared, 0
            alone += len(ids) - shared
            before = ids
        sizes.append(_Size(alone, alone - common))
    return sizes


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _passes(share: Sequence[tuple[list[int], _Size]], most: int) -> list[list[int]]:
    passes: list[list[int]] = []
    room = 0
    for unit, size in share:
        if passes and size.more <= room:
            passes[-1] += unit
            room -= size.more
        else:
            passes.append(list(unit))
            room = most - size.alone
    return passes
