"""What a policy wrote to a problem, with its tokens and the scores of its steps."""

from __future__ import annotations

from typing import NamedTuple

from prmkit.records import StepScores, Trajectory, Unscored


class Rollout(NamedTuple):
    """A response that a policy drew, as it is learnt from.

    Attributes:
        trajectory: its steps, why it ended, and whether it is right (None: not known).
        prompt: token ids of the question.
        ids: [T] token ids of the response, the end token included where it was drawn.
        ends: [S] place in `ids` of the last token of each step. Ends do not fall; a step without
            tokens of its own has the end of the step before it, an empty first step has end 0.
        scores: of its steps, by the PRM; None where none was asked.
    """

    trajectory: Trajectory
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    scores: StepScores | Unscored | None
