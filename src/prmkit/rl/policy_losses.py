"""Losses of policies and of their values: from advantages to gradients.

Shapes are those of `prmkit.rl.layout`; log-probabilities are those of the tokens that were drawn,
[B, T]. Losses are scalars to be minimised. Where a batch is taken in parts, name the number of
the whole (`n_tokens`, `n_pairs`), and the losses of the parts add up to that of the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from prmkit.errors import UnknownName
from prmkit.rl.layout import where_there, wide
from prmkit.training.losses import direct_preference

if TYPE_CHECKING:
    from torch import Tensor

Average = Literal["token", "response", "max_tokens"]
KlKind = Literal["k1", "k2", "k3"]

LARGEST_LOG_RATIO = 20.0
"""Beyond it a ratio of probabilities is held: e^20 times an advantage teaches nothing, and
infinity times none is NaN."""


def average_of(
    losses: Tensor, mask: Tensor, average: Average = "token", n_tokens: int | Tensor | None = None
) -> Tensor:
    """One number of the losses of tokens.

        token:       Σ_i Σ_t l / Σ_i |y_i|
        response:    1/B' Σ_i 1/|y_i| Σ_t l     over the B' responses that have a token
        max_tokens:  1/(B n) Σ_i Σ_t l

    A mean over responses (GRPO) weighs a token of a long response less, so that wrong answers
    are taught to be long; a mean over tokens (DAPO) does not, and a constant (Dr. GRPO) makes
    it a sum. Without any token it is 0.

    Args:
        losses: [B, T].
        mask: [B, T].
        average: which.
        n_tokens: for `token` the tokens of the whole batch, where this is a part of it; for
            `max_tokens` n, the longest that a response may be.

    Raises:
        UnknownName: if there is no such average.
        ValueError: if `max_tokens` has no `n_tokens`, or `response` has them.

    Reference: Shao et al. 2024, arXiv:2402.03300, eq. 3 (response); Yu et al. 2025, DAPO,
    arXiv:2503.14476 (token); Liu et al. 2025, Dr. GRPO, arXiv:2503.20783 (max_tokens).
    """
    import torch

    losses = where_there(losses, mask)
    if average == "token":
        whole = mask.sum() if n_tokens is None else torch.as_tensor(n_tokens)
        return losses.sum() / whole.clamp(min=1)
    if average == "response":
        if n_tokens is not None:
            raise ValueError(
                f"n_tokens is {n_tokens!r}, and a mean over responses needs none; leave it out"
            )
        lengths = mask.sum(1)
        return (losses.sum(1) / lengths.clamp(min=1)).sum() / (lengths > 0).sum().clamp(min=1)
    if average == "max_tokens":
        if n_tokens is None:
            raise ValueError(
                "the average 'max_tokens' needs n_tokens, the longest that a response may be"
            )
        return losses.sum() / (max(1, len(losses)) * n_tokens)
    raise UnknownName("average of losses", average, get_args(Average))


def clipped(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
    average: Average = "token",
    n_tokens: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate: a token moves no further once its ratio has left the range.

        l_t = - min( ρ_t A_t, clip(ρ_t, 1 - low, 1 + high) A_t ),   ρ_t = π(y_t) / π_old(y_t)
        dual: l_t = min( l_t, - dual · A_t ) where A_t < 0

    With high > low unlikely tokens have more room to rise (DAPO). Without the dual bound a bad
    token's loss grows with its ratio without end. Log-ratios are held at ±20.

    Args:
        log_probs: [B, T] under the policy that learns.
        old: [B, T] under the policy that wrote; a constant.
        advantages: [B, T]; a constant.
        mask: [B, T].
        low: how far a ratio may fall below 1.
        high: how far it may rise above 1.
        dual: the bound, above 1; None without.
        average: see `average_of`.
        n_tokens: see `average_of`.

    Returns:
        The loss, and the share of the policy's tokens that one of the bounds stopped (a constant).

    Raises:
        ValueError: if the dual bound is not above 1.

    Reference: Schulman et al. 2017, PPO, arXiv:1707.06347, eq. 7; dual: Ye et al. 2019,
    arXiv:1912.09729; two ranges: Yu et al. 2025, DAPO, arXiv:2503.14476.
    """
    import torch

    if dual is not None and not dual > 1:
        raise ValueError(f"dual is {dual!r}; a bound on the ratio of bad tokens is above 1")
    log_ratios = where_there(log_probs, mask) - where_there(old.detach(), mask)
    ratios = log_ratios.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    gains = where_there(advantages.detach(), mask)
    free, held = -gains * ratios, -gains * ratios.clamp(1 - low, 1 + high)
    losses, stopped = torch.maximum(free, held), held > free
    if dual is not None:
        bound = -dual * gains
        over = (gains < 0) & (losses > bound)
        losses, stopped = torch.where(over, bound, losses), stopped | over
    share = (stopped & mask).sum() / mask.sum().clamp(min=1)
    return average_of(losses, mask, average, n_tokens), share.detach()


def reinforce(
    log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    average: Average = "token",
    n_tokens: int | Tensor | None = None,
) -> Tensor:
    """The plain policy gradient: l_t = - A_t log π(y_t), for samples of the policy itself.

    Args:
        log_probs: [B, T].
        advantages: [B, T]; a constant.
        mask: [B, T].
        average: see `average_of`.
        n_tokens: see `average_of`.

    Reference: Williams 1992.
    """
    losses = -where_there(advantages.detach(), mask) * where_there(log_probs, mask)
    return average_of(losses, mask, average, n_tokens)


def kl(log_probs: Tensor, reference: Tensor, kind: KlKind = "k3") -> Tensor:
    """Estimates of KL(π ‖ π_ref) at single tokens that π drew.

        d = log π_ref - log π:   k1 = -d,   k2 = d²/2,   k3 = e^d - 1 - d

    k1 and k3 have the divergence as their mean, k2 has not; k1 may be below 0, k3 never is. As
    a loss the gradients differ from what the values say: in the mean that of k2 is the
    divergence's, that of k1 is 0 (use k1 as a reward, not as a loss), and that of k3 is
    KL(π_ref ‖ π)'s. d is held at 20 in k3.

    Args:
        log_probs: [B, T], or any shape.
        reference: the same shape.
        kind: which.

    Returns:
        The same shape.

    Raises:
        UnknownName: if there is no such kind.

    Reference: Schulman 2020, "Approximating KL divergence"; k3 in a loss: Shao et al. 2024,
    arXiv:2402.03300, eq. 4.
    """
    difference = wide(reference) - wide(log_probs)
    if kind == "k1":
        return -difference
    if kind == "k2":
        return difference**2 / 2
    if kind == "k3":
        return difference.clamp(max=LARGEST_LOG_RATIO).expm1() - difference
    raise UnknownName("estimate of the KL divergence", kind, get_args(KlKind))


def value_loss(
    values: Tensor,
    old: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None = 0.2,
    n_tokens: int | Tensor | None = None,
) -> Tensor:
    """Half the squared error of values, which may not gain by moving far from the old ones.

        l_t = 1/2 max( (V_t - G_t)², (V_old + clip(V_t - V_old, ±c) - G_t)² )

    Args:
        values: [B, T].
        old: [B, T] as they were when the responses were written; a constant.
        returns: [B, T] as `returns.gae` gives them; a constant.
        mask: [B, T].
        clip: c; None without.
        n_tokens: the tokens of the whole batch, where this is a part of it.

    Reference: the public code of PPO, arXiv:1707.06347; the paper's eq. 9 has no clip.
    """
    import torch

    values, targets = where_there(values, mask), where_there(returns.detach(), mask)
    losses = (values - targets) ** 2
    if clip is not None:
        before = where_there(old.detach(), mask)
        near = before + (values - before).clamp(-clip, clip)
        losses = torch.maximum(losses, (near - targets) ** 2)
    return average_of(losses / 2, mask, "token", n_tokens)


def _entropy(logits: Tensor) -> Tensor:
    log_probs = wide(logits).log_softmax(-1)
    # A logit of -inf has no part: 0 · -inf would be NaN.
    finite = log_probs.clamp(min=-1e30)
    return -(finite.exp() * finite).sum(-1)


def entropy(logits: Tensor, chunk: int = 1024) -> Tensor:
    """The entropy of each token's distribution, in nats.

        H_t = - Σ_v p_v log p_v

    In float32 at least, but never for more than `chunk` tokens at once; with a gradient the
    chunks are computed again on the way back. Logits of -inf are words that cannot be drawn.

    Args:
        logits: [..., V], such as [B, T, V].
        chunk: tokens at once.

    Returns:
        [...].

    Raises:
        ValueError: if the chunk is below 1.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    if chunk < 1:
        raise ValueError(f"chunk is {chunk!r}; at least one token at once")
    rows = logits.reshape(-1, logits.shape[-1])
    learns = torch.is_grad_enabled() and logits.requires_grad
    parts = [
        checkpoint(_entropy, part, use_reentrant=False) if learns else _entropy(part)
        for part in torch.split(rows, chunk)
    ]
    return torch.cat(parts).reshape(logits.shape[:-1])


def _preference(
    better: Tensor,
    worse: Tensor,
    better_mask: Tensor,
    worse_mask: Tensor,
    beta: float,
    n_pairs: int | None,
) -> Tensor:
    sums = [where_there(*pair).sum(1) for pair in ((better, better_mask), (worse, worse_mask))]
    whole = len(sums[0]) if n_pairs is None else n_pairs
    return direct_preference(sums[0], sums[1], beta) / max(1, whole)


def step_dpo(
    better: Tensor,
    worse: Tensor,
    better_mask: Tensor,
    worse_mask: Tensor,
    beta: float = 0.1,
    n_pairs: int | None = None,
) -> Tensor:
    """The better of two next steps after one prefix is preferred.

        L = - mean log σ( β [ Σ_{t in s_win} log π/π_ref - Σ_{t in s_lose} log π/π_ref ] )

    The masks say which tokens are the step's own. Tokens of the common prefix would cancel but
    for rounding, and those after the step are another matter: they are not part of it.

    Args:
        better: [P, T] log-ratios of policy and reference.
        worse: [P, T'].
        better_mask: [P, T] tokens of the better step.
        worse_mask: [P, T'] tokens of the worse step.
        beta: β.
        n_pairs: pairs of the whole batch, where this is a part of it.

    Reference: Lai et al. 2024, Step-DPO, arXiv:2406.18629, eq. 2.
    """
    return _preference(better, worse, better_mask, worse_mask, beta, n_pairs)


def trajectory_dpo(
    better: Tensor,
    worse: Tensor,
    better_mask: Tensor,
    worse_mask: Tensor,
    beta: float = 0.1,
    n_pairs: int | None = None,
    per_token: bool = False,
) -> Tensor:
    """The better of two whole trajectories is preferred.

        L = - mean log σ( β [ Σ_t log π/π_ref of the better - the same of the worse ] )

    over the tokens that the policy wrote: what an environment answered is no choice of its own.

    Args:
        better: [P, T] log-ratios of policy and reference.
        worse: [P, T'].
        better_mask: [P, T] tokens that the policy wrote.
        worse_mask: [P, T'] the same.
        beta: β.
        n_pairs: pairs of the whole batch, where this is a part of it.
        per_token: means over tokens for the sums, so that length is not preferred by itself; β
            is larger then.

    Reference: Rafailov et al. 2023, DPO, arXiv:2305.18290, eq. 7; of agents' trajectories
    arXiv:2509.19199.
    """
    if per_token:
        better = wide(better) / better_mask.sum(1, keepdim=True).clamp(min=1)
        worse = wide(worse) / worse_mask.sum(1, keepdim=True).clamp(min=1)
    return _preference(better, worse, better_mask, worse_mask, beta, n_pairs)
