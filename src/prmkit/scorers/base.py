"""Who judges: a scorer gives each step of a trajectory a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from prmkit.records import Problem, Semantics, Step, StepScores, Trajectory, Unscored


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


def beyond_text(trajectory: Trajectory) -> str | None:
    """Why a model that reads text alone cannot score a trajectory, or None."""
    n_images = len(trajectory.problem.images)
    if not n_images:
        return None
    return f"the problem has {n_images} image(s), and this model reads text alone"


@runtime_checkable
class PrefixScorer(Scorer, Protocol):
    """A scorer that goes on from a prefix: a search pays for new steps alone."""

    def start(self, problem: Problem) -> Any:
        """The state before the first step."""

    def extend(self, states: Sequence[Any], steps: Sequence[Step]) -> tuple[list[float], list[Any]]:
        """One more step after each state: its score, exact to the whole pass, and its state."""
