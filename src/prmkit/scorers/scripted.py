"""A scorer that follows a function, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prmkit.errors import InvalidRecord
from prmkit.records import Problem, Semantics, Step, StepScores, Trajectory, Unscored

StepScore = Callable[[Problem, Sequence[str]], float | None]
"""From a problem and the texts of the steps up to one to that one's score; None for none."""


class Prefix(NamedTuple):
    """The state after some steps."""

    problem: Problem
    steps: tuple[str, ...]


class ScriptedScorer:
    """A scorer whose scores a function decides; one character is one token.

    Args:
        score: gives the score of the last of some steps.
        semantics: what its scores mean.
        name: written into the scores.
        extends: whether it goes on from prefixes.
    """

    counts = True

    def __init__(
        self,
        score: StepScore,
        *,
        semantics: Semantics = "correctness",
        name: str = "scripted",
        extends: bool = True,
    ):
        self._score, self.semantics, self.name, self.extends = score, semantics, name, extends
        self.read = 0
        """Tokens that it read."""
        self.scored: list[tuple[str, ...]] = []
        """The steps of everything that was scored, in order."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        found: list[StepScores | Unscored] = []
        for trajectory, n_tokens in zip(trajectories, self.n_tokens(trajectories), strict=True):
            texts = tuple(step.text for step in trajectory.steps)
            self.scored.append(texts)
            self.read += n_tokens
            values = [self._score(trajectory.problem, texts[: i + 1]) for i in range(len(texts))]
            known = tuple(value for value in values if value is not None)
            found.append(
                StepScores(values=known, semantics=self.semantics, model=self.name)
                if len(known) == len(values)
                else Unscored(reason="the script gives no score", model=self.name)
            )
        return found

    def n_tokens(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """See `prmkit.scorers.base.CountingScorer.n_tokens`."""
        return [len(t.problem.text) + sum(len(s.text) for s in t.steps) for t in trajectories]

    def start(self, problem: Problem) -> Prefix:
        """See `prmkit.scorers.base.PrefixScorer.start`."""
        self.read += len(problem.text)
        return Prefix(problem, ())

    def extend(
        self, states: Sequence[Prefix], steps: Sequence[Step]
    ) -> tuple[list[float], list[Prefix]]:
        """See `prmkit.scorers.base.PrefixScorer.extend`."""
        values, new = self.extend_by(states, [[step] for step in steps])
        return [value for (value,) in values], new

    def extend_by(
        self, states: Sequence[Prefix], steps: Sequence[Sequence[Step]]
    ) -> tuple[list[list[float]], list[Prefix]]:
        """See `prmkit.scorers.base.PrefixScorer.extend_by`.

        Raises:
            InvalidRecord: if the script gives no score.
        """
        found: list[list[float]] = []
        ends: list[Prefix] = []
        for state, more in zip(states, steps, strict=True):
            values = []
            for step in more:
                state = Prefix(state.problem, (*state.steps, step.text))
                value = self._score(state.problem, state.steps)
                if value is None:
                    raise InvalidRecord("the script gives no score")
                values.append(value)
            found.append(values)
            ends.append(state)
        # Nothing is read of a batch that is refused.
        self.read += sum(len(step.text) for more in steps for step in more)
        self.scored += [state.steps for state in ends]
        return found, ends

    def length(self, state: Prefix) -> int:
        """See `prmkit.scorers.base.PrefixScorer.length`."""
        return len(state.problem.text) + sum(map(len, state.steps))
