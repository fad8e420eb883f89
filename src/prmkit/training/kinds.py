"""What can be trained: which head reads a step, which labels it learns from, by which loss.

A family says how a model reads and what its numbers mean; a kind, how such a model is trained. The
two meet in the head: the class that means "right" is found by asking the family's own `read`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prmkit.chat import Tokenizer, single_token
from prmkit.errors import InvalidSetting
from prmkit.scorers.families.base import Discriminative
from prmkit.scorers.families.heads import Linear, TokenRows
from prmkit.training import losses

if TYPE_CHECKING:
    from torch import Tensor

KindName = Literal["step", "value", "tokens", "classes", "rank", "pairs", "outcome"]
LossName = Literal["cross_entropy", "squared_error", "ranking", "pairwise"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Attributes:
        about: what it is, in a line.
        family: how it reads, where nothing else is said.
        losses: that it may be trained with, the default first.
        labels: shares in [0, 1], or ratings -1, 0, 1.
        last_only: whether it learns from the last labelled step alone.
    """

    about: str
    family: str
    losses: tuple[LossName, ...]
    labels: Literal["shares", "ratings"] = "shares"
    last_only: bool = False


KINDS: dict[KindName, Kind] = {
    "step": Kind(
        about="two classes at step ends, wrong and right",
        family="step_end",
        losses=("cross_entropy", "squared_error"),
    ),
    "value": Kind(
        about="one number at step ends, whose sigmoid is the chance to be right",
        family="step_value",
        losses=("cross_entropy", "squared_error"),
    ),
    "tokens": Kind(
        about="a language model that says one of two tokens at step ends, as Math-Shepherd's",
        family="math_shepherd",
        losses=("cross_entropy",),
    ),
    "classes": Kind(
        about="three classes at step ends, of human ratings -1, 0, 1",
        family="step_classes",
        losses=("cross_entropy",),
        labels="ratings",
    ),
    "rank": Kind(
        about="values whose order counts: right steps rise, wrong ones lie below (PQM)",
        family="step_rank",
        losses=("ranking",),
    ),
    "pairs": Kind(
        about="values of alternatives after the same prefix, the better one higher",
        family="step_rank",
        losses=("pairwise",),
    ),
    "outcome": Kind(
        about="an outcome reward model: one number behind the whole solution",
        family="outcome_probability",
        losses=("cross_entropy", "squared_error"),
        last_only=True,
    ),
}


@dataclass(frozen=True)
class Objective:
    """A loss with the head that it is for.

    Attributes:
        loss: which.
        right: of a head of two numbers, the one that means "right"; None of other heads.
        tokens: ids of the rows of the output matrix that are read, of heads of tokens.
        n_outputs: K, numbers that the head gives.
        margin: of the ranking loss.
    """

    loss: LossName
    right: int | None
    tokens: tuple[int, ...]
    n_outputs: int
    margin: float = 4.0

    def items(self, targets: list[float], weights: list[float]) -> float:
        """What an example's labels count for in the mean: their weights, or 1 of a solution."""
        if self.loss == "ranking":
            return float(any(target > 0 for target in targets))
        return sum(weights)

    def __call__(
        self, numbers: Tensor, targets: Tensor, weights: Tensor, owner: Tensor, prefix: Tensor
    ) -> Tensor:
        """The sum of the loss over its items.

        Args:
            numbers: [L, K] that the head gives.
            targets: [L].
            weights: [L].
            owner: [L] of which solution each is.
            prefix: [L] steps with the same number follow the same prefix.
        """
        import torch

        if self.loss == "ranking":
            return losses.ranking(numbers[:, 0], targets > 0, owner, self.margin)
        if self.loss == "pairwise":
            better, worse = pairs_of(targets, prefix)
            return losses.pairwise(numbers[better, 0], numbers[worse, 0])
        if self.n_outputs == 1:
            if self.loss == "squared_error":
                chance = torch.sigmoid(numbers[:, 0])
                return losses.squared_error(chance, targets, weights)
            return losses.binary_cross_entropy(numbers[:, 0], targets, weights)
        if self.n_outputs == 3:
            classes = torch.nn.functional.one_hot((targets + 1).long(), 3).to(weights.dtype)
            return losses.cross_entropy(numbers, classes, weights)
        assert self.right is not None
        if self.loss == "squared_error":
            chance = torch.softmax(numbers, dim=-1)[:, self.right]
            return losses.squared_error(chance, targets, weights)
        shares = torch.stack([1 - targets, targets], dim=-1)
        return losses.cross_entropy(
            numbers, shares if self.right == 1 else shares.flip(-1), weights
        )


def pairs_of(targets: Any, prefix: Any) -> tuple[list[int], list[int]]:
    """Of steps that follow the same prefix, all pairs of a better and a worse one."""
    groups: dict[int, list[int]] = {}
    for i, p in enumerate(prefix.tolist()):
        groups.setdefault(p, []).append(i)
    values = targets.tolist()
    found = [
        (i, j) for group in groups.values() for i in group for j in group if values[i] > values[j]
    ]
    return [i for i, _ in found], [j for _, j in found]


def objective(
    kind: KindName, family: Discriminative, tokenizer: Tokenizer, loss: LossName | None = None
) -> Objective:
    """How a family is trained.

    Args:
        kind: what is trained.
        family: how it reads.
        tokenizer: the model's, with the tokens that the head reads.
        loss: by default the kind's own.

    Raises:
        InvalidSetting: if the kind has no such loss, or the family another head.
        CheckpointError: if the tokenizer lacks a token that is read.
    """
    known = KINDS[kind]
    loss = loss or known.losses[0]
    if loss not in known.losses:
        raise InvalidSetting(
            f"the kind {kind} is not trained by {loss}; it takes {', '.join(known.losses)}"
        )
    head = family.head
    tokens: tuple[int, ...] = ()
    if isinstance(head, TokenRows):
        tokens = tuple(single_token(tokenizer, text) for text in head.tokens)
        n_outputs = len(tokens)
    elif isinstance(head, Linear) and "score" in head.keys:
        n_outputs = head.n_outputs
    else:
        raise InvalidSetting(
            f"the family {family.name} is read and not trained: its head is not one that "
            "transformers' classes have. Models of prmkit's own families can be converted "
            "(prm convert-model)"
        )
    fits = {
        "step": n_outputs == 2 and not tokens,
        "tokens": bool(tokens) and n_outputs == 2,
        "classes": n_outputs == 3,
        "outcome": n_outputs == 1 and family.end is not None,
    }.get(kind, n_outputs == 1 and family.end is None)
    if not fits:
        raise InvalidSetting(
            f"the family {family.name} reads {n_outputs} numbers"
            f"{' of tokens' if tokens else ''}{' behind an end' if family.end else ''}; that is "
            f"not the kind {kind} ({known.about})"
        )
    right = None
    if n_outputs == 2:
        (first,), (second,) = family.read([[9.0, 0.0]]), family.read([[0.0, 9.0]])
        right = int(second > first)
    return Objective(loss, right, tokens, n_outputs)
