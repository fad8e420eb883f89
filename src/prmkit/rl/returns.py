"""What follows after each token or step: from rewards to returns.

Shapes are those of `prmkit.rl.layout`. A step of time is a token that the policy wrote: tokens
that it did not write are passed over, and discount nothing. With `discounts` and `gae_by_steps` it
is a whole step instead, such as a turn of an agent. All are differentiable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prmkit.rl.layout import from_the_end, step_of, sum_over_steps, where_there

if TYPE_CHECKING:
    from torch import Tensor


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float | Tensor = 1.0) -> Tensor:
    """The discounted sum of this reward and all later ones.

        G_t = R_t + γ G_{t+1}

    Args:
        rewards: [B, T].
        mask: [B, T].
        gamma: γ; or [B, T], what it is from each token to the next, see `discounts`.

    Returns:
        [B, T].

    Reference: Sutton and Barto 2018, eq. 3.9.
    """
    import torch

    rewards = where_there(rewards, mask)
    decay = torch.ones_like(rewards)
    if isinstance(gamma, torch.Tensor):
        decay = gamma.to(rewards).where(mask, decay)
    else:
        decay = decay.masked_fill(mask, gamma)
    return where_there(from_the_end(rewards, decay), mask)


def min_to_go(scores: Tensor, ends: Tensor) -> Tensor:
    """The lowest score of this step and all later ones: the strict min-form return.

        G_k = min_{j >= k} s_j

    Never outside of the range of the scores, whatever the number of steps. It is a minimum over
    steps: over tokens, of which most have no score, it would be at most 0.

    Args:
        scores: [B, S].
        ends: [B, S].

    Returns:
        [B, S].

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275, the min-form return.
    """
    import torch

    there = ends >= 0
    scores = where_there(scores, there)
    if not scores.numel():
        return scores
    ahead = scores.masked_fill(~there, torch.inf).flip(1).cummin(1).values.flip(1)
    return where_there(ahead, there)


def spread(steps: Tensor, ends: Tensor, mask: Tensor) -> Tensor:
    """Each token gets the number of its step; tokens after the last end get 0.

    The number of a step without tokens of its own reaches none.

    Args:
        steps: [B, S].
        ends: [B, S].
        mask: [B, T].

    Returns:
        [B, T].
    """
    import torch.nn.functional as functional

    numbers = functional.pad(where_there(steps, ends >= 0), (0, 1))
    return where_there(numbers.gather(1, step_of(ends, mask.shape[1])), mask)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates, and the returns that the values should have been.

        δ_t = R_t + γ V_{t+1} - V_t
        A_t = δ_t + γ λ A_{t+1}
        returns_t = A_t + V_t

    The value after the last token is 0: a response ends there. Where tokens that the policy did
    not write lie between, the next value is that of the next token that it wrote.

    Args:
        rewards: [B, T].
        values: [B, T], of the state in which each token was chosen.
        mask: [B, T].
        gamma: γ.
        lam: λ; 1 gives the returns less the values, 0 one step of time.

    Returns:
        [B, T] advantages, not whitened, and [B, T] returns.

    Reference: Schulman et al. 2015, arXiv:1506.02438, eq. 16.
    """
    import torch
    import torch.nn.functional as functional

    rewards, values = where_there(rewards, mask), where_there(values, mask)
    # The value of this token, or of the next one that the policy wrote.
    at_or_after = from_the_end(values, (~mask).to(values.dtype))
    following = functional.pad(at_or_after, (0, 1))[:, 1:]
    surprise = where_there(rewards + gamma * following - values, mask)
    decay = torch.ones_like(surprise).masked_fill(mask, gamma * lam)
    advantages = where_there(from_the_end(surprise, decay), mask)
    return advantages, where_there(advantages + values, mask)


def discounts(ends: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """What γ is from each token to the next where a step of time is a whole step, not a token.

    It is γ at a step's last token and 1 inside of the step. A step without tokens of its own is no
    step of time.

    Args:
        ends: [B, S].
        mask: [B, T].
        gamma: γ.

    Returns:
        [B, T], in float64.
    """
    import torch

    shape = len(ends), mask.shape[1] + 1
    found = torch.ones(shape, dtype=torch.float64, device=mask.device)
    last = _of_steps(ends, mask, "amax", -1)
    # A step without tokens, and none at all, has the place behind all.
    last = last.where((ends >= 0) & (last >= 0), mask.shape[1])
    return found.scatter(1, last, gamma)[:, :-1]


class BySteps(NamedTuple):
    """What `gae_by_steps` finds.

    Attributes:
        advantages: [B, S] of each step, not whitened; 0 of steps without tokens.
        returns: [B, S] what the value before its first token should have been; there too.
        there: [B, S] which steps have tokens.
        first: [B, S] the place of the first of them; 0 where there is none.
    """

    advantages: Tensor
    returns: Tensor
    there: Tensor
    first: Tensor


def gae_by_steps(
    rewards: Tensor,
    values: Tensor,
    ends: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> BySteps:
    """Generalised advantage estimates where a step of time is a whole step, such as a turn.

        δ_k = R_k + γ V_{k+1} - V_k
        A_k = δ_k + γ λ A_{k+1}
        returns_k = A_k + V_k

    R_k is what the tokens of step k earn. V_k is the value of the state in which the step is
    chosen, before its first token: of a turn, after all that the environment answered before. The
    value after the last step is 0. A step without tokens of its own is no step of time; what is
    earned at its end is the step's that ends there.

    Args:
        rewards: [B, T].
        values: [B, T], of the state in which each token was chosen.
        ends: [B, S].
        mask: [B, T].
        gamma: γ, a step.
        lam: λ, a step.

    Reference: Schulman et al. 2015, arXiv:1506.02438, eq. 16, with turns as steps of time.
    """
    n_tokens = mask.shape[1]
    first = _of_steps(ends, mask, "amin", n_tokens)
    there = (ends >= 0) & (first < n_tokens)
    first = first.where(there, 0)
    before = where_there(values.gather(1, first), there)
    found, goals = gae(sum_over_steps(rewards, mask, ends), before, there, gamma, lam)
    return BySteps(found, goals, there, first)


def _of_steps(ends: Tensor, mask: Tensor, which: str, none: int) -> Tensor:
    """[B, S] the least or the greatest place of a step's own tokens; `none` where it has none."""
    import torch

    n_tokens, n_steps = mask.shape[1], ends.shape[1]
    places = torch.arange(n_tokens, device=mask.device).expand(mask.shape).where(mask, none)
    # One more for the tokens behind the last step.
    found = torch.full((len(ends), n_steps + 1), none, device=mask.device)
    return found.scatter_reduce(1, step_of(ends, n_tokens), places, which)[:, :n_steps]
