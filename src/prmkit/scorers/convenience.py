"""One call for one solution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prmkit.errors import InvalidRecord, ScoringError
from prmkit.records import Problem, Step, Trajectory, Unscored
from prmkit.scorers.base import Scorer


class ReasoningScores(NamedTuple):
    """What `score_reasoning_steps` returns.

    Attributes:
        scores: one per step, in order.
        lowest: the 0-based index of the lowest of them, the first of equals.
    """

    scores: tuple[float, ...]
    lowest: int


def score_reasoning_steps(
    prm: Scorer | Path | str, question: str, steps: Sequence[str]
) -> ReasoningScores:
    """Score the steps of one solution.

    Args:
        prm: a scorer, or the folder or id of a model of a known family. A folder is loaded at
            each call: for many solutions, make the scorer once.
        question: the problem.
        steps: the texts of the steps, at least one.

    Raises:
        InvalidRecord: if there is no step.
        ScoringError: if the model cannot score them, such as a text longer than it reads.
    """
    if isinstance(steps, str):
        raise InvalidRecord(
            "steps is one text; give a list of steps. prmkit.splitting makes one, for example "
            "splitter('line')(text)"
        )
    if not steps:
        raise InvalidRecord("there is no step to score; give at least one")
    if isinstance(prm, str | Path):
        from prmkit.scorers.loading import load_scorer

        prm = load_scorer(prm)
    trajectory = Trajectory(
        problem=Problem(id="question", prompt=question),
        steps=tuple(Step(text=step) for step in steps),
        separator="\n",
    )
    (scored,) = prm.score([trajectory])
    if isinstance(scored, Unscored):
        raise ScoringError(f"{prm.name} did not score the steps: {scored.reason}")
    lowest = min(range(len(scored.values)), key=scored.values.__getitem__)
    return ReasoningScores(scored.values, lowest)
