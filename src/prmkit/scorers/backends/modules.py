"""Heads that are more than layers in a row. Imports torch: import it where a model is loaded."""

from __future__ import annotations

import torch
from torch import nn


class Share(nn.Module):
    """[N, H] hidden states to [N, 1]: the log-probability of one token of the vocabulary.

    Args:
        weight: [V, H] output matrix.
        token: which row is meant.
    """

    def __init__(self, weight: torch.Tensor, token: int):
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.token = token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        logits = hidden @ self.get_buffer("weight").T
        return logits[:, self.token, None] - logits.logsumexp(dim=1, keepdim=True)


class Ensemble(nn.Module):
    """[N, H] hidden states to [N, M·K]: the numbers of M heads after each other."""

    def __init__(self, heads: list[nn.Module]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return torch.cat([head(hidden) for head in self.heads], dim=1)
