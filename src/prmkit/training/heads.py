"""Objectives of models that are read by a head at given positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import start_causal_lm, start_token_classifier
from prmkit.training import losses
from prmkit.training.episodes import PromiseSettings
from prmkit.training.log_probs import logits_of
from prmkit.training.losses import LossName, pairs_of
from prmkit.training.objective import NothingMore
from prmkit.training.parts import Part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HeadObjective(NothingMore):
    """A loss of the numbers that a head gives.

    Attributes:
        loss: which.
        right: of a head of two numbers, the one that means "right"; None of other heads.
        tokens: ids of the rows of the output matrix that are read, of heads of tokens.
        n_outputs: K, numbers that the head gives.
        margin: of the ranking loss.
        promises: how promises of agents' turns are learnt.
    """

    loss: LossName
    right: int | None
    tokens: tuple[int, ...]
    n_outputs: int
    margin: float = 4.0
    promises: PromiseSettings = field(default_factory=PromiseSettings)

    @property
    def together(self) -> bool:
        """See `Objective`: pairs are of alternatives of one problem, as are next turns."""
        return self.loss in ("pairwise", "inverse")

    @property
    def n_classes(self) -> int | None:
        """See `Objective`."""
        return None if self.tokens else self.n_outputs

    def start(self, base: Path) -> Any:
        """See `Objective`."""
        return (
            start_causal_lm(base) if self.tokens else start_token_classifier(base, self.n_outputs)
        )

    def head(self, model: Any) -> Any:
        """See `Objective`."""
        return model.get_output_embeddings() if self.tokens else model.score

    def items(self, examples: Sequence[Example]) -> float:
        """See `Objective`: labels by their weights, of the ranking loss solutions, or pairs."""
        if self.loss == "pairwise":
            return _n_pairs(examples)
        if self.loss == "ranking":
            return sum(any(target > 0 for target in e.targets) for e in examples)
        return sum(weight for e in examples for weight in e.weights)

    def numbers(self, model: Any, rows: Tensor) -> Tensor:
        """[L, K] what the head gives for [L, H] hidden states."""
        # Of the output matrix, the rows that are read and no others.
        found: Tensor = logits_of(model, rows, self.tokens) if self.tokens else model.score(rows)
        return found

    def __call__(self, model: Any, rows: Tensor, part: Part) -> Tensor:
        """See `Objective`."""
        numbers = self.numbers(model, rows)
        there = numbers.device
        if self.loss == "inverse":
            return self._of_changes(numbers[:, 0], part)
        return self.of_numbers(
            numbers,
            part.targets.to(there),
            part.weights.to(there),
            part.owner.to(there),
            part.prefix.to(there),
        )

    def of_numbers(
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
            if self.promises.temporal:
                own = torch.sigmoid(numbers[:, 0])
                how = self.promises
                targets = losses.temporal_targets(own, targets, owner, how.gamma, how.lam)
            if self.loss == "progress":
                before = torch.arange(len(owner), device=owner.device) - 1
                same = owner == owner.roll(1)
                follows = torch.where(same & (before >= 0), before, -1)
                return losses.promise_progress(
                    torch.sigmoid(numbers[:, 0]), targets, follows, weights
                )
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

    def _of_changes(self, values: Tensor, part: Part) -> Tensor:
        """The loss of [L] values by what each turn changed, see `losses.inverse_reward`."""
        there = values.device
        owner, turn = part.owner.to(there), part.turn.to(there)
        # The mean value at each turn of each episode; 0 behind the last one.
        width = int(turn.max()) + 2
        shared = part.share.to(values) * values
        means = values.new_zeros(len(part.problem) * width).index_add(
            0, owner * width + turn, shared
        )
        following = means[owner * width + turn + 1]
        return losses.inverse_reward(
            values, following, part.targets.to(there), part.weights.to(there), self.promises.gamma
        )

    def note(self, base: str) -> dict[str, Any]:
        """See `Objective`: what targets were made of, where that is not labels."""
        del base
        how = self.promises
        if how.temporal:
            return {"targets": how.targets, "gamma": how.gamma, "lam": how.lam}
        return {"gamma": how.gamma} if self.loss == "inverse" else {}


def _n_pairs(examples: Sequence[Example]) -> float:
    """Pairs of a better and a worse step after the same prefix."""
    values: dict[tuple[int, ...], list[float]] = {}
    for e in examples:
        for start, target in zip(e.starts, e.targets, strict=True):
            values.setdefault(tuple(e.ids[:start]), []).append(target)
    return sum(a > b for group in values.values() for a in group for b in group)
