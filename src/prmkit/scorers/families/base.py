"""What a family of reward models is: data and two pure functions, without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prmkit.chat import Tokenizer
from prmkit.records import Semantics, Trajectory


class Rendered(NamedTuple):
    """A trajectory as a model reads it.

    Attributes:
        ids: [T] token ids.
        positions: [S] where each step is read, known by construction: nothing searches the ids.
        starts: [S] where each step's own tokens begin.
    """

    ids: list[int]
    positions: list[int]
    starts: list[int]


class Discriminative(NamedTuple):
    """A family whose models give K numbers at one position per step.

    Attributes:
        name: how the family is called, and what a checkpoint's note names.
        render: trajectory to token ids and positions.
        read: [S, K] numbers at those positions to [S] scores.
        semantics: what the scores mean.
        n_outputs: K.
    """

    name: str
    render: Callable[[Trajectory, Tokenizer], Rendered]
    read: Callable[[Sequence[Sequence[float]]], list[float]]
    semantics: Semantics
    n_outputs: int


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
