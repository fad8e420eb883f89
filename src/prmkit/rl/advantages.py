"""How much better each token was than what was to be expected: from rewards to advantages.

Shapes are those of `prmkit.rl.layout`; [B, T] comes out, and it is a constant: no gradient flows
into the rewards. Where there is nothing to compare with (a group of one response), or nothing
differs, the advantage is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from prmkit.aggregate import SOFTMIN_TEMPERATURE
from prmkit.errors import UnknownName
from prmkit.rl.layout import (
    above_lowest,
    group_numbers,
    sum_over_group,
    sum_over_steps,
    where_there,
    wide,
)
from prmkit.rl.returns import gae, reward_to_go, spread
from prmkit.rl.rewards import min_form

if TYPE_CHECKING:
    from torch import Tensor

Scale = Literal["group", "batch", "none"]


def _over_tokens(numbers: Tensor, mask: Tensor) -> Tensor:
    return where_there(numbers[:, None].expand(mask.shape), mask)


def _centred(numbers: Tensor, there: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers less the mean of their group, and its sample standard deviation: [B, N] and [B]."""
    numbers = above_lowest(numbers.detach(), there, group)
    count = sum_over_group(there.sum(1).to(numbers.dtype), group)
    mean = sum_over_group(numbers.sum(1), group) / count.clamp(min=1)
    centred = where_there(numbers - mean[:, None], there)
    squares = sum_over_group((centred**2).sum(1), group)
    return centred, (squares / (count - 1).clamp(min=1)).sqrt()


def _normalised(numbers: Tensor, there: Tensor, group: Tensor, scale: Scale, eps: float) -> Tensor:
    """Less the mean of the group, over the standard deviation of the group or of the batch."""
    if scale not in get_args(Scale):
        raise UnknownName("scale of advantages", scale, get_args(Scale))
    centred, spread_of_group = _centred(numbers, there, group)
    if scale == "none":
        return centred
    if scale == "group":
        return centred / (spread_of_group[:, None] + eps)
    return centred / (_centred(numbers, there, group * 0)[1][:, None] + eps)


def whiten(values: Tensor, mask: Tensor, shift: bool = True, eps: float = 1e-8) -> Tensor:
    """Of mean 0 and standard deviation 1 over all tokens that the policy wrote.

        x'_t = (x_t - mean) / (std + ε)

    Trap: it moves every token's number, those of groups that teach nothing (0 before) too;
    without `shift` only the scale changes.

    Args:
        values: [B, T].
        mask: [B, T].
        shift: subtract the mean.
        eps: ε.
    """
    import torch

    one = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
    centred, deviation = _centred(values, mask, one)
    numbers = centred if shift else where_there(values.detach(), mask)
    return numbers / (deviation[:, None] + eps)


def grpo(
    rewards: Tensor, group: Tensor, mask: Tensor, scale: Scale = "group", eps: float = 1e-6
) -> Tensor:
    """Rewards of whole responses, normalised within their group.

        A_t = (r_i - mean(r)) / (std(r) + ε)

    The standard deviation is that of a sample (n - 1), as TRL and verl have it; the paper does
    not say. Problems that are nearly always or nearly never solved weigh more by the division;
    `scale` "none" is Dr. GRPO, and "batch" takes the deviation of all rewards of the batch.

    Args:
        rewards: [B].
        group: [B].
        mask: [B, T].
        scale: what the differences are divided by.
        eps: ε.

    Raises:
        UnknownName: if there is no such scale.

    Reference: Shao et al. 2024, DeepSeekMath, arXiv:2402.03300, section 4.1.2; Liu et al. 2025,
    Dr. GRPO, arXiv:2503.20783; batch: Liu et al. 2025, arXiv:2508.08221.
    """
    there = mask.new_ones(len(rewards), 1)
    advantages = _normalised(rewards[:, None], there, group_numbers(group), scale, eps)
    return _over_tokens(advantages[:, 0], mask)


def grpo_process(
    step_rewards: Tensor,
    ends: Tensor,
    group: Tensor,
    mask: Tensor,
    scale: Scale = "group",
    eps: float = 1e-6,
) -> Tensor:
    """All step rewards of a group normalised together, and summed over this and later steps.

        r̃_k = (r_k - mean(R)) / (std(R) + ε),   A_t = Σ_{k: e_k >= t} r̃_k

    with R the rewards of all steps of all responses of the group. Where no second response of
    the group has a step, it is 0: the paper would compare a response's steps with one another.

    Trap: credit grows with the number of steps. A step that is better than the group's mean adds
    to every token before it, so that more such steps are more credit.

    Args:
        step_rewards: [B, S].
        ends: [B, S].
        group: [B].
        mask: [B, T].
        scale: as for `grpo`.
        eps: ε.

    Raises:
        UnknownName: if there is no such scale.

    Reference: Shao et al. 2024, DeepSeekMath, arXiv:2402.03300, section 4.1.3.
    """
    numbers, there = group_numbers(group), ends >= 0
    normalised = _normalised(step_rewards, there, numbers, scale, eps)
    comparable = sum_over_group(there.any(1).to(normalised.dtype), numbers) > 1
    to_go = where_there(normalised, there & comparable[:, None]).flip(1).cumsum(1).flip(1)
    return spread(to_go, ends, mask)


def _less_others(rewards: Tensor, group: Tensor) -> Tensor:
    """[B] each reward less the mean of the others of its (renumbered) group."""
    import torch

    there = torch.ones_like(rewards[:, None], dtype=torch.bool)
    rewards = above_lowest(rewards.detach()[:, None], there, group)[:, 0]
    count = sum_over_group(torch.ones_like(rewards), group)
    return (count * rewards - sum_over_group(rewards, group)) / (count - 1).clamp(min=1)


def rloo(rewards: Tensor, group: Tensor, mask: Tensor) -> Tensor:
    """Each reward less the mean of the other responses of its group.

        A_t = r_i - 1/(n-1) Σ_{j≠i} r_j

    Args:
        rewards: [B].
        group: [B].
        mask: [B, T].

    Reference: Ahmadian et al. 2024, RLOO, arXiv:2402.14740.
    """
    return _over_tokens(_less_others(rewards, group_numbers(group)), mask)


def rloo_process(
    token_rewards: Tensor, group: Tensor, mask: Tensor, gamma: float | Tensor = 1.0
) -> Tensor:
    """Token rewards less what a token of the other responses earns, summed over later tokens.

        A_t = Σ_{s >= t} γ^{s-t} [ r_s - b_i ],   b_i = 1/(n-1) Σ_{j≠i} 1/|y_j| Σ_s r_s^j

    The baseline is a mean over tokens of each other response, as in the public code; the paper
    writes r(y_j) for it. The public code also takes (r_s - mean of the own response) / (n-1) into
    the bracket. Responses without tokens are no others; without any other it is 0.

    Args:
        token_rewards: [B, T].
        group: [B].
        mask: [B, T].
        gamma: γ, see `returns.reward_to_go`.

    Reference: Cui et al. 2025, PRIME, arXiv:2502.01456, eq. 5, first term.
    """
    numbers = group_numbers(group)
    rewards = above_lowest(token_rewards.detach(), mask, numbers)
    mean = rewards.sum(1) / mask.sum(1).clamp(min=1)
    some = mask.any(1).to(mean.dtype)
    others = sum_over_group(some, numbers) - some
    baseline = (sum_over_group(mean, numbers) - mean) / others.clamp(min=1)
    advantages = reward_to_go(rewards - baseline[:, None], mask, gamma)
    return where_there(advantages, mask & (others > 0)[:, None])


def prime(
    token_rewards: Tensor,
    correct: Tensor,
    group: Tensor,
    mask: Tensor,
    gamma: float | Tensor = 1.0,
    process: float = 1.0,
    outcome: float = 1.0,
    scaled: bool = True,
) -> Tensor:
    """Implicit process rewards and outcomes, each with its own baseline, added up.

        A_t = w_p Σ_{s >= t} γ^{s-t} [ r_s - mean over tokens of the others ]
              + w_o ( c_i - mean of c of the others )

    `scaled` divides the token rewards by the largest |Σ_{s >= t} r_s| of the batch before, as
    the public code does by default: β then cancels. Neither weight does anything for this
    estimator in the first public code; here both do. That code whitens the sum: see `whiten`.

    Args:
        token_rewards: [B, T] as `rewards.implicit_tokens` gives them.
        correct: [B] bool, or any reward of whole responses.
        group: [B].
        mask: [B, T].
        gamma: γ of the process rewards, see `returns.reward_to_go`; the outcome is not discounted.
        process: w_p.
        outcome: w_o.
        scaled: see above.

    Reference: Cui et al. 2025, PRIME, arXiv:2502.01456, eq. 5.
    """
    token_rewards = where_there(token_rewards.detach(), mask)
    if scaled and token_rewards.numel():
        largest = reward_to_go(token_rewards, mask).abs().max()
        token_rewards = token_rewards / largest.where(largest > 0, 1.0)
    steps = rloo_process(token_rewards, group, mask, gamma)
    return process * steps + outcome * rloo(wide(correct), group, mask)


def pure(
    scores: Tensor,
    ends: Tensor,
    group: Tensor,
    mask: Tensor,
    temperature: float = SOFTMIN_TEMPERATURE,
    correct: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Min-form rewards less what as many tokens of the other responses earn.

        A_t = Σ_{k: e_k >= t} [ r_k - b_i n_k ] + λ ( c_i - mean of c of the others )
        r = min_form(s),   b_i = Σ_{j≠i} Σ_k r_k^j / Σ_{j≠i} |y_j|

    with n_k the tokens of step k. Since the baseline counts tokens, neither more steps nor fewer
    pay; the same baseline by steps taught models to write one step only. Even equal scores have
    advantages, since lengths differ. The public code leaves the separator out of n_k and whitens
    the result (`whiten`). Where no other response of the group has a token, the first term is 0.

    Args:
        scores: [B, S].
        ends: [B, S].
        group: [B].
        mask: [B, T].
        temperature: see `rewards.min_form`.
        correct: [B] verifiable outcomes; None without.
        weight: λ.

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275; the baseline by tokens is that of the
    public code.
    """
    numbers = group_numbers(group)
    rewards = min_form(scores.detach(), ends, temperature)
    total, tokens = rewards.sum(1), mask.sum(1).to(rewards.dtype)
    other_tokens = sum_over_group(tokens, numbers) - tokens
    baseline = (sum_over_group(total, numbers) - total) / other_tokens.clamp(min=1)
    of_step = sum_over_steps(mask, mask, ends)
    earned = where_there(rewards - baseline[:, None] * of_step, ends >= 0)
    advantages = spread(earned.flip(1).cumsum(1).flip(1), ends, mask)
    advantages = where_there(advantages, mask & (other_tokens > 0)[:, None])
    if correct is None:
        return advantages
    return advantages + weight * rloo(wide(correct), group, mask)


def papo(
    correct: Tensor,
    process: Tensor,
    group: Tensor,
    mask: Tensor,
    weight: float = 1.0,
    eps: float = 1e-6,
) -> Tensor:
    """Outcomes normalised among all responses, process scores among the right ones alone.

        A_t = (c_i - mean(c)) / (std(c) + ε) + λ A_proc
        A_proc = (p_i - mean_C(p)) / (std_C(p) + ε) for i in C, the right ones; else 0

    Wrong solutions cannot be praised for their steps, and a group that is all right still
    teaches. The abstract says what is normalised among which; λ and ε are ours.

    Args:
        correct: [B] bool.
        process: [B] one process score for each response, such as the mean of its steps.
        group: [B].
        mask: [B, T].
        weight: λ.
        eps: ε.

    Reference: Tan et al. 2026, PAPO, arXiv:2603.26535.
    """
    right = correct.bool()[:, None]
    among_right = _normalised(process[:, None], right, group_numbers(group), "group", eps)[:, 0]
    return grpo(wide(correct), group, mask, "group", eps) + weight * _over_tokens(among_right, mask)


def reinforce(
    rewards: Tensor, mask: Tensor, gamma: float | Tensor = 1.0, baseline: Tensor | float = 0.0
) -> Tensor:
    """Returns less a baseline: A_t = Σ_{s >= t} γ^{s-t} R_s - b.

    Args:
        rewards: [B, T].
        mask: [B, T].
        gamma: γ, see `returns.reward_to_go`.
        baseline: b, one number, [B] or [B, T]; it must not depend on what the response did.

    Reference: Williams 1992.
    """
    import torch

    returns = reward_to_go(rewards.detach(), mask, gamma)
    less = torch.as_tensor(baseline, dtype=returns.dtype, device=returns.device).detach()
    if less.dim() == 1:
        less = less[:, None]
    return where_there(returns - less, mask)


def reinforce_plus_plus(
    rewards: Tensor, mask: Tensor, gamma: float | Tensor = 1.0, eps: float = 1e-8
) -> Tensor:
    """Returns, whitened over all tokens of the batch; step rewards keep their places.

    The paper's KL penalty of each token is part of the rewards that are given.

    Args:
        rewards: [B, T].
        mask: [B, T].
        gamma: γ, see `returns.reward_to_go`.
        eps: see `whiten`.

    Reference: Hu et al. 2025, REINFORCE++, arXiv:2501.03262.
    """
    return whiten(reward_to_go(rewards.detach(), mask, gamma), mask, eps=eps)


def ppo(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
    eps: float = 1e-8,
) -> Tensor:
    """Generalised advantage estimates, whitened; the values' targets are those of `returns.gae`.

    Args:
        rewards: [B, T].
        values: [B, T].
        mask: [B, T].
        gamma: γ.
        lam: λ.
        eps: see `whiten`.

    Reference: Schulman et al. 2017, PPO, arXiv:1707.06347; with step rewards Wang et al. 2023,
    Math-Shepherd, arXiv:2312.08935.
    """
    return whiten(gae(rewards.detach(), values.detach(), mask, gamma, lam)[0], mask, eps=eps)
