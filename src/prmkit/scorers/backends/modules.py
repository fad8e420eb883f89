"""Heads that are more than layers in a row. Imports torch: import it where a model is loaded."""

from __future__ import annotations

import torch
from torch import nn


class Logits(nn.Module):
    """[N, H] hidden states to [N, V] logits of a language model, in float32.

    Args:
        weight: [V, H] output matrix, or some rows of it.
        bias: [V], where the model has one.
        factor: what its logits are multiplied by.
        cap: where its logits are capped by cap · tanh(logit / cap).
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        factor: float = 1.0,
        cap: float | None = None,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.factor, self.cap = factor, cap

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        weight = self.get_buffer("weight")
        logits = (hidden.to(device=weight.device, dtype=weight.dtype) @ weight.T).float()
        if self.bias is not None:
            logits = logits + self.get_buffer("bias")
        if self.factor != 1:
            logits = logits * self.factor
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


class Share(nn.Module):
    """[N, H] hidden states to [N, 1]: the log-probability of one token of the vocabulary.

    Args:
        logits: of the whole vocabulary.
        token: which of them is meant.
    """

    def __init__(self, logits: Logits, token: int):
        super().__init__()
        self.logits, self.token = logits, token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        logits: torch.Tensor = self.logits(hidden)
        return logits[:, self.token, None] - logits.logsumexp(dim=1, keepdim=True)


class Stacked(nn.Module):
    """[N, H] hidden states to [N, M]: one number of each of M small networks.

    Args:
        layers: weight [M, inputs, outputs] and bias [M, outputs] of each layer; ReLU between.
    """

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]):
        super().__init__()
        self.depth = len(layers)
        for number, (weight, bias) in enumerate(layers):
            self.register_buffer(f"weight{number}", weight.float())
            self.register_buffer(f"bias{number}", bias.float())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        n_heads = self.get_buffer("weight0").shape[0]
        x = hidden[None].expand(n_heads, -1, -1)
        for number in range(self.depth):
            x = x.relu() if number else x
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = torch.baddbmm(bias[:, None], x, weight)
        return x.squeeze(2).T
