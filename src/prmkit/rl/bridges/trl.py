"""TRL's `GRPOTrainer`: a reward function, and a trainer that takes an advantage for each token.

Read of TRL 1.13.0, ``trl/trainer/grpo_trainer.py``: a reward function is called with the keywords
``prompts``, ``completions``, ``completion_ids``, one list for each column of the data set, and
``trainer_state``, ``log_extra(column, values)`` and ``log_metric(name, value)``; it gives one
number a completion, or None, which is left out. Beyond one number a completion there is no way
in, but `_compute_loss` takes advantages of shape (B, T); `DenseAdvantages` puts them there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidSetting, ScoringError
from prmkit.rl.bridges.placing import Row, TokenAdvantages, row, token_advantages
from prmkit.rl.bridges.scoring import Scored, StepRewards, Talk, of_trainer
from prmkit.rl.placing import written

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "trl>=1.13"

RewardFunc = Callable[..., Any]


class StepRewardFunc:
    """A reward function for ``reward_funcs``: one number a completion, from its steps.

    What was not scored is None, which TRL leaves out of the mean of its group. TRL logs the
    rewards as ``rewards/prm``; the steps' scores are logged beside the completions as
    ``prm_steps``, their mean number and the share of unscored completions as ``prm/steps`` and
    ``prm/unscored``.

    Args:
        rewards: how completions are scored.
        name: what TRL calls it.
    """

    def __init__(self, rewards: StepRewards, name: str = "prm"):
        self.rewards, self.__name__ = rewards, name

    def __call__(
        self,
        prompts: Sequence[Talk],
        completions: Sequence[Talk],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score a batch, as TRL asks for it.

        Args:
            prompts: [N] texts or conversations.
            completions: [N] in the form of the prompts.
            completion_ids: [N] their tokens.
            log_extra: takes a column of N values.
            log_metric: takes a number.
            columns: of the data set, and the trainer's state: not needed.

        Raises:
            ScoringError: if there are not as many prompts as completions or scores.
        """
        del columns
        scored = self.score(prompts, completions, completion_ids)
        if log_extra is not None:
            log_extra("prm_steps", [" ".join(f"{v:.3f}" for v in one.values) for one in scored])
        if log_metric is not None and scored:
            log_metric("prm/steps", sum(len(one.steps) for one in scored) / len(scored))
            log_metric("prm/unscored", sum(one.reward is None for one in scored) / len(scored))
        return [one.reward for one in scored]

    def score(
        self,
        prompts: Sequence[Talk],
        completions: Sequence[Talk],
        completion_ids: Sequence[Sequence[int]] | None,
    ) -> list[Scored]:
        """The scores of a batch."""
        del completion_ids
        return self.rewards.score(prompts, completions)


class _PlacedRewardFunc(StepRewardFunc):
    """The same, of the tokens' own text; it keeps where the steps of the last batch ended."""

    def __init__(self, rewards: StepRewards, tokenizer: Tokenizer):
        super().__init__(rewards)
        self._tokenizer = tokenizer
        self._rows: list[Row] | None = None

    def score(
        self,
        prompts: Sequence[Talk],
        completions: Sequence[Talk],
        completion_ids: Sequence[Sequence[int]] | None,
    ) -> list[Scored]:
        if completion_ids is None or len(completion_ids) != len(completions):
            given = None if completion_ids is None else len(completion_ids)
            raise ScoringError(f"the tokens of {given} completions for {len(completions)} of them")
        # The text that a parser leaves of a completion need not be that of its tokens.
        scored = self.rewards.score(prompts, [written(self._tokenizer, i) for i in completion_ids])
        self._rows = [
            row(self._tokenizer, ids, one) for ids, one in zip(completion_ids, scored, strict=True)
        ]
        return scored

    def take(self, n: int) -> list[Row]:
        """The rows of the last batch, of which there must be `n`; they can be taken once."""
        rows, self._rows = self._rows, None
        if rows is None or len(rows) != n:
            raise ScoringError(
                f"TRL asked for the step rewards of {None if rows is None else len(rows)} "
                f"completions, and trains on {n}"
            )
        return rows


class DenseAdvantages:
    """What `dense_trainer` puts before a `GRPOTrainer`: an advantage for each token.

    The advantage of a token is that of its step among all steps of the group, and that of its
    response by the other reward functions, where there are some, as TRL has it.

    Args:
        given: to the trainer.
        placed: scores the completions; the trainer calls it with weight 0.
        advantages: see `prmkit.rl.bridges.placing.token_advantages`.
        named: to the trainer.
    """

    def __init__(
        self,
        *given: Any,
        placed: _PlacedRewardFunc,
        advantages: TokenAdvantages | None,
        **named: Any,
    ):
        self._placed, self._advantages = placed, advantages
        super().__init__(*given, **named)

    def _calculate_rewards(self, inputs: Any, *given: Any) -> Tensor:
        """TRL's [B of all processes, functions]; a response that no other one judges has none."""
        import torch

        rewards: Tensor = cast(Any, super())._calculate_rewards(inputs, *given)
        if rewards.shape[1] > 1:
            # Else it would count as one with a reward of 0, the weight of the step rewards.
            rewards[rewards[:, :-1].isnan().all(dim=1), -1] = torch.nan
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        from accelerate.utils import gather_object

        trainer = cast(Any, self)
        output: dict[str, Any] = cast(Any, super())._generate_and_score_completions(inputs)
        if "tool_mask" in output:
            raise InvalidSetting(
                "the completions hold tokens that the policy did not write; dense advantages are "
                "for completions without tools and environments"
            )
        own = self._placed.take(len(inputs))
        # A group may be shared by several processes, as TRL's own rewards are.
        rows: list[Row] = gather_object(own)
        n = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        dense = token_advantages(rows, [i // n for i in range(len(rows))], self._advantages)
        begin = trainer.accelerator.process_index * len(own)
        output["advantages"] = self._joined(output, dense[begin : begin + len(own)])
        return output

    def _joined(self, output: Mapping[str, Any], dense: Tensor) -> Tensor:
        """With TRL's own advantages [B], as [B, T] of the completions' padded length."""
        import torch

        mask = output["completion_mask"]
        whole = torch.zeros(mask.shape, device=mask.device)
        n = min(mask.shape[1], dense.shape[1])
        whole[:, :n] = dense[:, :n].to(mask.device)
        whole += output["advantages"].unsqueeze(1)
        joined: Tensor = whole * mask
        return joined


def dense_trainer(
    model: Any,
    rewards: StepRewards,
    *,
    args: Any,
    processing_class: Any,
    reward_funcs: RewardFunc | Sequence[RewardFunc] = (),
    advantages: TokenAdvantages | None = None,
    **named: Any,
) -> Any:
    """A `GRPOTrainer` whose advantages are of tokens, from the scores of steps.

    Args:
        model: see `GRPOTrainer`.
        rewards: how completions are scored. Their text is that of the tokens, special ones
            left out. The number `how` makes of a completion's scores is logged as
            ``rewards/prm``, but is no reward: the steps are.
        args: a `GRPOConfig`. Its ``reward_weights`` are those of `reward_funcs`; its
            ``scale_rewards`` is for them alone.
        processing_class: the policy's tokenizer.
        reward_funcs: other rewards, such as whether the answer is right. TRL makes an advantage
            of them as ever, which each token of a completion gets added.
        advantages: from step scores [B, S], ends [B, S], group [B] and mask [B, T] to [B, T];
            by default `prmkit.rl.advantages.grpo_process`.
        named: see `GRPOTrainer`.

    Raises:
        MissingTrainer: if there is no TRL.
        InvalidSetting: if a setting makes one number of a whole response.
    """
    trl = of_trainer("trl", PACKAGE)
    _check(args, named)
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    placed = _PlacedRewardFunc(rewards, tokenizer)
    others = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
    weights = list(args.reward_weights or [1.0] * len(others))
    if len(weights) != len(others):
        raise InvalidSetting(f"{len(weights)} reward_weights for {len(others)} reward_funcs")
    args = copy.copy(args)
    args.reward_weights = [*weights, 0.0]
    trainer = type("DenseGRPOTrainer", (DenseAdvantages, trl.GRPOTrainer), {})
    return trainer(
        model=model,
        reward_funcs=[*others, placed],
        args=args,
        processing_class=processing_class,
        placed=placed,
        advantages=advantages,
        **named,
    )


def _check(args: Any, named: Mapping[str, Any]) -> None:
    """Refuse a TRL that takes no advantages of tokens, and settings under which it takes none."""
    if int(version("trl").partition(".")[0]) < 1:
        raise InvalidSetting(f"TRL is {version('trl')}; dense advantages need {PACKAGE}")
    whole = {
        "use_liger_kernel": args.use_liger_kernel,
        "off_policy_mask_threshold": args.off_policy_mask_threshold is not None,
        "loss_type='vespo'": args.loss_type == "vespo",
        "importance_sampling_level='sequence'": args.importance_sampling_level == "sequence",
        "tools": bool(named.get("tools")),
        "environment_factory": named.get("environment_factory") is not None,
    }
    for name, is_set in whole.items():
        if is_set:
            raise InvalidSetting(
                f"{name} is for one advantage a response; leave it out for dense advantages, or "
                "take GRPOTrainer with StepRewardFunc"
            )
