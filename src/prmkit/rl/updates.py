"""One step of learning, from responses that were drawn and what their tokens are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from prmkit.records import StepScores
from prmkit.rl import policy_losses
from prmkit.rl.batch import Batch
from prmkit.rl.learner import Asked, Critic, Speaker, learn, mask_of, padded, sequences
from prmkit.rl.pairs import step_pairs, trajectory_pairs
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import Algorithm, ImplicitSettings, RewardSettings, UpdateSettings
from prmkit.rl.team import Team
from prmkit.training.losses import implicit_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from prmkit.policies.base import TokenPolicy


@dataclass
class Told:
    """What a step of learning tells of itself, gathered over passes.

    Attributes:
        team: whose passes count.
        sums: by name, of all tokens or pairs.
        n: of how many.
        norms: of the gradients, of each step of the optimiser.
    """

    team: Team = field(default_factory=Team)
    sums: dict[str, Tensor] = field(default_factory=dict)
    n: float = 0.0
    norms: list[float] = field(default_factory=list)

    def add(self, n: float, **sums: Tensor) -> None:
        """Numbers of a pass; they are read when all are there, so that a GPU need not wait."""
        self.n += n
        for name, value in sums.items():
            value = value.detach()
            self.sums[name] = value if name not in self.sums else self.sums[name] + value

    def figures(self) -> dict[str, float]:
        """Means over what all processes did."""
        own = {name: float(value) for name, value in self.sums.items()}
        parts = self.team.gather((self.n, own))
        n = sum(part[0] for part in parts)
        names = {name: None for _, told in parts for name in told}
        found = {name: sum(told.get(name, 0.0) for _, told in parts) / max(n, 1) for name in names}
        if self.norms:
            found["grad_norm"] = sum(self.norms) / len(self.norms)
        return found


def minibatches(batch: Batch, n: int) -> list[list[int]]:
    """The numbers of the responses, in `n` parts of about as many problems each, at most."""
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(batch.group.tolist()):
        groups.setdefault(group, []).append(i)
    own = list(groups.values())
    n = min(n, len(own))
    bounds = [round(k * len(own) / n) for k in range(n + 1)]
    return [[i for group in own[low:high] for i in group] for low, high in pairwise(bounds)]


class PolicyUpdate:
    """Teaches a policy by advantages of tokens.

    Args:
        policy: what learns.
        settings: how.
        plain: without the ratio to what the policy was (REINFORCE).
        max_tokens: of a response, for the average of that name.
    """

    def __init__(self, policy: Speaker, settings: UpdateSettings, plain: bool, max_tokens: int):
        self._policy, self._settings = policy, settings
        self._plain, self._max_tokens = plain, max_tokens

    @property
    def once(self) -> bool:
        """Whether the policy that learns is still the one that drew the tokens."""
        return self._settings.epochs == self._settings.minibatches == 1

    def __call__(
        self, batch: Batch, advantages: Tensor, reference: Tensor, old: Tensor | None
    ) -> dict[str, float]:
        """Learn from a batch.

        Args:
            batch: the responses.
            advantages: [B, T].
            reference: [B, T] log-probabilities by the reference.
            old: [B, T] by the policy as it was; None where it is still that (see `once`).
        """
        items = sequences(batch.rollouts)
        told = Told(self._policy.machine.team)
        for _ in range(self._settings.epochs):
            for some in minibatches(batch, self._settings.minibatches):
                n_tokens = sum(len(items[i].ids) for i in some)
                n_responses = sum(bool(items[i].ids) for i in some)
                if not n_tokens:
                    continue

                def loss(
                    numbers: list[int],
                    n: int = n_tokens,
                    m: int = n_responses,
                    whole: int = len(some),
                ) -> Tensor:
                    return self._loss(
                        numbers, [items[i] for i in numbers], batch, advantages, reference, old,
                        (n, m, whole), told,
                    )  # fmt: skip

                told.norms.append(learn(self._policy, items, some, loss))
        return told.figures()

    def _loss(
        self,
        numbers: list[int],
        items: Sequence[Asked],
        batch: Batch,
        advantages: Tensor,
        reference: Tensor,
        old: Tensor | None,
        whole: tuple[int, int, int],
        told: Told,
    ) -> Tensor:
        """The part of some responses in the loss of `whole`: tokens, responses with any, all."""
        flat, entropy = self._policy.log_probs(items)
        log_probs = padded(flat, items)
        width = log_probs.shape[1]

        def own(numbers_of_all: Tensor) -> Tensor:
            return numbers_of_all[numbers, :width].to(log_probs.device)

        mask, worth, other = own(batch.mask), own(advantages), own(reference)
        before = log_probs.detach() if old is None else own(old)
        how = self._averaging(mask, whole, len(numbers))
        if self._plain:
            value = policy_losses.reinforce(log_probs, worth, mask, **how.settings)
            share = value.new_zeros(())
        else:
            value, share = policy_losses.clipped(
                log_probs, before, worth, mask, self._settings.clip_low,
                self._settings.clip_high, **how.settings,
            )  # fmt: skip
        divergence = policy_losses.kl(log_probs, other, self._settings.kl_kind)
        if self._settings.kl:
            value = value + self._settings.kl * policy_losses.average_of(
                divergence, mask, **how.settings
            )
        n = mask.sum()
        measured = policy_losses.kl(log_probs.detach(), other, "k3")
        told.add(
            float(sum(len(one.ids) for one in items)),
            loss=value * how.factor * whole[0],
            clipped=share * n,
            kl=(measured * mask).sum(),
            entropy=entropy.sum(),
        )
        part: Tensor = value * how.factor
        return part

    def _averaging(self, mask: Tensor, whole: tuple[int, int, int], n: int) -> _Averaging:
        """How the loss of a pass becomes its part of the whole one's."""
        name = self._settings.average
        n_tokens, n_responses, n_all = whole
        if name == "token":
            return _Averaging({"average": name, "n_tokens": n_tokens}, 1.0)
        if name == "response":
            here = (mask.any(1)).sum()
            return _Averaging({"average": name}, here / n_responses)
        return _Averaging({"average": name, "n_tokens": self._max_tokens}, n / n_all)


@dataclass(frozen=True)
class _Averaging:
    settings: dict[str, Any]
    factor: Any


class CriticUpdate:
    """Teaches a critic what the values should have been.

    Args:
        critic: what learns.
        settings: how often, and how far from the old values.
    """

    def __init__(self, critic: Critic, settings: UpdateSettings):
        self._critic, self._settings = critic, settings

    def __call__(self, batch: Batch, old: Tensor, goals: Tensor) -> dict[str, float]:
        """Learn from returns [B, T]; where they are NaN there is none, such as within a turn."""
        items = sequences(batch.rollouts)
        known = batch.mask & ~goals.isnan()
        told = Told(self._critic.machine.team)
        for _ in range(self._settings.epochs):
            for some in minibatches(batch, self._settings.minibatches):
                n_goals = int(known[some].sum())
                if not n_goals:
                    continue

                def loss(numbers: list[int], n: int = n_goals) -> Tensor:
                    of_these = [items[i] for i in numbers]
                    values = padded(self._critic.values(of_these), of_these)
                    width = values.shape[1]
                    before, aim, mask = (
                        t[numbers, :width].to(values.device) for t in (old, goals, known)
                    )
                    value = policy_losses.value_loss(values, before, aim, mask, n_tokens=n)
                    told.add(float(known[numbers].sum()), critic_loss=value * n)
                    return value

                learn(self._critic, items, some, loss)
        return told.figures()


class ImplicitUpdate:
    """Teaches an implicit reward model by outcomes alone (PRIME's reward model).

    Args:
        prm: what learns.
        settings: β.
    """

    def __init__(self, prm: Speaker, settings: ImplicitSettings):
        self._prm, self._settings = prm, settings

    def __call__(self, batch: Batch, reference: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Learn from outcomes; the log-ratios [B, T] as they were before, and figures.

        Reference: Cui et al. 2025, PRIME, arXiv:2502.01456, algorithm 1 and eq. 4 (cross-entropy).
        """
        import torch

        items = sequences(batch.rollouts)
        ratios = torch.zeros(batch.mask.shape)
        kept: list[tuple[list[int], Tensor]] = []
        told = Told(self._prm.machine.team)
        n_known = sum(bool(one.ids) for one in items)

        def loss(numbers: list[int]) -> Tensor:
            some = [items[i] for i in numbers]
            log_probs = padded(self._prm.log_probs(some)[0], some)
            width = log_probs.shape[1]
            other = reference[numbers, :width].to(log_probs.device)
            mask = batch.mask[numbers, :width].to(log_probs.device)
            own = (log_probs - other) * mask
            kept.append((numbers, own.detach()))
            there = mask.any(1).float()
            target = batch.correct[numbers].to(own.device)
            total = implicit_cross_entropy(own.sum(1), target, there, self._settings.beta)
            right = ((own.sum(1) > 0).float() == target).float() * there
            n = sum(bool(one.ids) for one in some)
            told.add(float(n), prm_loss=total, prm_accuracy=right.sum())
            return total / n_known

        if n_known:
            learn(self._prm, items, range(len(items)), loss)
        # When all is done, so that no pass waits for the one before.
        for numbers, own in kept:
            ratios[numbers, : own.shape[1]] = own.float().cpu()
        return self._prm.machine.team.add(ratios), told.figures()


class PairUpdate:
    """Teaches a policy by pairs of steps, or of responses, that step scores make.

    Args:
        algorithm: step-dpo or dpo.
        policy: what learns.
        reference: the policy at the start.
        voice: encodes steps as they are read.
        rewards: how pairs are made.
        update: how often they are learnt from.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        policy: Speaker,
        reference: Speaker,
        voice: TokenPolicy,
        rewards: RewardSettings,
        update: UpdateSettings,
    ):
        self._steps = algorithm == "step-dpo"
        self._policy, self._reference, self._voice = policy, reference, voice
        self._rewards, self._update = rewards, update

    def __call__(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Learn from the pairs that there are among some responses."""
        items = self._pairs(rollouts)
        if not items:
            return {"pairs": 0.0}
        width = max(len(one.ids) for one in items)
        reference, _ = self._reference.read(items, width)
        told = Told(self._policy.machine.team)
        loss_of = policy_losses.step_dpo if self._steps else policy_losses.trajectory_dpo
        pairs = len(items) // 2
        n_parts = min(self._update.minibatches, pairs)
        bounds = [2 * round(k * pairs / n_parts) for k in range(n_parts + 1)]

        for _ in range(self._update.epochs):
            for low, high in pairwise(bounds):
                n = (high - low) // 2

                def loss(numbers: list[int], n: int = n) -> Tensor:
                    some = [items[i] for i in numbers]
                    log_probs = padded(self._policy.log_probs(some)[0], some)
                    other = reference[numbers, : log_probs.shape[1]].to(log_probs.device)
                    mask = mask_of(some, log_probs)
                    ratios = (log_probs - other) * mask
                    value: Tensor = loss_of(
                        ratios[::2], ratios[1::2], mask[::2], mask[1::2],
                        self._rewards.pair_beta, n_pairs=n,
                    )  # fmt: skip
                    sums = ratios.detach().sum(1)
                    ahead = (sums[::2] > sums[1::2]).float().sum()
                    told.add(len(numbers) / 2, loss=value * n, pair_accuracy=ahead)
                    return value

                told.norms.append(learn(self._policy, items, range(low, high), loss, 2))
        return {"pairs": float(pairs), **told.figures()}

    def _pairs(self, rollouts: Sequence[Rollout]) -> list[Asked]:
        """Better and worse, one after the other."""
        scored = [one for one in rollouts if isinstance(one.scores, StepScores)]
        trajectories = [one.trajectory for one in scored]
        values = [one.scores.values for one in scored if isinstance(one.scores, StepScores)]
        found: list[Asked] = []
        if self._steps:
            for pair in step_pairs(trajectories, values, self._rewards.margin):
                prompt = self._voice.question_ids(pair.prefix.problem)
                for step in pair.prefix.steps:
                    prompt += self._voice.text_ids(step.text)
                for step in (pair.better, pair.worse):
                    found.append(Asked(tuple(prompt), tuple(self._voice.text_ids(step.text))))
            return found
        own = {id(one.trajectory): one for one in scored}
        for both in trajectory_pairs(
            trajectories, values, self._rewards.threshold, how=self._rewards.aggregate
        ):
            if both.better_value - both.worse_value < self._rewards.margin:
                continue
            for trajectory in (both.better, both.worse):
                found += sequences([own[id(trajectory)]])
        return found


def ratios_of(model: Speaker, batch: Batch, reference: Tensor) -> Tensor:
    """[B, T] log-ratios of a model to the reference; no gradient."""
    found, _ = model.read(sequences(batch.rollouts), batch.n_tokens)
    return (found - reference) * batch.mask
