"""The models of a run, and what they learn from a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import default_device, find_checkpoint, load_tokenizer
from prmkit.errors import CheckpointError
from prmkit.policies.hf import HFPolicy
from prmkit.records import Problem
from prmkit.rl.batch import Batch
from prmkit.rl.credit import Credit
from prmkit.rl.learner import Critic, Learner, Machine, Speaker, sequences
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import ImplicitSettings
from prmkit.rl.team import Team
from prmkit.rl.updates import (
    CriticUpdate,
    ImplicitUpdate,
    PairUpdate,
    PolicyUpdate,
    ratios_of,
)
from prmkit.scorers.base import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from prmkit.policies.wire import Capabilities
    from prmkit.rl.loop import Plan
    from prmkit.rl.voices import ServedVoice


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        voice: the policy as it draws.
        policy: the policy as it learns.
        reference: the policy at the start.
        prm: the implicit reward model, where there is one; at temperature 1.
        critic: of PPO.
        learners: what learns, by the names of checkpoints.
        credit: rewards to advantages.
        plan: the settings.
        team: the processes of the run.
    """

    voice: HFPolicy | ServedVoice
    policy: Speaker
    reference: Speaker
    prm: Speaker | None
    critic: Critic | None
    learners: dict[str, Learner]
    credit: Credit
    plan: Plan
    team: Team

    def speak_anew(self, question: Callable[[], Problem]) -> None:
        """Draw with the weights as they are now.

        Args:
            question: makes one, by which it is seen that a server took them.

        Raises:
            PrmkitError: if a server did not take them.
        """
        voice, model = self.voice, self.policy.model
        if isinstance(voice, HFPolicy):
            voice.take(model)
            return

        def hand_over() -> None:
            voice.take(model)
            voice.check(self.policy, question())

        self.team.once(hand_over)
        voice.meet()

    def learn(self, batch: Batch) -> tuple[dict[str, float], Tensor]:
        """Everything learns from a batch; figures, and the advantages [B, T]."""
        items = sequences(batch.rollouts)
        width = batch.n_tokens
        reference, _ = self.reference.read(items, width)
        figures: dict[str, float] = {}
        reward = self.plan.rewards.reward
        update = PolicyUpdate(
            self.policy,
            self.plan.update,
            self.plan.run.algorithm == "reinforce",
            self.plan.longest,
        )
        old = None
        if not update.once or reward == "prl":
            old, _ = self.policy.read(items, width)
        ratios = None
        if reward == "prl":
            assert old is not None
            ratios = (old - reference) * batch.mask
        elif reward == "implicit":
            # What it says of a text is of the text alone: the saved model says the same elsewhere.
            plain = reference
            if self.plan.rollouts.temperature != 1:
                plain, _ = self.reference.at(1.0).read(items, width)
            ratios, told = self._implicit(batch, plain)
            figures |= told
        values = self.critic.read(items, width) if self.critic is not None else None
        advantages, total, goals = self.credit(batch, ratios, values)
        if len(total):
            figures["reward"] = float(total.mean())
        if self.critic is not None and values is not None and goals is not None:
            figures |= CriticUpdate(self.critic, self.plan.update)(batch, values, goals)
        figures |= update(batch, advantages, reference, old)
        return figures, advantages

    def _implicit(self, batch: Batch, reference: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Log-ratios of the reward model, which may learn before or after they are taken."""
        settings: ImplicitSettings = self.plan.implicit
        assert self.prm is not None
        if not settings.online:
            return ratios_of(self.prm, batch, reference), {}
        ratios, figures = ImplicitUpdate(self.prm, settings)(batch, reference)
        if settings.forward == "double":
            ratios = ratios_of(self.prm, batch, reference)
        return ratios, figures

    def learn_pairs(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """The policy learns from pairs among responses."""
        plan = self.plan
        return PairUpdate(
            plan.run.algorithm, self.policy, self.reference, self.voice, plan.rewards, plan.update
        )(rollouts)


def assemble(base: Path, plan: Plan, scorer: Scorer | None, team: Team) -> Parts:
    """Load the models of a run.

    Args:
        base: folder of the policy.
        plan: the settings.
        scorer: of steps.
        team: the processes of the run.

    Raises:
        CheckpointError: if a model cannot be loaded, or an implicit one has another tokenizer.
        PrmkitError: if a server cannot take weights.
    """
    import torch

    run, update, implicit = plan.run, plan.update, plan.implicit
    device = run.device or default_device()
    bf16 = run.precision == "bfloat16" or (run.precision == "auto" and device != "cpu")
    machine = Machine(device, bf16, update.tokens_per_pass, team)
    temperature = plan.rollouts.temperature
    learning: dict[str, Any] = {
        "learning_rate": update.learning_rate,
        "max_grad_norm": update.max_grad_norm,
        "warmup": run.warmup,
    }
    torch.manual_seed(run.seed)
    voice: HFPolicy | ServedVoice
    if plan.voice.server is None:
        voice = HFPolicy(base, device=device, max_kept=0)
    else:
        voice = _served(base, plan, bf16, team)
    policy = Speaker(base, machine, temperature, **learning)
    reference = Speaker(base, machine, temperature)
    learners: dict[str, Learner] = {"policy": policy}
    prm: Speaker | None = None
    if plan.rewards.reward == "implicit":
        rate = implicit.prm_learning_rate or update.learning_rate
        own = {**learning, "learning_rate": rate, "max_grad_norm": implicit.prm_grad_norm}
        folder = base if implicit.prm is None else find_checkpoint(implicit.prm)
        tokenizer: Any = voice.tokenizer
        if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
            raise CheckpointError(
                f"the reward model {implicit.prm!r} has another tokenizer than the policy; a "
                "log-ratio needs the same tokens"
            )
        prm = Speaker(folder, machine, **(own if implicit.online else {}))
        if implicit.online:
            learners["prm"] = prm
    critic = None
    if run.algorithm == "ppo":
        critic = learners["critic"] = Critic(base, machine, **learning)
    credit = Credit(
        run.algorithm,
        plan.rewards,
        update,
        scorer.semantics if scorer else None,
        implicit.beta,
        implicit.scaled,
        plan.by_steps,
    )
    return Parts(voice, policy, reference, prm, critic, learners, credit, plan, team)


def _served(base: Path, plan: Plan, bf16: bool, team: Team) -> ServedVoice:
    """The voice on a server; the first process finds out for all what the server can do."""
    from prmkit.rl.voices import ServedVoice

    folder = plan.voice.weights or plan.run.out / "served"
    most = max(1, plan.voice.concurrency // team.size)

    def made(capabilities: Capabilities | None = None) -> ServedVoice:
        return ServedVoice(
            plan.voice, base, folder, bf16=bf16, concurrency=most, capabilities=capabilities
        )

    if team.size == 1:
        return made()
    return made(team.once(lambda: made().capabilities))
