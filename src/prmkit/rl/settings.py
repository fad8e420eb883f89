"""Settings of reinforcement learning; light, so that the command line's help loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prmkit.aggregate import Aggregation
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.settings import above, at_least

Algorithm = Literal["prime", "grpo", "rloo", "ppo", "reinforce", "reinforce++", "step-dpo", "dpo"]
Process = Literal["none", "score", "progress", "min", "clip", "delta", "implicit", "prl"]
Average = Literal["token", "response", "max_tokens"]
KlKind = Literal["k1", "k2", "k3"]
Forward = Literal["single", "double"]
Per = Literal["token", "step"]

PREFERENCES: tuple[Algorithm, ...] = ("step-dpo", "dpo")
"""Algorithms that learn from pairs."""

SCORED: tuple[Process, ...] = ("score", "progress", "min", "clip", "delta")
"""Process rewards that are made of a reward model's step scores."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """What a policy writes in a step of training.

    Attributes:
        problems: a step.
        samples: responses to each problem.
        temperature: at which they are drawn, and at which the policy is taught.
        max_new_tokens: of a response; in an environment, of a turn.
        split: how responses are cut into steps, see `prmkit.splitting`.
    """

    problems: int = 16
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 512
    split: str = "blank_line"

    def __post_init__(self) -> None:
        at_least(1, problems=self.problems, samples=self.samples)
        at_least(1, max_new_tokens=self.max_new_tokens)
        above(0, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What a response earns.

    Attributes:
        reward: what steps earn. none: nothing, the outcome alone counts; score: their scores;
            progress: a step's score less that of the step before; min: the scores so weighted
            that they add up to the lowest (PURE); clip: what a score lacks to `threshold`; delta:
            a score less the next one; implicit: the log-ratio of a reward model that is trained
            on outcomes meanwhile (PRIME); prl: what keeps the policy near the reference (PRL).
        outcome_weight: of the verifiable outcome beside it; by default 1 with none, implicit and
            prl, else 0.
        softmin: temperature of min; 0 takes the lowest step alone.
        threshold: of clip, and of consensus.
        length_power: rewards are divided by the number of steps to this power.
        consensus: steps earn only where score and outcome agree.
        eta: of prl.
        aggregate: step scores to one number, for pairs of responses, and for the monitors where
            scores earn nothing; else they watch what scores earn.
        margin: of pairs: the least difference of values.
        pair_beta: of pairs: β of their log-ratios to the reference.
    """

    reward: Process = "none"
    outcome_weight: float | None = None
    softmin: float = 0.1
    threshold: float = 0.5
    length_power: float = 0.0
    consensus: bool = False
    eta: float = 200.0
    aggregate: Aggregation = "min"
    margin: float = 0.1
    pair_beta: float = 0.1

    def __post_init__(self) -> None:
        known("reward", self.reward, get_args(Process))
        at_least(0, softmin=self.softmin, length_power=self.length_power, margin=self.margin)
        above(0, eta=self.eta, pair_beta=self.pair_beta)
        if self.outcome_weight is not None:
            at_least(0, outcome_weight=self.outcome_weight)
            if self.outcome_weight == 0 and self.reward == "none":
                raise InvalidSetting("with the reward none and outcome_weight 0 nothing is taught")
        if (self.consensus or self.length_power) and self.reward not in SCORED:
            raise InvalidSetting(
                f"consensus and length_power change rewards made of step scores "
                f"({', '.join(SCORED)}); the reward is {self.reward}"
            )

    @property
    def of_outcome(self) -> float:
        """The weight of the outcome."""
        if self.outcome_weight is not None:
            return self.outcome_weight
        return 0.0 if self.reward in SCORED else 1.0

    @property
    def by_outcome(self) -> bool:
        """Whether what a response earns depends on whether it is right."""
        return self.of_outcome > 0 or self.consensus or self.reward == "implicit"


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How rewards change a policy.

    Attributes:
        learning_rate: of AdamW, after a warm-up of a few steps.
        epochs: times that a step's responses are learnt from.
        minibatches: optimiser steps in each; problems stay together.
        clip_low: a token's probability counts down to 1 - clip_low of what it was.
        clip_high: and up to 1 + clip_high.
        kl: weight of the divergence from the reference (the policy at the start) in the loss.
        kl_kind: how it is estimated: k1, k2 or k3.
        gamma: discount, a token or a step: see `per`.
        lam: λ of PPO's advantages, a token or a step.
        per: what gamma and lam are of: token, or step (of an episode: a turn); by default step in
            an environment, else token.
        scale: GRPO divides by the standard deviation of the group, of the batch, or of none.
        average: a mean over tokens, over responses, or over max_tokens (Dr. GRPO).
        max_grad_norm: gradients are cut to this norm.
        low: problems of which a smaller share of the responses is right teach nothing.
        high: and those of which a larger share is.
        tokens_per_pass: of a forward pass, which memory limits.
    """

    learning_rate: float = 1e-6
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    kl_kind: KlKind = "k3"
    gamma: float = 1.0
    lam: float = 0.95
    per: Per | None = None
    scale: Literal["group", "batch", "none"] = "group"
    average: Average = "token"
    max_grad_norm: float = 1.0
    low: float | None = None
    high: float | None = None
    tokens_per_pass: int = 16_384

    def __post_init__(self) -> None:
        above(0, learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(1, tokens_per_pass=self.tokens_per_pass)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high, kl=self.kl)
        known("average", self.average, get_args(Average))
        known("kl_kind", self.kl_kind, get_args(KlKind))
        if self.per is not None:
            known("per", self.per, get_args(Per))
        if not 0 < self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise InvalidSetting(
                f"gamma is {self.gamma!r} and lam {self.lam!r}; gamma is above 0, lam at least 0, "
                "and both at most 1"
            )
        low, high = self.low or 0.0, 1.0 if self.high is None else self.high
        if not 0 <= low <= high <= 1:
            raise InvalidSetting(
                f"low is {self.low!r} and high {self.high!r}; they are shares, low below high"
            )

    def taught(self, algorithm: Algorithm) -> tuple[float, float]:
        """The least and the greatest share of right responses with which a problem teaches."""
        low, high = (0.2, 0.8) if algorithm == "prime" else (0.0, 1.0)
        return (low if self.low is None else self.low, high if self.high is None else self.high)


@dataclass(frozen=True, kw_only=True)
class ImplicitSettings:
    """The reward model of implicit rewards, which begins as the policy does.

    Attributes:
        beta: β of its log-ratio.
        prm_learning_rate: of AdamW.
        prm_grad_norm: its gradients are cut to this norm.
        forward: single scores with the model as it is before it learns from a step's outcomes,
            double with it as it is afterwards.
        online: whether it learns at all; else it is what `prm` holds, all along.
        prm: folder of the model to begin with; by default the policy's.
        scaled: of prime: rewards are divided by the largest return of the batch, as its public
            code does; β cancels then, and a model that knows nothing yet speaks as loud as one
            that does. Without it they are as they are.
    """

    beta: float = 0.05
    prm_learning_rate: float | None = None
    prm_grad_norm: float = 10.0
    forward: Forward = "single"
    online: bool = True
    prm: str | None = None
    scaled: bool = True

    def __post_init__(self) -> None:
        above(0, beta=self.beta, prm_grad_norm=self.prm_grad_norm)
        if self.prm_learning_rate is not None:
            above(0, prm_learning_rate=self.prm_learning_rate)
        known("forward", self.forward, get_args(Forward))
        if not self.online:
            if self.prm is None:
                raise InvalidSetting(
                    "an implicit reward model that does not learn must be another one than the "
                    "policy, whose log-ratio is 0: give its folder (--prm)"
                )
            for name in ("prm_learning_rate", "prm_grad_norm", "forward"):
                if getattr(self, name) != getattr(ImplicitSettings, name):
                    raise InvalidSetting(f"{name} has no meaning for a model that does not learn")


@dataclass(frozen=True, kw_only=True)
class RLSettings:
    """What is taught, and for how long.

    Attributes:
        policy: folder of the language model.
        out: the run folder: config.json, metrics.jsonl, report.html, checkpoints, and the policy
            in the end.
        algorithm: prime, grpo, rloo, ppo, reinforce, reinforce++, or with pairs step-dpo, dpo.
        steps: of training.
        save_every: steps between checkpoints; the last two are kept.
        eval_every: steps between evaluations; 0 evaluates at the start and at the end.
        eval_samples: responses to each problem of an evaluation, beside the likeliest one.
        warmup: steps in which the learning rate rises.
        seed: of everything that is drawn.
        device: cpu or cuda; by default a GPU where there is one. Several processes, which
            torchrun starts, take one GPU each.
        precision: of passes; auto is bfloat16 on a GPU, else float32, as weights always are.
    """

    policy: str
    out: Path = Path("runs/rl")
    algorithm: Algorithm = "grpo"
    steps: int = 100
    save_every: int = 20
    eval_every: int = 0
    eval_samples: int = 4
    warmup: int = 5
    seed: int = 0
    device: str | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        known("algorithm", self.algorithm, get_args(Algorithm))
        at_least(1, steps=self.steps, save_every=self.save_every)
        at_least(0, eval_every=self.eval_every, eval_samples=self.eval_samples)
        at_least(0, warmup=self.warmup)


def known(name: str, value: Any, there: Sequence[str]) -> None:
    """Refuse a value that is none of those that there are.

    Raises:
        UnknownName: with what is near.
    """
    if value not in there:
        raise UnknownName(name, value, there)


def check_together(
    settings: RLSettings, rewards: RewardSettings, has_scorer: bool, n_samples: int
) -> None:
    """Refuse what does not go together.

    Raises:
        InvalidSetting: saying what to change.
    """
    if settings.algorithm in PREFERENCES:
        if rewards.reward != "score" or not has_scorer:
            raise InvalidSetting(
                f"{settings.algorithm} makes pairs by step scores: give a reward model (--model) "
                "and --reward score"
            )
        if rewards.outcome_weight is not None:
            raise InvalidSetting(f"outcome_weight has no meaning with {settings.algorithm}")
    elif rewards.reward in SCORED and not has_scorer:
        raise InvalidSetting(
            f"the reward {rewards.reward} is made of step scores: give a reward model (--model)"
        )
    if settings.algorithm == "prime" and rewards.reward != "implicit":
        raise InvalidSetting(f"prime's reward is implicit, not {rewards.reward}")
    if settings.algorithm == "ppo" and rewards.reward == "prl":
        raise InvalidSetting("prl is added to advantages; with ppo use kl instead")
    if n_samples == 1 and settings.algorithm not in ("ppo", "reinforce", "reinforce++"):
        raise InvalidSetting(
            f"{settings.algorithm} compares the responses to a problem; one sample has nothing to "
            "be compared with. Draw at least 2"
        )
