"""Losses of reward models: pure functions of logits and targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def two_class_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over steps of the cross-entropy of a two-class head.

        L = - Σ_i [ y_i log p_i + (1 - y_i) log(1 - p_i) ],  p_i = softmax(logits_i)[1]

    A sum, so that the caller divides by the number of labelled steps of the whole batch, over
    all its parts: a mean of means would weigh short solutions more.

    Args:
        logits: [L, 2], class 1 is "right".
        targets: [L] in [0, 1]; soft labels stay soft.

    Returns:
        A scalar.

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, eq. 2, with a two-class head.
    """
    import torch.nn.functional as functional

    log_probs = functional.log_softmax(logits.float(), dim=-1)
    targets = targets.to(log_probs.dtype)
    return -(targets * log_probs[:, 1] + (1 - targets) * log_probs[:, 0]).sum()
