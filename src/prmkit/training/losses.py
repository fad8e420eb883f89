"""Losses of reward models: pure functions of a model's outputs and targets.

Each is a sum over its items (labelled steps, solutions, pairs), so that the caller divides by the
items of the whole optimiser step, over all its parts and processes: a mean of means would weigh
short solutions and small parts more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal[
    "cross_entropy", "squared_error", "ranking", "pairwise", "preference", "progress", "inverse"
]


def _wide(numbers: Tensor) -> Tensor:
    """In float32 at least: half precision loses what losses are made of."""
    import torch

    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of a head of classes.

        L = - Σ_i w_i Σ_c y_ic log softmax(logits_i)_c

    Args:
        logits: [L, C].
        targets: [L, C], each row adds up to 1; soft labels stay soft.
        weights: [L].

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, eq. 2, for two classes.
    """
    import torch.nn.functional as functional

    log_probs = functional.log_softmax(_wide(logits), dim=-1)
    return -(weights * (targets * log_probs).sum(dim=-1)).sum()


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of one logit.

        L = - Σ_i w_i [ y_i log σ(x_i) + (1 - y_i) log σ(-x_i) ]

    Args:
        logits: [L].
        targets: [L] in [0, 1].
        weights: [L].
    """
    import torch.nn.functional as functional

    logits = _wide(logits)
    right, wrong = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -(weights * (targets * right + (1 - targets) * wrong)).sum()


def squared_error(values: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """L = Σ_i w_i (v_i - y_i)².

    Args:
        values: [L].
        targets: [L].
        weights: [L].
    """
    return (weights * (_wide(values) - targets) ** 2).sum()


def ranking(values: Tensor, right: Tensor, solution: Tensor, margin: float = 4.0) -> Tensor:
    """Values of right steps rise, and those of wrong ones lie below them by a margin.

        L = - Σ_solutions 1/|C| Σ_t log [ e^{Q_ct} / ( Σ_{q<=t} e^{Q_cq} + Σ_w e^{Q_w + ζ} ) ]

    over the right steps c_1, c_2, … of a solution in order and its wrong steps w. A solution
    without a right step has no term.

    Args:
        values: [L], the steps of each solution in order.
        right: [L], whether each is.
        solution: [L], of which solution, numbered from 0.
        margin: ζ.

    Reference: Li and Li 2024, PQM, arXiv:2410.11287 (comparative loss, ζ = 4).
    """
    import torch

    values = _wide(values)
    n = int(solution.max()) + 1 if len(solution) else 0
    total = values.sum() * 0
    for i in range(n):
        own = solution == i
        good, bad = values[own & right], values[own & ~right]
        if not len(good):
            continue
        below = torch.logcumsumexp(good, dim=0)
        if len(bad):
            below = torch.logaddexp(below, torch.logsumexp(bad + margin, dim=0))
        total = total + (below - good).mean()
    return total


def pairwise(better: Tensor, worse: Tensor) -> Tensor:
    """L = - Σ log σ(better - worse), of pairs of steps that follow the same prefix.

    Args:
        better: [P] values.
        worse: [P] values.

    Reference: Bradley and Terry 1952; of steps, Luo et al. 2024, arXiv:2406.06592 (pairwise loss).
    """
    import torch.nn.functional as functional

    return -functional.logsigmoid(_wide(better) - _wide(worse)).sum()


def implicit_cross_entropy(
    log_ratios: Tensor, targets: Tensor, weights: Tensor, beta: float = 0.05
) -> Tensor:
    """Outcome labels teach β times a log-ratio of policies, and with it the reward of each step.

        L = - Σ_i w_i [ y_i log σ(β r_i) + (1 - y_i) log σ(-β r_i) ],
        r_i = Σ_t log π(t) / π_ref(t)

    Args:
        log_ratios: [N] sums over the response's tokens.
        targets: [N] in [0, 1].
        weights: [N].
        beta: β.

    Reference: Yuan et al. 2024, arXiv:2412.01981 (cross-entropy loss).
    """
    return binary_cross_entropy(beta * _wide(log_ratios), targets, weights)


def direct_preference(better: Tensor, worse: Tensor, beta: float = 0.05) -> Tensor:
    """L = - Σ log σ(β (better - worse)), of log-ratios of a right and a wrong response.

    Args:
        better: [P] log-ratios.
        worse: [P] log-ratios.
        beta: β.

    Reference: Rafailov et al. 2023, DPO, arXiv:2305.18290; for implicit PRMs Yuan et al.
    2024, arXiv:2412.01981.
    """
    return pairwise(beta * better, beta * worse)


def promise_progress(
    values: Tensor, targets: Tensor, follows: Tensor, weights: Tensor, beta: float = 1.0
) -> Tensor:
    """Steps of agents: how likely success is after each, and what each gained.

        L = Σ_t w_t 1/2 (M_t - Q̂_t)² + β Σ_t w_t 1/2 ((M_t - M_{t-1}) - (Q̂_t - Q̂_{t-1}))²

    Args:
        values: [N] M, of steps of any episodes.
        targets: [N] Q̂, see `prmkit.labelling.promise_progress`.
        follows: [N] where among the N the step before each is; -1 where there is none: such a
            step has no progress to learn.
        weights: [N].
        beta: β, 1 in the paper.

    Reference: Xi et al. 2025, AgentPRM, arXiv:2511.08325, eq. 6, 9 and 10.
    """
    values, targets, weights = _wide(values), _wide(targets), _wide(weights)
    promise = 0.5 * weights * (values - targets) ** 2
    gained = values - values[follows] - (targets - targets[follows])
    there = (follows >= 0).to(weights.dtype)
    return promise.sum() + beta * (0.5 * weights * there * gained**2).sum()


def temporal_targets(
    promises: Tensor, outcomes: Tensor, owner: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Promise targets of whole episodes from what a model says of their turns.

        Q̂_T = r,     Q̂_t = γ M_t + γλ (Q̂_{t+1} - M_t)  for t < T

    the sum of temporal differences with GAE, from the end: nothing comes after the last turn. It
    is the tensor form of `prmkit.labelling.promise_progress.temporal_targets`, which says in what
    it differs from the paper. No gradient goes through it.

    Args:
        promises: [N] M, the turns of each episode in order, one episode after the other.
        outcomes: [N] r of the episode of each turn.
        owner: [N] of which episode each turn is; neighbours of one number are one episode.
        gamma: γ, a turn.
        lam: λ.

    Returns:
        [N] Q̂.

    Reference: Xi et al. 2025, AgentPRM, arXiv:2511.08325, eq. 12-14, with the last bootstrap zero.
    """
    import torch

    promises = _wide(promises.detach())
    outcomes = outcomes.to(promises)
    if not len(promises):
        return outcomes
    _, lengths = torch.unique_consecutive(owner, return_counts=True)
    # [E, T], the last turns in the last column, so that one loop goes back through all episodes.
    most = int(lengths.max())
    there = torch.arange(most, device=owner.device) >= most - lengths[:, None]
    grid = torch.zeros(there.shape, dtype=promises.dtype, device=promises.device)
    grid[there] = promises
    ends = torch.cumsum(lengths, 0) - 1
    columns = [outcomes[ends]]
    for t in range(most - 2, -1, -1):
        columns.append(gamma * (grid[:, t] + lam * (columns[-1] - grid[:, t])))
    return torch.stack(columns[::-1], dim=1)[there]


def inverse_reward(
    now: Tensor, following: Tensor, expert: Tensor, weights: Tensor, gamma: float = 1.0
) -> Tensor:
    """A promise whose change tells an expert's steps from a learner's: no outcome is needed.

        r(s, a) = Q(s, a) - γ E_{a' ~ π} Q(s', a'),
        L = - Σ w [ e log σ(r) + (1 - e) log σ(-r) ]

    Args:
        now: [N] Q(s, a).
        following: [N] the mean of Q(s', a') over steps that the learner would take next; 0 at an
            episode's end.
        expert: [N] 1 for steps of demonstrations, 0 for those of learners so far.
        weights: [N].
        gamma: γ.

    Reference: Choudhury 2025, InversePRM, arXiv:2502.10325.
    """
    return binary_cross_entropy(_wide(now) - gamma * _wide(following), expert, weights)


def pairs_of(targets: Tensor, group: Tensor) -> tuple[list[int], list[int]]:
    """Of items of one group, all pairs of a better and a worse one.

    Args:
        targets: [N].
        group: [N] numbers of groups.

    Returns:
        [P] the numbers of the better ones, and of the worse ones.
    """
    members: dict[int, list[int]] = {}
    for i, number in enumerate(group.tolist()):
        members.setdefault(number, []).append(i)
    values = targets.tolist()
    found = [(i, j) for own in members.values() for i in own for j in own if values[i] > values[j]]
    return [i for i, _ in found], [j for _, j in found]
