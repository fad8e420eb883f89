"""What a family of reward models is: data and pure functions, without weights.

A discriminative family says how a trajectory becomes token ids, piece by piece, where each step
is read, which head gives numbers there, and what the numbers mean. Since the ids of a step never
depend on later steps, one pass scores all of them and a search may go on from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.policies.base import SamplingSettings
from prmkit.records import Message, Problem, Semantics, Step, Trajectory
from prmkit.scorers.families.heads import Head

LogProbsOfSteps = Sequence[Sequence[float]]
"""[S] of [T]: the log-probability of each token of each step."""


class Rendered(NamedTuple):
    """A trajectory as a model reads it.

    Attributes:
        ids: [T] token ids, up to the last one that matters.
        positions: [S] where each step is read, known by construction: nothing searches the ids.
        starts: [S] where each step's own tokens begin.
        begin: how many tokens belong to the problem; solutions of one problem share them.
        ends: of each step, token ids that a model wants behind its position to read it, but not
            before the next step: it is read at the last of them. Empty where the position is read.
    """

    ids: list[int]
    positions: list[int]
    starts: list[int]
    begin: int = 0
    ends: tuple[tuple[int, ...], ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that is read."""
        behind = zip(self.positions, self.ends, strict=True) if self.ends else ()
        return max([len(self.ids), *(position + 1 + len(end) for position, end in behind)])


class Piece(NamedTuple):
    """The token ids of one step.

    Attributes:
        ids: [T] token ids: the step and the markup around it.
        at: which of them the step is read at; -1 is the token before them.
        start: which of them is the first of the step's own text.
        tail: of families with an `end`: the rest of the step behind `at` where no step follows,
            if its last tokens are other ones then.
    """

    ids: list[int]
    at: int
    start: int = 0
    tail: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Discriminative:
    """A family whose models give K numbers at one position per step.

    Attributes:
        name: how the family is called, and what a checkpoint's note names.
        begin: token ids of a problem, up to where its first step begins.
        step: token ids of a step, given its 0-based index.
        read: [S, K] numbers at the positions to [S] scores.
        head: what gives the K numbers.
        semantics: what the scores mean.
        tags: texts of the tokens that mark where steps end; inside of a problem or a step they
            are escaped or refused, see `prmkit.scorers.separators`. Ordinary line ends are none:
            problems have them too, and published models have seen them there.
        end: token ids that stand behind the last step, which is read at the last of them; the
            published recipe then takes one pass per step, ours goes on from the keys and values
            of one pass.
        about: what it is in a line, where that is not the first one of its file.
    """

    name: str
    begin: Callable[[Problem, Tokenizer], list[int]]
    step: Callable[[Step, int, Tokenizer], Piece]
    read: Callable[[Sequence[Sequence[float]]], list[float]]
    head: Head
    semantics: Semantics
    tags: tuple[str, ...] = ()
    end: Callable[[Tokenizer], list[int]] | None = None
    about: str = ""

    def render(self, trajectory: Trajectory, tokenizer: Tokenizer) -> Rendered:
        """Token ids of the whole trajectory, and where its steps are read."""
        return _joined(self.begin, self.step, trajectory, tokenizer, self.end)


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """A family that scores a step by how likely its tokens are, to one model or to two.

    Attributes:
        name: how the family is called.
        begin: token ids of a problem, up to where its first step begins.
        step: token ids of a step, given its 0-based index; all from behind the `at` of the step
            before to its own count.
        read: of each step [T] log-probabilities under the model, and the same under the reference
            (None where the family needs none), to [S] scores.
        semantics: what the scores mean.
        compares: whether it needs a reference.
        about: what it is in a line, where that is not the first one of its file.
    """

    name: str
    begin: Callable[[Problem, Tokenizer], list[int]]
    step: Callable[[Step, int, Tokenizer], Piece]
    read: Callable[[LogProbsOfSteps, LogProbsOfSteps | None], list[float]]
    semantics: Semantics = "log_ratio"
    compares: bool = True
    about: str = ""

    def render(self, trajectory: Trajectory, tokenizer: Tokenizer) -> Rendered:
        """Token ids of the whole trajectory; step i ends with ``ids[positions[i]]``."""
        return _joined(self.begin, self.step, trajectory, tokenizer)


class Write(NamedTuple):
    """A wish of a generative family: go on writing a reply.

    Attributes:
        messages: the conversation before the reply.
        reply: what the reply already says.
        stop: texts that end the writing; they stay at its end.
        max_new_tokens: the writing ends here at the latest; None leaves it to the family's
            sampling.
    """

    messages: tuple[Message, ...]
    reply: str
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None


class Choose(NamedTuple):
    """A wish of a generative family: how likely is each choice as the reply's next word?

    Answered by probabilities, or by None where the model's logits are not to be had.

    Attributes:
        messages: the conversation before the reply.
        reply: what the reply already says.
        choices: words that begin with different tokens.
    """

    messages: tuple[Message, ...]
    reply: str
    choices: tuple[str, ...]


class RunCode(NamedTuple):
    """A wish of a generative family: what does this program print?

    Answered by its output.

    Attributes:
        code: Python, written by a model: it runs in a sandbox, or not at all.
    """

    code: str


Wish = Write | Choose | RunCode
Critique = Generator[Wish, Any, list[float] | str]
"""Yields wishes, receives their answers, returns a score per step, or why there are none."""


class Generative(NamedTuple):
    """A family that judges in words.

    Attributes:
        name: how the family is called.
        critique: judges a trajectory once; samples of it are averaged.
        sampling: how its words are drawn.
        n_samples: critiques of each trajectory, as its authors have it.
        semantics: what the scores mean.
        runs_code: whether it wishes for `RunCode`.
        about: what it is in a line, where that is not the first one of its file.
    """

    name: str
    critique: Callable[[Trajectory], Critique]
    sampling: SamplingSettings
    n_samples: int = 1
    semantics: Semantics = "correctness"
    runs_code: bool = False
    about: str = ""


def _joined(
    begin: Callable[[Problem, Tokenizer], list[int]],
    of_step: Callable[[Step, int, Tokenizer], Piece],
    trajectory: Trajectory,
    tokenizer: Tokenizer,
    end: Callable[[Tokenizer], list[int]] | None = None,
) -> Rendered:
    ids = list(begin(trajectory.problem, tokenizer))
    n_begin = len(ids)
    positions, starts = [], []
    closing = None if end is None else tuple(end(tokenizer))
    ends = []
    for index, step in enumerate(trajectory.steps):
        piece = of_step(step, index, tokenizer)
        positions.append(len(ids) + piece.at)
        starts.append(len(ids) + piece.start)
        ids += piece.ids
        if closing is not None:
            ends.append(piece.tail + closing)
    return Rendered(ids, positions, starts, n_begin, tuple(ends))
