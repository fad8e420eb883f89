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

    @property
    def extends(self) -> bool:
        """Whether it does here; with its numbers from a server it keeps no prefix."""

    def start(self, problem: Problem) -> Any:
        """The state before the first step."""

    def extend(self, states: Sequence[Any], steps: Sequence[Step]) -> tuple[list[float], list[Any]]:
        """One more step after each state: its score, exact to the whole pass, and its state."""

    def extend_by(
        self, states: Sequence[Any], steps: Sequence[Sequence[Step]]
    ) -> tuple[list[list[float]], list[Any]]:
        """One step or more after each state: their scores, and the state after the last."""

    def length(self, state: Any) -> int:
        """How many tokens were read up to a state."""


@runtime_checkable
class CountingScorer(Scorer, Protocol):
    """A scorer that knows how many tokens it reads."""

    @property
    def counts(self) -> bool:
        """Whether it does here."""

    def n_tokens(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """Tokens of each trajectory as the model reads it; 0 where it cannot be read."""
