"""Targets for reward models of agents: how likely success is after a step, and what it gained.

Promise is Q(s_t, a_t), the expected outcome after a step; progress is what the step changed,
Q(s_t, a_t) - Q(s_{t-1}, a_{t-1}), since the value of a state is the promise of the step that led
there (deterministic transitions, outcome at the end). Both ways to targets that are published:

temporal  from a model's own numbers along an episode, by temporal differences with GAE: every
          episode is played once (Xi et al. 2025, arXiv:2511.08325)
counted   the mean discounted outcome of the episodes that went through a step (Choudhury 2025,
          arXiv:2502.10325)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from prmkit.settings import at_least


def temporal_targets(
    promises: Sequence[float],
    outcome: float,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> list[float]:
    """Promise targets of one episode from what a model says of its steps.

        δ_t = γ M_t - M_{t-1}  for t < T,     δ_T = r - M_{T-1}
        Â_t = Σ_{k >= 0} (γλ)^k δ_{t+k},      Q̂_t = Â_t + M_{t-1}

    Nothing comes after the last step, so its bootstrap is 0. Eq. 12 to 14 of the paper, as they are
    printed, keep γ M_T in δ_T beside the outcome: once M_T has learnt r, the outcome is counted
    twice, and on a chain of steps all promises but the last go to 2 r. γ is not stated there.

    Targets of M_t lean on M_t itself with the weight 1 - λ: with λ = 0 no step but the last
    learns anything. M_0 does not matter: it is taken away and added again.

    Args:
        promises: M_1 … M_T, of the steps of an episode; they are not differentiated through.
        outcome: r, of the episode.
        gamma: γ, a step.
        lam: λ.

    Returns:
        Q̂_1 … Q̂_T.

    Reference: Xi et al. 2025, AgentPRM, arXiv:2511.08325, eq. 12-14, with the last bootstrap zero.
    """
    at_least(0, gamma=gamma, lam=lam)
    # Q̂_t = γ M_t + γλ (Q̂_{t+1} - M_t), the same sum from the end.
    targets: list[float] = []
    following = outcome
    for t in range(len(promises) - 1, -1, -1):
        if t < len(promises) - 1:
            following = gamma * (promises[t] + lam * (following - promises[t]))
        targets.append(following)
    return targets[::-1]


def progress(promises: Sequence[float], start: float | None = None) -> list[float]:
    """What each step gained: M_t - M_{t-1}.

    Args:
        promises: M_1 … M_T.
        start: M_0, what was promised before anything was done; by default the first step gained
            nothing, since nothing is known from before it.

    Reference: Xi et al. 2025, arXiv:2511.08325 (progress as an advantage).
    """
    if not promises:
        return []
    before = [promises[0] if start is None else start, *promises[:-1]]
    return [now - then for now, then in zip(promises, before, strict=True)]


def discounted(outcome: float, n_steps: int, gamma: float = 1.0) -> list[float]:
    """The outcome as seen from each step: γ^{T-t} r, so that earlier steps have less of it.

    Differs from the public code of arXiv:2502.10325, which has γ^t and gives earlier steps more.

    Args:
        outcome: r, in the end.
        n_steps: T.
        gamma: γ.
    """
    at_least(0, gamma=gamma)
    return [outcome * gamma ** (n_steps - 1 - t) for t in range(n_steps)]


def counted_targets(
    episodes: Sequence[tuple[Sequence[Hashable], float]], *, gamma: float = 1.0
) -> list[list[float]]:
    """Promise targets as means over the episodes that did the same in the same situation.

        Q̂(s, a) = 1/|G(s, a)| Σ_{episodes through (s, a)} γ^{T-t} r

    An episode that comes to the same situation twice counts there twice, as in the reference.

    Args:
        episodes: of each, what names situation and action of its steps (such as the text of all
            that came before, and the step's own), and its outcome.
        gamma: γ.

    Returns:
        Of each episode, the targets of its steps.

    Reference: Choudhury 2025, arXiv:2502.10325, eq. 4; outcomes in [0, 1] give targets there.
    """
    sums: dict[Hashable, list[float]] = {}
    seen = [discounted(outcome, len(steps), gamma) for steps, outcome in episodes]
    for (steps, _), values in zip(episodes, seen, strict=True):
        for step, value in zip(steps, values, strict=True):
            total = sums.setdefault(step, [0.0, 0.0])
            total[0] += value
            total[1] += 1
    return [[sums[step][0] / sums[step][1] for step in steps] for steps, _ in episodes]
