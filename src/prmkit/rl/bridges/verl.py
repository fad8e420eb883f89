"""verl: reward functions, a reward manager with a reward for each step, and estimators.

Read of verl 0.9.1. Its ways in, by what they carry:

- ``custom_reward_function`` (one number): `ScoreFunction`, one completion at a time or batched.
- a reward manager of the trainers up to 0.8, ``verl.workers.reward_manager``: the answer is a
  tensor of rewards for each token, so `StepRewardManager` puts each step's score at its last one.
- a reward manager of the reward loop (``verl.experimental.reward_loop``, the only one that the
  trainers of 0.9 load): `reward_loop_manager`. Its ``run_single`` gives one number, and
  ``assemble_rm_scores`` makes a tensor of all. verl calls the latter where rewards are computed
  after the rollouts, that is, with a reward model in the same pool; where they are computed while
  rollouts go on, its agent loop puts the one number at the last token itself.
- ``register_adv_est``: `register` adds two estimators that keep rewards where they are; verl's own
  ``grpo`` and ``rloo`` sum them over the response, ``gae`` and ``reinforce_plus_plus`` do not.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord, InvalidSetting
from prmkit.rl.bridges.placing import Row, row
from prmkit.rl.bridges.scoring import Scored, StepRewards, Talk, of_trainer
from prmkit.rl.placing import written

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

PACKAGE = "verl>=0.9"
QUESTION = "question"
"""Where verl's own data sets keep the question, in ``extra_info``."""


def _question(extra_info: Mapping[str, Any] | None, key: str) -> Talk:
    """What was asked: verl tells it to no reward function, so the data must."""
    if extra_info is None or key not in extra_info:
        known = "nothing" if not extra_info else ", ".join(map(repr, extra_info))
        raise InvalidRecord(
            f"extra_info holds {known}, and the question is looked for at {key!r}; put it there "
            "when the data set is made, or name its place with question=…"
        )
    found: Talk = extra_info[key]
    return found


class ScoreFunction:
    """Reward functions for ``custom_reward_function``: one number a completion, from its steps.

    Args:
        rewards: how completions are scored.
        question: where in ``extra_info`` the question is.
        unscored: the reward of a completion that cannot be scored; without it, that is an error.
    """

    def __init__(
        self, rewards: StepRewards, question: str = QUESTION, unscored: float | None = None
    ):
        self._rewards, self._key, self._unscored = rewards, question, unscored
        # verl calls from a pool of threads.
        self._lock = threading.Lock()

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **reward_kwargs: Any,
    ) -> dict[str, float]:
        """The reward of a completion, as ``score``, and what verl logs beside it.

        Raises:
            InvalidRecord: if the question is not there.
            ScoringError: if it cannot be scored and nothing stands in for its reward.
        """
        (told,) = self.compute_scores([data_source], [solution_str], [ground_truth], [extra_info])
        return told

    def compute_scores(
        self,
        data_sources: Sequence[str],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **reward_kwargs: Any,
    ) -> list[dict[str, float]]:
        """The same for a batch, as verl's batch manager asks for it."""
        del data_sources, ground_truths, reward_kwargs
        asked = [_question(extra, self._key) for extra in extra_infos]
        with self._lock:
            found = self._rewards.score(asked, solution_strs)
        return [told(one, self._unscored) for one in found]


def told(scored: Scored, unscored: float | None) -> dict[str, float]:
    """A reward, and what is logged beside it: the same names for each completion."""
    return {
        "score": scored.reward_or(unscored),
        "prm_steps": float(len(scored.steps)),
        "prm_unscored": float(scored.reward is None),
    }


def _rows(
    rewards: StepRewards, tokenizer: Tokenizer, data: Any, question: str
) -> tuple[list[Scored], list[Row]]:
    """The scored responses of a batch of verl's, and where their steps end."""
    responses = data.batch["responses"]
    mask = data.batch["attention_mask"][:, -responses.shape[1] :].bool()
    own = data.batch["response_mask"].bool() if "response_mask" in data.batch else mask
    if (own != mask).any():
        raise InvalidRecord(
            "the responses hold tokens that the policy did not write; scores of steps are placed "
            "in responses of one turn alone"
        )
    ids = [one[there].tolist() for one, there in zip(responses, mask, strict=True)]
    raw = data.non_tensor_batch.get("raw_prompt")
    extra = data.non_tensor_batch.get("extra_info")
    asked = [
        list(raw[i])
        if raw is not None
        else _question(None if extra is None else extra[i], question)
        for i in range(len(ids))
    ]
    scored = rewards.score(asked, [written(tokenizer, one) for one in ids])
    rows = [row(tokenizer, one, s) for one, s in zip(ids, scored, strict=True)]
    return scored, rows


def _placed(shape: Tensor, rows: Sequence[Row], stand_in: Sequence[float]) -> Tensor:
    """Step scores at the steps' last tokens; where there are none, the stand-in at the end."""
    import torch

    tensor = torch.zeros(shape.shape, dtype=torch.float32)
    # A step's score of exactly 0 has to be told from a token that ends no step.
    least = torch.finfo(torch.float32).tiny
    for i, (one, instead) in enumerate(zip(rows, stand_in, strict=True)):
        if not one.n_tokens:
            continue
        for end, value in zip(one.ends, one.values, strict=True):
            tensor[i, end] += value or least
        if not one.values:
            tensor[i, one.n_tokens - 1] = instead
    return tensor


class StepRewardManager:
    """A reward manager of verl's trainers up to 0.8: each step's score at its last token.

    verl makes it with what it has; `rewards` comes by ``reward_kwargs`` or `functools.partial`.
    A score of exactly 0 is put down as the least positive number, so that it shows where the step
    ended. A response that cannot be scored gets `unscored` at its last token.

    Args:
        tokenizer: of the policy.
        num_examine: how many responses of a batch are logged with their scores.
        compute_score: verl's reward of the outcome, asked where `outcome` is not 0.
        reward_fn_key: where a batch tells the source of its data.
        rewards: how completions are scored.
        outcome: weight of the outcome's reward, added at the last token.
        question: where in ``extra_info`` the question is, in batches without ``raw_prompt``.
        unscored: see `ScoreFunction`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        num_examine: int = 0,
        compute_score: Callable[..., Any] | None = None,
        reward_fn_key: str = "data_source",
        *,
        rewards: StepRewards,
        outcome: float = 0.0,
        question: str = QUESTION,
        unscored: float | None = None,
    ):
        if outcome and compute_score is None:
            raise InvalidSetting(f"outcome is {outcome!r}, and no compute_score was given")
        self._tokenizer, self._examine, self._key = tokenizer, num_examine, reward_fn_key
        self._compute, self._outcome = compute_score, outcome
        self._rewards, self._question, self._unscored = rewards, question, unscored

    def __call__(self, data: Any, return_dict: bool = False) -> Any:
        """The rewards of a batch.

        Args:
            data: a ``DataProto`` with ``responses`` [B, T] and ``attention_mask``.
            return_dict: with what is logged beside.

        Returns:
            [B, T], or with ``return_dict`` that as ``reward_tensor`` and ``reward_extra_info``.

        Raises:
            InvalidRecord: if the question is not there, or responses have several turns.
            ScoringError: if one cannot be scored and nothing stands in for its reward.
        """
        scored, rows = _rows(self._rewards, self._tokenizer, data, self._question)
        notes = [told(one, self._unscored) for one in scored]
        tensor = _placed(data.batch["responses"], rows, [note["score"] for note in notes])
        if self._outcome and self._compute is not None:
            for i, (one, note) in enumerate(zip(scored, notes, strict=True)):
                note["outcome"] = self._right(self._compute, data, i, "".join(one.steps))
                if rows[i].n_tokens:
                    tensor[i, rows[i].n_tokens - 1] += self._outcome * note["outcome"]
        for one in scored[: self._examine]:
            logger.info("%r: %s", "".join(one.steps), one.scores)
        if not return_dict:
            return tensor
        names = notes[0] if notes else {}
        return {
            "reward_tensor": tensor,
            "reward_extra_info": {name: [note[name] for note in notes] for name in names},
        }

    def _right(self, compute: Callable[..., Any], data: Any, i: int, text: str) -> float:
        batch = data.non_tensor_batch
        found = compute(
            data_source=batch[self._key][i],
            solution_str=text,
            ground_truth=batch["reward_model"][i]["ground_truth"],
            extra_info=batch["extra_info"][i] if "extra_info" in batch else {},
        )
        return float(found["score"] if isinstance(found, dict) else found)


class PlacedReward(float):
    """A reward that knows of which steps it was made; a plain number to whoever does not ask.

    Args:
        reward: of the whole completion.
        row: its steps' scores and their places.
    """

    row: Row

    def __new__(cls, reward: float, row: Row) -> PlacedReward:
        """A float; see the class."""
        made = super().__new__(cls, reward)
        made.row = row
        return made

    def __reduce__(self) -> tuple[type, tuple[float, Row]]:
        return PlacedReward, (float(self), self.row)


def reward_loop_manager(
    rewards: StepRewards, question: str = QUESTION, unscored: float | None = None
) -> Any:
    """The class of a reward manager for verl's reward loop.

    In the configuration: ``reward.reward_manager.source=importlib``, ``module.path`` a file of
    yours, and ``name`` what the class is called there.

    Args:
        rewards: how completions are scored.
        question: where in ``extra_info`` the question is, in batches without ``raw_prompt``.
        unscored: see `ScoreFunction`.

    Raises:
        MissingTrainer: if there is no verl.
    """
    base = of_trainer("verl.experimental.reward_loop.reward_manager.base", PACKAGE)

    def __init__(
        self: Any,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        # What belongs to verl's own reward models has no use here.
        del reward_router_address, reward_model_tokenizer
        base.RewardManagerBase.__init__(self, config, tokenizer, compute_score)
        self.one_at_a_time = threading.Lock()

    def score(self: Any, data: Any) -> dict[str, Any]:
        with self.one_at_a_time:
            (scored,), (place,) = _rows(rewards, self.tokenizer, data, question)
        note = told(scored, unscored)
        return {"reward_score": PlacedReward(note["score"], place), "reward_extra_info": note}

    async def run_single(self: Any, data: Any) -> dict[str, Any]:
        # Of a rollout of several sequences verl rewards the last one.
        return await asyncio.get_running_loop().run_in_executor(None, score, self, data[-1:])

    def assemble_rm_scores(cls: type, data: Any, scores: Sequence[float]) -> Tensor:
        rows = [one.row for one in scores if isinstance(one, PlacedReward)]
        if len(rows) != len(scores):
            raise InvalidRecord(f"{len(rows)} of {len(scores)} rewards know their steps")
        return _placed(data.batch["responses"], rows, scores)

    members = {
        "__init__": __init__,
        "run_single": run_single,
        "assemble_rm_scores": classmethod(assemble_rm_scores),
    }
    return type("StepRewardLoopManager", (base.RewardManagerBase,), members)


def _groups(index: Any) -> Tensor:
    """The [B] names that verl gives problems, as numbers."""
    import numpy as np
    import torch

    return torch.from_numpy(np.unique(np.asarray(index).astype(str), return_inverse=True)[1])


def grpo_process(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    config: Any = None,
    index: Any = None,
    **more: Any,
) -> tuple[Tensor, Tensor]:
    """`prmkit.rl.advantages.grpo_process` as an estimator of verl's.

    A token with a reward that is not 0 is taken for the end of a step, so the rewards must be
    those of a manager of this module, without a penalty for KL in them.

    Args:
        token_level_rewards: [B, T].
        response_mask: [B, T].
        config: verl's of the algorithm; ``use_kl_in_reward`` must not be set.
        index: [B] names of the problems.
        more: what verl tells other estimators.

    Returns:
        Advantages and returns, [B, T] both, the same as for verl's own ``grpo``.

    Raises:
        InvalidSetting: if KL is in the rewards, or verl tells no index.
    """
    import torch

    from prmkit.rl.advantages import grpo_process as advantages

    del more
    _needs_index(index)
    if config is not None and config.get("use_kl_in_reward", False):
        raise InvalidSetting(
            "algorithm.use_kl_in_reward puts a reward at each token, and grpo_process has to see "
            "where steps end; use actor.use_kl_loss, or the estimator prmkit_rloo_process"
        )
    mask = response_mask.bool()
    there = (token_level_rewards != 0) & mask
    n_steps = max(int(there.sum(1).max()), 1) if there.numel() else 1
    ends = torch.full((len(there), n_steps), -1, dtype=torch.long, device=mask.device)
    values = torch.zeros(ends.shape, dtype=torch.float32, device=mask.device)
    for i, one in enumerate(there):
        at = one.nonzero()[:, 0]
        ends[i, : len(at)] = at
        values[i, : len(at)] = token_level_rewards[i, at].float()
    found = advantages(values, ends, _groups(index).to(mask.device), mask)
    return found, found


def rloo_process(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    config: Any = None,
    index: Any = None,
    **more: Any,
) -> tuple[Tensor, Tensor]:
    """`prmkit.rl.advantages.rloo_process` as an estimator of verl's; see `grpo_process`.

    It takes rewards at any tokens, those with a penalty for KL too, and verl's ``gamma``.
    """
    from prmkit.rl.advantages import rloo_process as advantages

    del more
    _needs_index(index)
    gamma = 1.0 if config is None else float(config.get("gamma", 1.0))
    groups = _groups(index).to(response_mask.device)
    found = advantages(token_level_rewards, groups, response_mask.bool(), gamma)
    return found, found


def _needs_index(index: Any) -> None:
    if index is None:
        raise InvalidSetting("verl told no index, so nobody knows which responses are a group")


ESTIMATORS = {"prmkit_grpo_process": grpo_process, "prmkit_rloo_process": rloo_process}
"""The estimators of this module, by the name that ``algorithm.adv_estimator`` gives."""


def register() -> tuple[str, ...]:
    """Make the estimators known to verl, in the process that computes advantages.

    Returns:
        Their names.

    Raises:
        MissingTrainer: if there is no verl.
    """
    algorithms = of_trainer("verl.trainer.ppo.core_algos", PACKAGE)
    for name, estimator in ESTIMATORS.items():
        algorithms.register_adv_est(name)(estimator)
    return tuple(ESTIMATORS)
