"""What a family of reward models is: data and pure functions, without weights.

A discriminative family says how a trajectory becomes token ids, piece by piece, where each step
is read, which head gives numbers there, and what the numbers mean. Since the ids of a step never
depend on later steps, one pass scores all of them and a search may go on from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prmkit.chat import Tokenizer
from prmkit.records import Problem, Semantics, Step, Trajectory
from prmkit.scorers.families.heads import Head


class Rendered(NamedTuple):
    """A trajectory as a model reads it.

    Attributes:
        ids: [T] token ids, up to the last one that matters.
        positions: [S] where each step is read, known by construction: nothing searches the ids.
        starts: [S] where each step's own tokens begin.
        begin: how many tokens belong to the problem; solutions of one problem share them.
        end: token ids that a model wants behind each step to read it, but not before the next;
            it is read at the last of them.
    """

    ids: list[int]
    positions: list[int]
    starts: list[int]
    begin: int = 0
    end: tuple[int, ...] = ()


class Piece(NamedTuple):
    """The token ids of one step.

    Attributes:
        ids: [T] token ids: the step and the markup around it.
        at: which of them the step is read at.
        start: which of them is the first of the step's own text.
    """

    ids: list[int]
    at: int
    start: int = 0


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
            are escaped or refused, see `prmkit.scorers.discriminative`.
        end: token ids that stand behind the last step and are read there; the published recipe
            then takes one pass per step, ours goes on from the keys and values of one pass.
    """

    name: str
    begin: Callable[[Problem, Tokenizer], list[int]]
    step: Callable[[Step, int, Tokenizer], Piece]
    read: Callable[[Sequence[Sequence[float]]], list[float]]
    head: Head
    semantics: Semantics
    tags: tuple[str, ...] = ()
    end: Callable[[Tokenizer], list[int]] | None = None

    def render(self, trajectory: Trajectory, tokenizer: Tokenizer) -> Rendered:
        """Token ids of the whole trajectory, and where its steps are read."""
        ids = list(self.begin(trajectory.problem, tokenizer))
        n_begin = len(ids)
        positions, starts = [], []
        for index, step in enumerate(trajectory.steps):
            piece = self.step(step, index, tokenizer)
            positions.append(len(ids) + piece.at)
            starts.append(len(ids) + piece.start)
            ids += piece.ids
        end = () if self.end is None else tuple(self.end(tokenizer))
        return Rendered(ids, positions, starts, n_begin, end)


class Implicit(NamedTuple):
    """A family that compares two language models on the tokens of each step.

    Attributes:
        name: how the family is called.
        render: trajectory to token ids; a step's tokens are ``ids[start : position + 1]``.
        read: [T - 1] log-probabilities of tokens 1 … T-1 under the model and under the
            reference, and the rendering, to [S] scores.
        semantics: what the scores mean.
    """

    name: str
    render: Callable[[Trajectory, Tokenizer], Rendered]
    read: Callable[[Sequence[float], Sequence[float], Rendered], list[float]]
    semantics: Semantics
