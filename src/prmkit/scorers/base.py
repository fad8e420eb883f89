"""Who judges: a scorer gives each step of a trajectory a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prmkit.records import Semantics, StepScores, Trajectory, Unscored


class Scorer(Protocol):
    """Trajectories to step scores. The laws are in `prmkit.testing.check_scorer`."""

    @property
    def name(self) -> str:
        """Which model it is; written into the scores."""

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """One result per trajectory, in order: as many finite scores as steps, or a reason."""
