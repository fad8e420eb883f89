"""What each token of a batch is worth: rewards and advantages by the names of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prmkit.records import Semantics
from prmkit.rl import advantages, returns, rewards
from prmkit.rl.batch import Batch, batch_of
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import SCORED, Algorithm, RewardSettings, UpdateSettings

if TYPE_CHECKING:
    from torch import Tensor


def step_rewards(
    batch: Batch, settings: RewardSettings, semantics: Semantics | None = None
) -> Tensor:
    """[B, S] what steps earn by their scores; those of responses without scores earn 0.

    Args:
        batch: with scores.
        settings: with a reward that is made of scores.
        semantics: what scores mean: the progress of a first step is counted from 0.5 where they
            are probabilities, which is what is known before anything is written, else from 0.
    """
    scores, ends = batch.scores, batch.scored_ends
    if settings.consensus:
        scores = rewards.consensus(scores, batch.correct > 0, ends, settings.threshold)
    if settings.reward == "progress":
        start = 0.5 if semantics in ("correctness", "value") and not settings.consensus else 0.0
        found = rewards.progress(scores, ends, start)
    elif settings.reward == "min":
        found = rewards.min_form(scores, ends, settings.softmin)
    elif settings.reward == "clip":
        found = rewards.clip(scores, ends, settings.threshold)
    elif settings.reward == "delta":
        found = rewards.delta(scores, ends)
    else:
        found = rewards.dense(scores, ends)
    if settings.length_power:
        found = rewards.length_normalised(found, ends, settings.length_power)
    return found


def earned(
    rollouts: Sequence[Rollout], settings: RewardSettings, semantics: Semantics | None = None
) -> list[float] | None:
    """What the steps of each response earn in all; None where scores do not count."""
    if settings.reward not in SCORED or not rollouts:
        return None
    batch = batch_of(rollouts, [0] * len(rollouts))
    found: list[float] = step_rewards(batch, settings, semantics).sum(1).tolist()
    return found


class Credit:
    """Rewards of a batch to advantages of its tokens.

    Where responses to one problem are compared, process and outcome are normalised each by
    itself, as PRIME does, and added. A response whose scores should count and are not there earns
    nothing by steps and is no other that another is compared with: else, with rewards below 0,
    what cannot be scored would be praised. Where rewards are taken as they fall (ppo, reinforce,
    reinforce++), it teaches nothing at all.

    Args:
        algorithm: whose advantages.
        settings: what is earned.
        update: γ, λ, and by what GRPO divides.
        semantics: of the scores.
        beta: β of implicit rewards.
        scaled: see `prmkit.rl.advantages.prime`.
        by_steps: whether a step of time, for γ and λ, is a whole step and not a token.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        settings: RewardSettings,
        update: UpdateSettings,
        semantics: Semantics | None = None,
        beta: float = 0.05,
        scaled: bool = True,
        by_steps: bool = False,
    ):
        self._by_steps = by_steps
        self._algorithm, self._settings, self._update = algorithm, settings, update
        self._semantics, self._beta, self._scaled = semantics, beta, scaled

    def __call__(
        self, batch: Batch, ratios: Tensor | None = None, values: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Advantages [B, T], total rewards of those that count, and with values the returns.

        Args:
            batch: the responses.
            ratios: [B, T] log-ratios: of implicit rewards to the reference model, of prl of the
                policy to it.
            values: [B, T] of PPO's critic.

        Returns:
            [B, T] advantages; [N] rewards of the N responses with tokens, and scores where they
            are asked for; [B, T] returns, NaN where a value is not asked for.
        """
        tokens, steps = self._process(batch, ratios)
        scored = self._settings.reward in SCORED
        counted = batch.scored_mask if scored else batch.mask
        total = self._settings.of_outcome * batch.correct
        if tokens is not None:
            total = total + tokens.sum(1)
        if self._algorithm in ("ppo", "reinforce", "reinforce++"):
            found, goals = self._by_tokens(batch, tokens, counted, values)
        else:
            found, goals = self._by_groups(batch, tokens, steps, counted), None
        if self._settings.reward == "prl":
            assert ratios is not None
            process = rewards.prl(ratios, batch.mask, batch.ends, self._settings.eta)
            found = found + returns.spread(process, batch.ends, batch.mask)
        return found, total[counted.any(1)], goals

    def _process(self, batch: Batch, ratios: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """[B, T] what tokens earn, [B, S] what steps do; None where nothing but the outcome."""
        if self._settings.reward in ("none", "prl"):
            return None, None
        if self._settings.reward == "implicit":
            assert ratios is not None
            tokens = rewards.implicit_tokens(ratios, batch.mask, self._beta)
            return tokens, rewards.implicit(ratios, batch.mask, batch.ends, self._beta)
        steps = step_rewards(batch, self._settings, self._semantics)
        return rewards.place(steps, batch.scored_ends, batch.n_tokens), steps

    def _by_tokens(
        self, batch: Batch, tokens: Tensor | None, counted: Tensor, values: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Algorithms that take rewards where they fall, of the responses that count."""
        update = self._update
        earned = self._settings.of_outcome * _at_the_end(batch)
        if tokens is not None:
            earned = earned + tokens
        if self._algorithm == "ppo":
            assert values is not None
            if self._by_steps:
                return self._by_turns(batch, earned, counted, values)
            found, goals = returns.gae(earned, values, counted, update.gamma, update.lam)
            # What is not known is no mistake of the critic's.
            return advantages.whiten(found, counted), goals.where(counted, values)
        if self._algorithm == "reinforce++":
            return advantages.reinforce_plus_plus(earned, counted, self._gamma(batch)), None
        # What the other responses of the batch earned: a baseline that no response is part of.
        there = counted.any(1)
        total = (earned * counted).sum(1)
        baseline = (total.sum() - total) / (there.sum() - 1).clamp(min=1)
        return advantages.reinforce(earned, counted, self._gamma(batch), baseline), None

    def _by_turns(
        self, batch: Batch, earned: Tensor, counted: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of PPO with steps as steps of time: all tokens of a step share its advantage.

        The critic learns what is to be expected where a step begins, and is asked nowhere else.
        """
        import torch

        update = self._update
        found = returns.gae_by_steps(earned, values, batch.ends, counted, update.gamma, update.lam)
        whitened = advantages.whiten(found.advantages, found.there)
        rows, steps = found.there.nonzero(as_tuple=True)
        goals = torch.full(values.shape, torch.nan)
        goals[rows, found.first[rows, steps]] = found.returns[rows, steps]
        return returns.spread(whitened, batch.ends, counted), goals

    def _gamma(self, batch: Batch) -> float | Tensor:
        """γ from each token to the next."""
        gamma = self._update.gamma
        if self._by_steps and gamma != 1:
            return returns.discounts(batch.ends, batch.mask, gamma)
        return gamma

    def _by_groups(
        self, batch: Batch, tokens: Tensor | None, steps: Tensor | None, counted: Tensor
    ) -> Tensor:
        """Algorithms that compare the responses to a problem."""
        import torch

        group, mask, update = batch.group, batch.mask, self._update
        weight, found = self._settings.of_outcome, torch.zeros(batch.mask.shape)
        if self._algorithm == "grpo":
            if steps is not None:
                ends = batch.ends if self._settings.reward == "implicit" else batch.scored_ends
                found = advantages.grpo_process(steps, ends, group, mask, update.scale)
            if weight:
                found = found + weight * advantages.grpo(batch.correct, group, mask, update.scale)
            return found
        if self._algorithm == "prime":
            assert tokens is not None
            return advantages.prime(
                tokens,
                batch.correct,
                group,
                mask,
                self._gamma(batch),
                outcome=weight,
                scaled=self._scaled,
            )
        changed = self._settings.consensus or self._settings.length_power
        if self._settings.reward == "min" and not changed:
            found = advantages.pure(
                batch.scores, batch.scored_ends, group, counted, self._settings.softmin
            )
        elif tokens is not None:
            found = advantages.rloo_process(tokens, group, counted, self._gamma(batch))
        if weight:
            found = found + weight * advantages.rloo(batch.correct, group, mask)
        return found


def _at_the_end(batch: Batch) -> Tensor:
    """[B, T] the outcome at the last token of each response."""
    import torch

    found = torch.zeros(batch.mask.shape)
    last = batch.mask.sum(1) - 1
    rows = torch.arange(len(last))[last >= 0]
    found[rows, last[rows]] = batch.correct[rows]
    return found
