"""The words of labelling: what an estimator asks for, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from prmkit.records import StepLabels, Trajectory


class Rollouts(NamedTuple):
    """A wish for `n` completions of a prefix, each judged by its final answer."""

    prefix: Trajectory
    n: int


Outcomes = Sequence[bool | None]
"""Of each completion: did it reach the reference answer? None where that could not be judged."""

Estimator = Generator[list[Rollouts], list[Outcomes], StepLabels]
"""Yields lists of wishes, receives their outcomes in order, returns the labels."""

MakeEstimator = Callable[[Trajectory], Estimator]
