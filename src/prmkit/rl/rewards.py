"""What each step earns: from scores of a process reward model, and from outcomes.

First stage of the journey from scores to gradients: rewards, returns, advantages, losses. Shapes
are those of `prmkit.rl.layout`: step numbers are [B, S], and [B, S] comes out unless it says
otherwise; 0 where there is no step. All are differentiable in scores and log-ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prmkit.aggregate import SOFTMIN_TEMPERATURE
from prmkit.rl.layout import sum_over_steps, where_there, wide

if TYPE_CHECKING:
    from torch import Tensor


def place(step_rewards: Tensor, ends: Tensor, n_tokens: int) -> Tensor:
    """Rewards at the last tokens of their steps; those of one token add up.

        R_t = Σ_{k: e_k = t} r_k

    Args:
        step_rewards: [B, S].
        ends: [B, S].
        n_tokens: T, above the largest end.

    Returns:
        [B, T].

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, step-by-step PPO.
    """
    import torch

    earned = where_there(step_rewards, ends >= 0)
    tokens = earned.new_zeros(len(ends), n_tokens + 1)
    # A column more takes what belongs to no step.
    return tokens.scatter_add(1, torch.where(ends >= 0, ends, n_tokens), earned)[:, :n_tokens]


def outcome(correct: Tensor, ends: Tensor) -> Tensor:
    """The outcome as the reward of the last step, and nothing before it.

        r_K = c,  r_k = 0 for k < K

    A response without a step earns nothing.

    Args:
        correct: [B] bool, or any reward of whole responses.
        ends: [B, S].
    """
    import torch

    there = ends >= 0
    last = there & (torch.arange(ends.shape[1], device=ends.device) == there.sum(1)[:, None] - 1)
    return where_there(correct[:, None].expand(ends.shape), last)


def dense(scores: Tensor, ends: Tensor) -> Tensor:
    """The scores themselves: r_k = s_k.

    Trap: where scores are above 0, one more step is more reward, whatever it says. See `delta`,
    `clip`, `min_form`, `progress` and `length_normalised`.

    Args:
        scores: [B, S].
        ends: [B, S].

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, step-by-step PPO.
    """
    return where_there(scores, ends >= 0)


def progress(scores: Tensor, ends: Tensor, start: Tensor | float = 0.0) -> Tensor:
    """What each step adds to the value of the solution so far.

        r_k = q_k - q_{k-1},  q_0 = start

    They add up to q_K - start, whatever lies between: a step that changes nothing earns nothing.

    Trap: summed over later steps they give q_K - q_{k-1}, and q_{k-1} does not depend on what
    step k does: in expectation only the last value q_K teaches. What teaches step by step is the
    number itself, `returns.spread` over the tokens of its step. See `progress_under`.

    Args:
        scores: [B, S] values of the prefixes that end with each step.
        ends: [B, S].
        start: the value of the question alone, one number or [B].

    Reference: Ng et al. 1999, potential-based shaping; Setlur et al. 2024, arXiv:2410.08146, the
    advantage A(s_h, a_h) of a step.
    """
    import torch

    values = where_there(scores, ends >= 0)
    first = torch.as_tensor(start, dtype=values.dtype, device=values.device).expand(len(ends))
    before = torch.cat([first[:, None], values], dim=1)[:, : ends.shape[1]]
    return where_there(values - before, ends >= 0)


def min_form(scores: Tensor, ends: Tensor, temperature: float = SOFTMIN_TEMPERATURE) -> Tensor:
    """Scores weighted so that their sum is close to the lowest one.

        r_k = w_k s_k,  w = softmax(-s / τ) over the steps of the response

    Their sum is `prmkit.aggregate.softmin`: at least the lowest score, at most the mean, so that
    more steps are not more reward. With τ = 0 the first of the lowest steps earns its score and
    the others nothing: the limit of the formula, but for ties. (The public code's strict form is
    another return, the lowest score from here on: `returns.min_to_go`.)

    Args:
        scores: [B, S]; in the paper p(right) - p(wrong), in [-1, 1].
        ends: [B, S].
        temperature: τ >= 0.

    Raises:
        ValueError: if the temperature is below 0.

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275, the transformed process reward.
    """
    import torch

    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature!r}; it must be 0 (strict) or above")
    there = ends >= 0
    scores = where_there(scores, there)
    if not ends.shape[1]:
        return scores
    if temperature == 0:
        lowest = scores.detach().masked_fill(~there, torch.inf).argmin(1, keepdim=True)
        weights = torch.zeros_like(scores).scatter(1, lowest, 1.0)
    else:
        # A response without steps would be 0 / 0.
        away = ~there & there.any(1, keepdim=True)
        weights = (-scores / temperature).masked_fill(away, -torch.inf).softmax(1)
    return where_there(weights * scores, there)


def clip(scores: Tensor, ends: Tensor, threshold: float) -> Tensor:
    """Steps that are good enough earn nothing, the others a loss.

        r_k = min(s_k - η, 0)

    No sum of them is above 0: more steps are never more reward. Alone it favours few steps, and
    is meant beside the outcome (`mixed`).

    Args:
        scores: [B, S].
        ends: [B, S].
        threshold: η.

    Reference: Gao et al. 2024, arXiv:2410.15115, the Clip mechanism.
    """
    return where_there((wide(scores) - threshold).clamp(max=0), ends >= 0)


def delta(scores: Tensor, ends: Tensor) -> Tensor:
    """Each score less the next one, so that the sum over later steps is the score itself.

        r_k = s_k - s_{k+1} for k < K,  r_K = s_K      so that  Σ_{j >= k} r_j = s_k

    With γ = 1 every token's return is bounded by the scores, whatever the number of steps. It
    also turns a weight that is meant for a step alone into a reward that may be summed.

    Args:
        scores: [B, S].
        ends: [B, S].

    Reference: Gao et al. 2024, arXiv:2410.15115, the Delta mechanism.
    """
    import torch.nn.functional as functional

    scores = where_there(scores, ends >= 0)
    return scores - functional.pad(scores[:, 1:], (0, min(1, ends.shape[1])))


def best_of(values: Tensor, k: int) -> Tensor:
    """The value of a prover that keeps the best of k tries: 1 - (1 - q)^k.

    Args:
        values: of one try, in [0, 1], any shape.
        k: number of tries; 4 in the paper.

    Reference: Setlur et al. 2024, arXiv:2410.08146, Best-of-K provers.
    """
    return 1 - (1 - wide(values)) ** k


def progress_under(
    q_policy: Tensor,
    q_prover: Tensor,
    ends: Tensor,
    alpha: float,
    start: Tensor | float = 0.0,
) -> Tensor:
    """What a step is worth to the policy, and how far it brings a prover μ.

        w_k = Q^π(s_k, a_k) + α A^μ(s_k, a_k)
        A^μ(s_k, a_k) = Q^μ(s_k, a_k) - Q^μ(s_{k-1}, a_{k-1})

    A weight of the step's own tokens, as the paper's gradient has it: `returns.spread` it, or
    place `delta` of it. It is not a reward to be summed over later steps: there A^μ telescopes
    to the outcome less a baseline, and the prover teaches nothing (`progress`). Where Q^π is not
    known, give the outcome at every step: its expectation is Q^π.

    With μ = π the gradient is 1 + α times that of the outcome alone, as A^π = Q^π less a
    baseline; a prover that always succeeds or never has A^μ = 0. Complementary ones help:
    `best_of` the policy's own values.

    Args:
        q_policy: [B, S] values under the policy of the prefixes that end with each step.
        q_prover: [B, S] the same under the prover.
        ends: [B, S].
        alpha: α.
        start: the prover's value of the question alone, one number or [B].

    Reference: Setlur et al. 2024, PAV, arXiv:2410.08146, the effective reward of their policy
    gradient.
    """
    return where_there(q_policy, ends >= 0) + alpha * progress(q_prover, ends, start)


def implicit_tokens(log_ratios: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Process rewards of single tokens: r_t = β log π_φ(y_t) / π_ref(y_t).

    Differs from PRIME's first public code, which leaves out β.

    Args:
        log_ratios: [B, T].
        mask: [B, T].
        beta: β, 0.05 in the papers.

    Returns:
        [B, T].

    Reference: Cui et al. 2025, PRIME, arXiv:2502.01456, the implicit process reward.
    """
    return beta * where_there(log_ratios, mask)


def implicit(log_ratios: Tensor, mask: Tensor, ends: Tensor, beta: float) -> Tensor:
    """Process rewards of steps, by a model that was trained on outcomes.

        r_k = q_k - q_{k-1} = β Σ_{t in step k} log π_φ(y_t) / π_ref(y_t)

    Tokens after the last end belong to no step: where the end token is to count, it is the end of
    the last step.

    Args:
        log_ratios: [B, T].
        mask: [B, T].
        ends: [B, S].
        beta: β.

    Reference: Yuan et al. 2024, arXiv:2412.01981, proposition 3.1.
    """
    return sum_over_steps(implicit_tokens(log_ratios, mask, beta), mask, ends)


def prl(log_ratios_old_to_ref: Tensor, mask: Tensor, ends: Tensor, eta: float) -> Tensor:
    """The process term of PRL, which needs no reward model.

        p_k = - 1/η Σ_{t >= e_k} [ log π_old(y_t) - log π_ref(y_t) ]

    The return from the last token of each step on of the KL penalty -1/η log π_old/π_ref: reward
    and penalty together are the objective E[r] - 1/η KL(π ‖ π_ref). A sum over later tokens
    already: `returns.spread` it, and add it to the advantage of the outcome. As in the public code
    it is read at the last token of a step for all its tokens, so that what the step's earlier
    tokens cost is left out; with steps of one token it is exact.

    Args:
        log_ratios_old_to_ref: [B, T].
        mask: [B, T].
        ends: [B, S].
        eta: η, 200 in the public code.

    Reference: PRL, arXiv:2601.10201.
    """
    penalty = where_there(log_ratios_old_to_ref, mask) / -eta
    if not penalty.numel():
        return penalty.new_zeros(ends.shape)
    to_go = penalty.flip(1).cumsum(1).flip(1)
    return where_there(to_go.gather(1, ends.clamp(min=0)), ends >= 0)


def length_normalised(step_rewards: Tensor, ends: Tensor, power: float = 1.0) -> Tensor:
    """Rewards divided by the number of steps, so that steps are not worth their number.

        r'_k = r_k / K^p

    With p = 1 a response's rewards add up to their mean.

    Args:
        step_rewards: [B, S].
        ends: [B, S].
        power: p; 0 changes nothing.
    """
    n_steps = (ends >= 0).sum(1, keepdim=True).clamp(min=1)
    earned = where_there(step_rewards, ends >= 0)
    return earned / n_steps.to(earned.dtype) ** power


def mixed(process: Tensor, outcomes: Tensor, weight: Tensor | float) -> Tensor:
    """Process rewards, and verifiable ones beside them: r_k = p_k + λ o_k.

    Args:
        process: [B, S] as one of the functions above gives them.
        outcomes: [B, S] as `outcome` gives them.
        weight: λ, one number or [B]; 0 where a response's outcome is not known. In the
            reference one problem in ten with an outcome already kept policies from hacking.

    Reference: Cheng et al. 2025, PURE, arXiv:2504.15275 (PURE-PRM+VR).
    """
    import torch

    process = wide(process)
    share = torch.as_tensor(weight, dtype=process.dtype, device=process.device)
    share = share.expand(len(process))[:, None].expand(process.shape)
    # An outcome that is not known may be NaN.
    return process + share * where_there(outcomes, share != 0)


def consensus(scores: Tensor, correct: Tensor, ends: Tensor, threshold: float = 0.5) -> Tensor:
    """Steps earn where the score and the outcome agree, and nothing where they do not.

        r_k = s_k - θ  where (s_k > θ) = c,  else 0

    No step of a wrong solution is praised and none of a right one is blamed; a good step of a
    wrong solution goes without either.

    Args:
        scores: [B, S].
        correct: [B] bool.
        ends: [B, S].
        threshold: θ; 0.5 for probabilities, 0 for scores with a sign.
    """
    above = wide(scores) - threshold
    return where_there(above, (ends >= 0) & ((above > 0) == correct.bool()[:, None]))
