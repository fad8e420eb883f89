"""Responses as tensors, in the layout of `prmkit.rl.layout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prmkit.records import StepScores
from prmkit.rl.rollouts import Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B responses of at most T tokens and S steps.

    Attributes:
        rollouts: B of them.
        mask: [B, T] their tokens.
        ends: [B, S] where their steps end.
        scored_ends: [B, S] the same of responses with scores; the others have no step there.
        scores: [B, S] of steps.
        group: [B] which problem.
        correct: [B] 1.0 for right ones; 0.0 for wrong ones, and where it is not known.
    """

    rollouts: Sequence[Rollout]
    mask: Tensor
    ends: Tensor
    scored_ends: Tensor
    scores: Tensor
    group: Tensor
    correct: Tensor

    @property
    def n_tokens(self) -> int:
        """T."""
        return int(self.mask.shape[1])

    @property
    def scored_mask(self) -> Tensor:
        """[B, T] the tokens of responses with scores."""
        return self.mask & (self.scored_ends >= 0).any(1)[:, None]


def batch_of(rollouts: Sequence[Rollout], groups: Sequence[int]) -> Batch:
    """The tensors of some responses.

    Args:
        rollouts: B, at least one.
        groups: [B] which problem.
    """
    import torch

    n_steps = max(max(len(one.ends) for one in rollouts), 1)
    n_tokens = max(max(len(one.ids) for one in rollouts), 1)
    size = len(rollouts)
    mask = torch.zeros(size, n_tokens, dtype=torch.bool)
    ends = torch.full((size, n_steps), -1, dtype=torch.long)
    scored_ends, scores = ends.clone(), torch.zeros(size, n_steps)
    for i, one in enumerate(rollouts):
        mask[i, : len(one.ids)] = True
        n = len(one.ends)
        ends[i, :n] = torch.tensor(one.ends, dtype=torch.long)
        if isinstance(one.scores, StepScores):
            scored_ends[i, :n] = ends[i, :n]
            scores[i, :n] = torch.tensor(one.scores.values)
    correct = torch.tensor([float(one.trajectory.correct is True) for one in rollouts])
    group = torch.tensor(list(groups), dtype=torch.long)
    return Batch(rollouts, mask, ends, scored_ends, scores, group, correct)
