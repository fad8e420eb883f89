"""Logits of a language model that is trained: some tokens', or the log-probability of one each.

A whole sequence times a whole vocabulary is never held: the output matrix is put on a few hundred
hidden states at a time, and once more on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prmkit.scorers.backends.weights import logit_rule

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 512
"""Tokens whose logits over the vocabulary are held at once."""


def logits_of(model: Any, rows: Tensor, tokens: Sequence[int] = ()) -> Tensor:
    """[L, V] logits of hidden states, or [L, K] of some tokens; as the scorer computes them.

    Args:
        model: a transformers model with an output matrix.
        rows: [L, H].
        tokens: the K tokens that are wanted; by default all of the vocabulary.
    """
    import torch

    layer = model.get_output_embeddings()
    is_sharded = hasattr(layer.weight, "full_tensor") or hasattr(layer, "unshard")
    if tokens and is_sharded:
        # Sharded weights are whole only while their layer is called.
        logits = layer(rows)[:, list(tokens)]
    elif tokens:
        chosen = list(tokens)
        bias = None if layer.bias is None else layer.bias[chosen]
        logits = torch.nn.functional.linear(rows, layer.weight[chosen], bias)
    else:
        logits = layer(rows)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rule = logit_rule(model.config)
    if rule.factor != 1:
        logits = logits * rule.factor
    return logits if rule.cap is None else torch.tanh(logits / rule.cap) * rule.cap


def log_probs(model: Any, rows: Tensor, following: Tensor) -> Tensor:
    """[L] the log-probability of the token that follows each of L hidden states.

    Args:
        model: a transformers model with an output matrix.
        rows: [L, H].
        following: [L] token ids.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def of_some(some: Tensor, wanted: Tensor) -> Tensor:
        logits = logits_of(model, some)
        return logits.gather(1, wanted[:, None]).squeeze(1) - logits.logsumexp(dim=1)

    pieces = zip(torch.split(rows, CHUNK), torch.split(following, CHUNK), strict=True)
    return torch.cat(
        [checkpoint(of_some, some, wanted, use_reentrant=False) for some, wanted in pieces]
    )
