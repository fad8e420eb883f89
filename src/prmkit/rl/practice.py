"""What a policy practises on: problems that it answers, or tasks that it acts on.

The loop (`prmkit.rl.loop`) asks for responses and for verdicts, and does not care which it is; the
tasks of environments are in `prmkit.rl.episodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from prmkit.errors import PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Problem
from prmkit.rl.rollouts import Drawing, Rollout, are_right, roll_out
from prmkit.scorers.base import Scorer

if TYPE_CHECKING:
    from prmkit.rl.voices import Voice

T = TypeVar("T")


class Verdict(NamedTuple):
    """How an attempt at something held out went.

    Attributes:
        right: whether it is right; None where it was no attempt.
        error: why it was none.
    """

    right: bool | None
    error: str | None = None


class Practice(Protocol, Generic[T]):
    """What is practised on, and what is held out for evaluations."""

    @property
    def practised(self) -> Sequence[T]:
        """The problems or tasks; at least one."""

    @property
    def held_out(self) -> Sequence[T]:
        """Those of evaluations; there may be none."""

    def question(self) -> Problem:
        """One of what is practised on as a question, by which two policies are compared.

        Raises:
            EnvironmentFailed: if an environment does not even say what is to be done.
        """

    def roll_out(
        self,
        voice: Voice,
        chosen: Sequence[T],
        own: range,
        n: int,
        sampling: SamplingSettings,
        seed: int,
        scorer: Scorer | None = None,
    ) -> list[Rollout]:
        """Draw `n` responses to each of some.

        Args:
            voice: who draws.
            chosen: all of a step; one may come several times.
            own: of which of them responses are wanted. They do not depend on that.
            n: responses to each.
            sampling: how to draw.
            seed: of all chance.
            scorer: of steps; None for no scores.

        Returns:
            The responses, those to one problem together.
        """

    def judged(
        self, voice: Voice, own: range, n: int, sampling: SamplingSettings, seed: int
    ) -> list[Verdict]:
        """How `n` attempts at each of some that are held out went, by the numbers of these."""


class Questions:
    """Problems that are answered; see `Practice`.

    Args:
        practised: the problems.
        held_out: those of evaluations.
        split: text to the texts of its steps.
        judge: the verifier.
    """

    def __init__(
        self,
        practised: Sequence[Problem],
        held_out: Sequence[Problem],
        split: Callable[[str], Sequence[str]],
        judge: Judge,
    ):
        self.practised, self.held_out = practised, held_out
        self._split, self._judge = split, judge

    def question(self) -> Problem:
        """See `Practice.question`."""
        return self.practised[0]

    def roll_out(
        self,
        voice: Voice,
        chosen: Sequence[Problem],
        own: range,
        n: int,
        sampling: SamplingSettings,
        seed: int,
        scorer: Scorer | None = None,
    ) -> list[Rollout]:
        """See `Practice.roll_out`, and `prmkit.rl.rollouts.roll_out`."""
        some = chosen[own.start : own.stop]
        return roll_out(self._drawing(voice), some, n, sampling, seed, scorer, own.start)

    def judged(
        self, voice: Voice, own: range, n: int, sampling: SamplingSettings, seed: int
    ) -> list[Verdict]:
        """See `Practice.judged`, and `prmkit.rl.rollouts.are_right`."""
        some = self.held_out[own.start : own.stop]
        found = are_right(self._drawing(voice), some, n, sampling, seed, own.start)
        return [Verdict(right) for right in found]

    def _drawing(self, voice: Voice) -> Drawing:
        return Drawing(voice, voice.tokenizer, end_of(voice), self._split, self._judge)


def end_of(voice: Voice) -> int:
    """The token that ends a text.

    Raises:
        PolicyError: if there is none.
    """
    if voice.end is None:
        raise PolicyError(f"{voice.name!r} has no end token, so that no response would end")
    return voice.end
