"""Policies learn from outcomes and step scores.

layout                        how responses lie in tensors
rewards, returns, advantages  what steps earn, and what tokens are worth; pure
policy_losses, pairs          losses, and pairs of steps or responses; pure
practice, episodes            problems that are answered, tasks that an agent acts on
rollouts, placing, batch      what was drawn, where its steps end, as tensors
credit, updates, learner      rewards by their names, one step of learning, passes over forests
loop, parts, saving           a run: its steps, its models, its checkpoints
figures, monitors             what a batch looks like, and whether the policy fools its judge
bridges                       step scores in other trainers
"""

from prmkit.rl.episodes import train_agent
from prmkit.rl.loop import Plan, RLResult, train_policy
from prmkit.rl.monitors import MonitorSettings
from prmkit.rl.settings import (
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)

__all__ = [
    "ImplicitSettings",
    "MonitorSettings",
    "Plan",
    "RLResult",
    "RLSettings",
    "RewardSettings",
    "RolloutSettings",
    "UpdateSettings",
    "train_agent",
    "train_policy",
]
