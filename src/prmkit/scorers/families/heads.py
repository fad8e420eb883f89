"""Which head a family reads: data; `prmkit.scorers.backends.hf` loads it from published weights.

A head turns a hidden state into K numbers. Only the rows that are needed are loaded, and they
are applied at the steps' positions alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenRows:
    """Rows of the language model's output matrix: the logits of a few tokens.

    Attributes:
        tokens: their texts, each one token of the vocabulary; K of them.
    """

    tokens: tuple[str, ...]


@dataclass(frozen=True)
class TokenShare:
    """The log-probability of one token among the whole vocabulary; K = 1.

    Attributes:
        token: its text.
    """

    token: str


@dataclass(frozen=True)
class MeanRow:
    """The mean of all rows of the output matrix; K = 1."""


@dataclass(frozen=True)
class Linear:
    """One linear layer.

    Attributes:
        n_outputs: K.
        keys: names under which published weights have the layer, the first that is there counts;
            ``.weight`` and, where there is one, ``.bias`` follow.
    """

    n_outputs: int
    keys: tuple[str, ...] = ("score",)


@dataclass(frozen=True)
class TwoLayers:
    """Linear, ReLU, linear.

    Attributes:
        n_outputs: K.
        first: name of the first layer.
        second: name of the second.
    """

    n_outputs: int
    first: str = "score.0"
    second: str = "score.2"


@dataclass(frozen=True)
class StackedHeads:
    """M heads of three layers with ReLU between them, one output each; K = M.

    Weights are stacked: [M, inputs, outputs], biases [M, outputs].

    Attributes:
        layers: names of the three layers.
    """

    layers: tuple[str, str, str] = ("score.model.nn1", "score.model.nn2", "score.model.nn_out")


Head = TokenRows | TokenShare | MeanRow | Linear | TwoLayers | StackedHeads


def n_numbers(head: Head) -> int | None:
    """K, where the head itself says so."""
    if isinstance(head, TokenRows):
        return len(head.tokens)
    if isinstance(head, Linear | TwoLayers):
        return head.n_outputs
    return None if isinstance(head, StackedHeads) else 1
