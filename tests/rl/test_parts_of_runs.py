"""What reaches whom: settings the models of a run, and what a batch is worth its policy."""

from __future__ import annotations

import pytest
import torch
from test_updates import BATCH, CPU, ITEMS, POLICY

from prmkit.records import StepScores
from prmkit.rl.batch import batch_of
from prmkit.rl.credit import Credit
from prmkit.rl.learner import Critic, Learner, Speaker
from prmkit.rl.loop import Plan
from prmkit.rl.parts import assemble
from prmkit.rl.settings import (
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)
from prmkit.rl.team import Team

GROUPS = BATCH.group.tolist()


class Counts:
    """The meaning of scores is all that is asked of it."""

    name, semantics = "counts", "correctness"


def parts_of(algorithm="grpo", rewards=(), update=(), implicit=(), scorer=None, **rollouts):
    """The models of a run, of which the policy and the critic have moved a little."""
    plan = Plan(
        run=RLSettings(policy=str(POLICY), algorithm=algorithm, device="cpu", warmup=3),
        rollouts=RolloutSettings(**rollouts),
        rewards=RewardSettings(**dict(rewards)),
        update=UpdateSettings(**dict(update)),
        implicit=ImplicitSettings(**dict(implicit)),
    )
    parts = assemble(POLICY, plan, scorer, Team())
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in parts.policy.model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=chance)
        if parts.critic is not None:
            torch.nn.init.normal_(parts.critic.model.score.weight, std=0.3, generator=chance)
    return parts


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """No step is made, so that all can be read once more."""
    monkeypatch.setattr(Learner, "step", lambda learner: 0.0)


def logs(folder, temperature=1.0):
    return Speaker(folder, CPU, temperature).read(ITEMS, BATCH.n_tokens)[0]


def test_prl_is_of_the_policy_to_its_reference():
    rewards, update = RewardSettings(reward="prl", eta=3.0), UpdateSettings()
    parts = parts_of(rewards={"reward": "prl", "eta": 3.0}, temperature=0.7)
    figures, found = parts.learn(BATCH)
    policy, _ = parts.policy.read(ITEMS, BATCH.n_tokens)
    ratios = (policy - logs(POLICY, 0.7)) * BATCH.mask
    assert ratios.abs().max() > 0.1
    expected, total, _ = Credit("grpo", rewards, update)(BATCH, ratios)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert figures["reward"] == pytest.approx(total.mean().item())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("scaled", [True, False])
def test_implicit_rewards_are_of_chances_at_no_temperature(tiny_lm, scaled, temperature):
    """They are what the saved model says of the same text anywhere."""
    implicit = {"beta": 0.3, "online": False, "prm": str(tiny_lm), "scaled": scaled}
    rewards = RewardSettings(reward="implicit")
    parts = parts_of(
        "prime", {"reward": "implicit"}, {"gamma": 0.9}, implicit, temperature=temperature
    )
    figures, found = parts.learn(BATCH)
    ratios = (logs(tiny_lm) - logs(POLICY)) * BATCH.mask
    update = UpdateSettings(gamma=0.9)
    expected, total, _ = Credit("prime", rewards, update, None, 0.3, scaled)(BATCH, ratios)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert figures["reward"] == pytest.approx(total.mean().item(), rel=1e-3)


def test_a_critic_learns_returns_from_what_it_said():
    rewards, update = RewardSettings(), UpdateSettings(gamma=0.9, lam=0.8)
    parts = parts_of("ppo", update={"gamma": 0.9, "lam": 0.8})
    figures, found = parts.learn(BATCH)
    values = parts.critic.read(ITEMS, BATCH.n_tokens)
    assert values.abs().max() > 0.1
    expected, _, goals = Credit("ppo", rewards, update)(BATCH, None, values)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    wrong = ((values - goals)[BATCH.mask] ** 2).mean() / 2
    assert figures["critic_loss"] == pytest.approx(wrong.item(), rel=1e-3)


def test_what_scores_mean_reaches_their_rewards():
    scored = [
        one._replace(
            scores=StepScores(values=(0.1 * i,) * len(one.ends), semantics="correctness", model="m")
        )
        for i, one in enumerate(BATCH.rollouts)
    ]
    batch = batch_of(scored, GROUPS)
    parts = parts_of("rloo", {"reward": "progress"}, scorer=Counts())
    assert (list(parts.learners), parts.critic) == (["policy"], None)
    figures, _ = parts.learn(batch)
    # The first step is counted from even chances; the last response has no token.
    assert figures["reward"] == pytest.approx((0.0 + 0.1 + 0.2 + 0.3 + 0.4) / 5 - 0.5)


def test_settings_reach_the_models():
    parts = parts_of(
        "ppo", {"reward": "implicit"}, {"learning_rate": 1e-4, "max_grad_norm": 0.5},
        {"prm_learning_rate": 1e-3, "prm_grad_norm": 7.0}, temperature=0.7,
    )  # fmt: skip
    assert list(parts.learners) == ["policy", "prm", "critic"]
    assert isinstance(parts.critic, Critic)
    for name, rate, norm in (("policy", 1e-4, 0.5), ("prm", 1e-3, 7.0), ("critic", 1e-4, 0.5)):
        one = parts.learners[name]
        # A fourth of it in the first of three steps of warm-up.
        assert one.optimizer.param_groups[0]["lr"] == pytest.approx(rate / 4)
        assert (one.scheduler.base_lrs, one._norm) == ([rate], norm)
    assert [g["weight_decay"] for g in parts.policy.optimizer.param_groups] == [0.0]
    for speaker, temperature in ((parts.reference, 0.7), (parts.prm, 1.0)):
        found, _ = speaker.read(ITEMS, BATCH.n_tokens)
        torch.testing.assert_close(found, logs(POLICY, temperature))
    assert parts.reference.optimizer is None
    policy, _ = parts.policy.read(ITEMS, BATCH.n_tokens)
    torch.testing.assert_close(policy, parts.policy.at(0.7).read(ITEMS, BATCH.n_tokens)[0])


@pytest.mark.parametrize(
    ("algorithm", "update"), [("reinforce", {}), ("grpo", {"average": "max_tokens"})]
)
def test_a_policys_loss_is_that_of_its_settings(algorithm, update):
    parts = parts_of(algorithm, {"reward": "prl", "eta": 3.0}, update, max_new_tokens=100)
    figures, worth = parts.learn(BATCH)
    policy, _ = parts.policy.read(ITEMS, BATCH.n_tokens)
    if algorithm == "reinforce":
        loss = -(worth * policy)[BATCH.mask].mean()
    else:
        loss = -worth[BATCH.mask].sum() / (100 * len(ITEMS))
    assert abs(loss) > 1e-4
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-3, abs=1e-5)
