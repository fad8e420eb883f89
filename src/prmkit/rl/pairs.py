"""Preference pairs out of solutions whose steps have values.

They are what `policy_losses.step_dpo` and `policy_losses.trajectory_dpo` learn from. Values are
labels, or scores by a process reward model; higher is better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from prmkit.aggregate import Aggregation, aggregate_flat
from prmkit.records import Step, Trajectory

Values = Sequence[float | None]
"""One for each step; None where a step has none."""


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """Two next steps after the same prefix.

    Attributes:
        prefix: the problem and the steps before, open.
        better: the step to prefer.
        worse: the other.
        better_value: its value, a mean where several solutions have that step there.
        worse_value: that of the other.
    """

    prefix: Trajectory
    better: Step
    worse: Step
    better_value: float
    worse_value: float


@dataclass(frozen=True, kw_only=True)
class TrajectoryPair:
    """Two solutions of the same problem.

    Attributes:
        better: the one to prefer.
        worse: the other.
        better_value: of its steps together.
        worse_value: of the other's.
    """

    better: Trajectory
    worse: Trajectory
    better_value: float
    worse_value: float


def _checked(
    trajectories: Iterable[Trajectory], values: Iterable[Values]
) -> list[tuple[Trajectory, Values]]:
    both = list(zip(trajectories, values, strict=True))
    for trajectory, own in both:
        if len(own) != len(trajectory.steps):
            raise ValueError(
                f"{len(own)} values for a solution of {len(trajectory.steps)} steps of problem "
                f"{trajectory.problem.id!r}; one for each step is needed, None where it has none"
            )
    return both


def _gap(pair: StepPair | TrajectoryPair) -> float:
    return pair.better_value - pair.worse_value


def step_pairs(
    trajectories: Iterable[Trajectory],
    values: Iterable[Values],
    margin: float = 0.0,
    at_least: float | None = None,
    most: int | None = 1,
) -> list[StepPair]:
    """Pairs of a better and a worse step that follow the same steps of the same problem.

    Solutions that begin alike, to the letter, are a tree; at each of its nodes the steps that
    follow are compared. A step that several solutions have there counts once, by the mean of its
    values. Differs from the paper, which takes the first wrong step and draws right ones anew
    from before it: here both were drawn beforehand, by the policy itself, which the paper found
    to be better than steps by others.

    Args:
        trajectories: solutions, of any problems in any order.
        values: for each the values of its steps.
        margin: the least difference of values, 0 excluded: equal steps are no pair.
        at_least: the better step and every step before it must have this value, so that no
            pair teaches how to go on from an error; None without.
        most: pairs of one prefix, those of the widest difference first; None for all.

    Returns:
        In the order in which the prefixes were met.

    Raises:
        ValueError: if a solution has more or fewer values than steps.

    Reference: Lai et al. 2024, Step-DPO, arXiv:2406.18629, section 3.2.
    """
    nodes: dict[tuple[object, ...], tuple[Trajectory, dict[Step, list[float]]]] = {}
    for trajectory, own in _checked(trajectories, values):
        root = (trajectory.problem.model_dump_json(), trajectory.separator)
        for k, (step, value) in enumerate(zip(trajectory.steps, own, strict=True)):
            key = (*root, *trajectory.steps[:k])
            _, following = nodes.setdefault(key, (trajectory.prefix(k), {}))
            if value is not None:
                following.setdefault(step, []).append(value)
    means = {
        (*key, step): fmean(numbers)
        for key, (_, following) in nodes.items()
        for step, numbers in following.items()
    }
    least = -math.inf if at_least is None else at_least
    found: list[StepPair] = []
    for key, (prefix, following) in nodes.items():
        # Everything before, from the first step on, which is the third part of a key.
        before = [means.get(key[:k], -math.inf) for k in range(3, len(key) + 1)]
        if at_least is not None and min(before, default=math.inf) < least:
            continue
        pairs = [
            StepPair(prefix=prefix, better=a, worse=b, better_value=x, worse_value=y)
            for a, b in itertools.permutations(following, 2)
            if (x := means[*key, a]) > (y := means[*key, b]) and x - y >= margin and x >= least
        ]
        found += sorted(pairs, key=_gap, reverse=True)[:most]
    return found


def trajectory_pairs(
    trajectories: Iterable[Trajectory],
    values: Iterable[Values],
    better_at_least: float,
    worse_at_most: float | None = None,
    how: Aggregation = "min",
    most: int | None = None,
) -> list[TrajectoryPair]:
    """Pairs of a right and a wrong solution of a problem, where the steps agree with the answer.

    A right answer by wrong steps is not preferred to anything, and a wrong answer whose steps
    all look right is not held against them. Without the filter they are the usual pairs by
    outcome. Solutions whose outcome is not known, that have no step or a step without a value
    are left out.

    Args:
        trajectories: solutions, of any problems in any order.
        values: for each the values of its steps.
        better_at_least: what the steps of the right solution together must have.
        worse_at_most: what those of the wrong one may have; None for the same number.
        how: see `prmkit.aggregate.aggregate_scores`, which says where a way makes no sense.
        most: pairs of one problem, those of the widest difference first; None for all.

    Returns:
        In the order in which the problems were met.

    Raises:
        ValueError: if a solution has more or fewer values than steps.
        UnknownName: if there is no such way.
    """
    highest = better_at_least if worse_at_most is None else worse_at_most
    problems: dict[str, tuple[list[tuple[Trajectory, float]], list[tuple[Trajectory, float]]]] = {}
    for trajectory, own in _checked(trajectories, values):
        numbers = np.array([value for value in own if value is not None], dtype=np.float64)
        right, wrong = problems.setdefault(trajectory.problem.model_dump_json(), ([], []))
        if trajectory.correct is None or not own or len(numbers) < len(own):
            continue
        together = float(aggregate_flat(numbers, np.array([len(numbers)]), how)[0])
        if trajectory.correct and together >= better_at_least:
            right.append((trajectory, together))
        elif not trajectory.correct and together <= highest:
            wrong.append((trajectory, together))
    found: list[TrajectoryPair] = []
    for right, wrong in problems.values():
        pairs = [
            TrajectoryPair(better=a, worse=b, better_value=x, worse_value=y)
            for (a, x), (b, y) in itertools.product(right, wrong)
        ]
        found += sorted(pairs, key=_gap, reverse=True)[:most]
    return found
