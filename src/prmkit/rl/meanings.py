"""Options that would change nothing with an algorithm or a reward are refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.errors import InvalidSetting
from prmkit.rl.settings import PREFERENCES, SCORED

if TYPE_CHECKING:
    from prmkit.rl.loop import Plan


class _Use(NamedTuple):
    """Settings of a group, whether they change anything, and where they would."""

    group: Any
    names: tuple[str, ...]
    counts: bool
    where: str


def check_meanings(plan: Plan, has_scorer: bool) -> None:
    """Refuse settings that are not the default and have no meaning beside the others.

    Raises:
        InvalidSetting: naming the first, and where it would mean something.
    """
    for use in _uses(plan, has_scorer):
        if use.counts:
            continue
        defaults = {field.name: field.default for field in fields(use.group)}
        for name in use.names:
            value = getattr(use.group, name)
            if value != defaults[name]:
                raise InvalidSetting(
                    f"{name} is {value!r}, and changes nothing here: it is for {use.where}. "
                    f"Leave it out (algorithm {plan.run.algorithm}, reward {plan.rewards.reward})"
                )


def _uses(plan: Plan, has_scorer: bool) -> Iterator[_Use]:
    algorithm, reward = plan.run.algorithm, plan.rewards.reward
    rewards, update = plan.rewards, plan.update
    by_pairs = algorithm in PREFERENCES
    changed = bool(rewards.consensus or rewards.length_power)
    yield _Use(
        plan.rollouts, ("split",), plan.episodes is None,
        "responses to problems; the steps of an episode are its turns",
    )  # fmt: skip
    yield _Use(rewards, ("softmin",), reward == "min", "the reward min")
    yield _Use(
        rewards, ("threshold",), reward == "clip" or rewards.consensus or algorithm == "dpo",
        "the reward clip, consensus, and dpo",
    )  # fmt: skip
    yield _Use(rewards, ("consensus", "length_power"), not by_pairs, "rewards, not for pairs")
    yield _Use(rewards, ("eta",), reward == "prl", "the reward prl")
    yield _Use(rewards, ("margin", "pair_beta"), by_pairs, "algorithms that learn from pairs")
    yield _Use(
        rewards, ("aggregate",), has_scorer and (by_pairs or reward not in SCORED),
        "pairs, and for a reward model (--model) whose scores are watched and earn nothing",
    )  # fmt: skip
    yield _Use(update, ("kl", "average", "low", "high"), not by_pairs, "rewards, not for pairs")
    yield _Use(update, ("kl_kind",), update.kl > 0, "a divergence in the loss (kl)")
    again = update.epochs > 1 or update.minibatches > 1
    yield _Use(
        update, ("clip_low", "clip_high"), not by_pairs and algorithm != "reinforce" and again,
        "responses that are learnt from after the policy has changed (epochs or minibatches "
        "above 1)",
    )  # fmt: skip
    by_tokens = algorithm in ("prime", "ppo", "reinforce", "reinforce++")
    to_go = algorithm == "rloo" and reward not in ("none", "prl") and (reward != "min" or changed)
    yield _Use(
        update, ("gamma",), by_tokens or to_go,
        "prime, ppo, reinforce, reinforce++, and rloo with step rewards other than plain min",
    )  # fmt: skip
    yield _Use(update, ("lam",), algorithm == "ppo", "ppo")
    yield _Use(
        update, ("per",), algorithm == "ppo" or update.gamma != 1, "ppo, and for a gamma below 1"
    )
    yield _Use(update, ("scale",), algorithm == "grpo", "grpo")
    names = tuple(field.name for field in fields(plan.implicit))
    yield _Use(plan.implicit, names, reward == "implicit", "the reward implicit")
