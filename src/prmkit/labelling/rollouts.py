"""The words of labelling: what an estimator asks for, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from prmkit.errors import InvalidRecord
from prmkit.records import StepLabels, Trajectory, Unscored


class Rollouts(NamedTuple):
    """A wish for `n` more completions of a prefix, each judged by its final answer.

    Completions of a prefix are numbered, and a driver gives each estimator those that it has not
    had: to ask for 2 and then for 6 is to ask for 8.
    """

    prefix: Trajectory
    n: int


class Rollout(NamedTuple):
    """One completion of a prefix, judged.

    Attributes:
        correct: did it reach the reference answer? None where that could not be judged.
        text: what was written after the prefix.
        n_tokens: of it, drawn.
        answer: the final answer that it gives, where it gives one.
        error: why it could not be drawn; it is no trial then.
    """

    correct: bool | None
    text: str = ""
    n_tokens: int = 0
    answer: str | None = None
    error: str | None = None


Outcomes = Sequence[Rollout]

Result = TypeVar("Result")

Task = Generator[list[Rollouts], list[Outcomes], Result]
"""Yields lists of wishes, receives their outcomes in order, returns a result."""

Estimator = Task[StepLabels | Unscored]
"""A task that labels one trajectory, or says why that cannot be done."""

MakeEstimator = Callable[[Trajectory], Estimator]


def needs_reference(trajectory: Trajectory) -> None:
    """Refuse a trajectory whose completions cannot be judged.

    Raises:
        InvalidRecord: if its problem has no reference answer.
    """
    if trajectory.problem.answer is None:
        raise InvalidRecord(
            f"problem {trajectory.problem.id!r} has no reference answer, so no completion of it "
            "can be judged; label by self-consistency, which needs none"
        )


def is_finished(trajectory: Trajectory) -> bool:
    """Whether the last step's outcome is known: the solution has ended and was judged."""
    return trajectory.finish in ("eos", "answer") and trajectory.correct is not None


class Tally(NamedTuple):
    """What is known of a prefix.

    Attributes:
        successes: completions that reached the reference answer.
        trials: completions that could be judged.
    """

    successes: int
    trials: int

    def add(self, outcomes: Outcomes) -> Tally:
        """With more completions; those that could not be judged are no trials."""
        judged = [o.correct for o in outcomes if o.correct is not None]
        return Tally(self.successes + sum(judged), self.trials + len(judged))


NOTHING = Tally(0, 0)
