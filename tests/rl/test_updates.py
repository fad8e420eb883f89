"""Gradients and figures of a step of learning, against padded passes and losses written out."""

from __future__ import annotations

import math
import random

import pytest
import torch

from prmkit.embedded.build import WEIGHTS
from prmkit.errors import PrmkitError
from prmkit.policies.hf import HFPolicy
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.rl.batch import batch_of
from prmkit.rl.learner import Asked, Critic, Learner, Machine, Speaker, learn, sequences
from prmkit.rl.parts import assemble
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import ImplicitSettings, RewardSettings, UpdateSettings
from prmkit.rl.team import Team
from prmkit.rl.updates import (
    CriticUpdate,
    ImplicitUpdate,
    PairUpdate,
    PolicyUpdate,
    minibatches,
    ratios_of,
)

POLICY = WEIGHTS / "policy"
# Three passes, the last of them with the response without tokens.
CPU = Machine("cpu", False, 24)
TEMPERATURE = 0.8
MAX = 12


def responses():
    """Two problems; the last response has no token."""
    rng = random.Random(5)
    stems = [tuple(rng.randrange(4, 800) for _ in range(n)) for n in (6, 4)]
    found = []
    for i, n in enumerate((5, 1, 8, 3, 7, 0)):
        ids = tuple(rng.randrange(4, 800) for _ in range(n))
        trajectory = Trajectory(
            problem=Problem(id=str(i % 2), prompt="q"), correct=i in (0, 3) if n else None
        )
        found.append(Rollout(trajectory, stems[i % 2], ids, (n - 1,) if n else (), None))
    return found


GROUPS = [0, 1, 0, 1, 0, 1]
BATCH = batch_of(responses(), GROUPS)
ITEMS = sequences(BATCH.rollouts)
CHANCE = torch.Generator().manual_seed(3)
ADVANTAGES = torch.randn(BATCH.mask.shape, generator=CHANCE) * BATCH.mask
NOISE = 0.3 * torch.randn(BATCH.mask.shape, generator=CHANCE)
MORE = 0.2 * torch.randn(BATCH.mask.shape, generator=CHANCE)


@pytest.fixture(scope="module")
def stock():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def speaker():
    return Speaker(POLICY, CPU, TEMPERATURE, learning_rate=1e-3)


@pytest.fixture
def given(monkeypatch):
    """The gradients of each step of the optimiser, which is not made."""
    kept = []

    def step(learner):
        kept.append({n: p.grad.clone() for n, p in learner.model.named_parameters()})
        learner.optimizer.zero_grad()
        return 2.5

    monkeypatch.setattr(Learner, "step", step)
    return kept


def padded_logs(model, items):
    """[B, T, V] log-probabilities before the tokens that are asked about, in one padded pass."""
    longest = max(len(one.prompt) + len(one.ids) for one in items)
    width = max(len(one.ids) for one in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    there = torch.zeros_like(ids)
    for i, one in enumerate(items):
        n = len(one.prompt) + len(one.ids)
        ids[i, :n], there[i, :n] = torch.tensor([*one.prompt, *one.ids]), 1
    logits = model(input_ids=ids, attention_mask=there).logits / TEMPERATURE
    rows = []
    for i, one in enumerate(items):
        begin = len(one.prompt) - 1
        own = logits[i, begin : begin + len(one.ids)]
        rows.append(torch.nn.functional.pad(own, (0, 0, 0, width - len(one.ids))))
    return torch.stack(rows).log_softmax(-1)


def chosen(logs, items):
    wanted = torch.zeros(logs.shape[:2], dtype=torch.long)
    for i, one in enumerate(items):
        wanted[i, : len(one.ids)] = torch.tensor(one.ids, dtype=torch.long)
    return logs.gather(2, wanted[..., None])[..., 0]


def same_gradients(model, loss, found):
    model.zero_grad()
    loss.backward()
    expected = {n: p.grad for n, p in model.named_parameters()}
    assert expected.keys() == found.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        atol = 1e-6 + 5e-4 * gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=atol)


@pytest.fixture(scope="module")
def before(stock):
    """[B, T] log-probabilities by the policy as it is."""
    with torch.no_grad():
        return chosen(padded_logs(stock, ITEMS), ITEMS) * BATCH.mask


def written_out(logs, settings, plain, old, reference, rows=None):
    """The loss, token by token, and what is told of it."""
    rows = range(len(ITEMS)) if rows is None else rows
    total, told = 0.0, dict.fromkeys(("clipped", "kl", "entropy"), 0.0)
    log_probs = chosen(logs, ITEMS)
    lengths = {i: len(ITEMS[i].ids) for i in rows}
    n_tokens = sum(lengths.values())
    for i in rows:
        own = 0.0
        for t in range(lengths[i]):
            p, a = log_probs[i, t], ADVANTAGES[i, t]
            if plain:
                loss = -a * p
            else:
                ratio = (p - old[i, t]).exp()
                low, high = 1 - settings.clip_low, 1 + settings.clip_high
                held = float(min(max(ratio.item(), low), high))
                is_stopped = held * a < (ratio * a).detach()
                told["clipped"] += float(is_stopped)
                loss = -(held * a) if is_stopped else -(ratio * a)
            d = reference[i, t] - p
            kinds = {"k1": -d, "k2": d * d / 2, "k3": d.exp() - 1 - d}
            own = own + loss + settings.kl * kinds[settings.kl_kind]
            told["kl"] += kinds["k3"].item()
            told["entropy"] -= (logs[i, t].exp() * logs[i, t]).sum().item()
        if settings.average == "token":
            total = total + own / n_tokens
        elif settings.average == "response" and lengths[i]:
            total = total + own / lengths[i] / sum(n > 0 for n in lengths.values())
        elif settings.average == "max_tokens":
            total = total + own / (MAX * len(lengths))
    return total, {name: value / n_tokens for name, value in told.items()}


POLICY_CASES = [
    ({"epochs": 1}, False, "same"),
    ({"clip_low": 0.1, "clip_high": 0.28, "epochs": 2}, False, "other"),
    ({"average": "response", "kl": 0.3, "minibatches": 1, "epochs": 2}, False, "other"),
    ({"average": "max_tokens", "kl": 0.3, "kl_kind": "k2"}, False, "same"),
    ({"kl": 0.3, "kl_kind": "k1"}, True, "same"),
    ({"average": "response"}, True, "same"),
]


@pytest.mark.parametrize(("changes", "plain", "old"), POLICY_CASES)
def test_a_policys_gradients(stock, speaker, given, before, changes, plain, old):
    settings = UpdateSettings(**changes)
    update = PolicyUpdate(speaker, settings, plain, MAX)
    assert update.once == (settings.epochs == 1)
    reference = (before + MORE) * BATCH.mask
    was = None if old == "same" else (before + NOISE) * BATCH.mask
    told = update(BATCH, ADVANTAGES, reference, was)
    logs = padded_logs(stock, ITEMS)
    loss, expected = written_out(logs, settings, plain, before if was is None else was, reference)
    assert len(given) == settings.epochs
    same_gradients(stock, loss, given[0])
    if old == "other":
        assert 0 < expected["clipped"] < 1
    expected |= {"loss": loss.item(), "grad_norm": 2.5}
    assert told == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("average", ["token", "response", "max_tokens"])
def test_minibatches_are_wholes_of_their_own(stock, speaker, given, before, average):
    settings = UpdateSettings(minibatches=2, average=average)
    was = (before + NOISE) * BATCH.mask
    told = PolicyUpdate(speaker, settings, False, MAX)(BATCH, ADVANTAGES, before, was)
    assert minibatches(BATCH, 2) == [[0, 2, 4], [1, 3, 5]]
    losses = []
    for found, rows in zip(given, ([0, 2, 4], [1, 3, 5]), strict=True):
        logs = padded_logs(stock, ITEMS)
        loss, _ = written_out(logs, settings, False, was, before, rows)
        same_gradients(stock, loss, found)
        losses.append((loss.item(), sum(len(ITEMS[i].ids) for i in rows)))
    n = sum(n for _, n in losses)
    assert told["loss"] == pytest.approx(sum(x * k for x, k in losses) / n, rel=1e-3, abs=1e-5)


def test_as_many_problems_in_each_minibatch_and_none_twice():
    batch = batch_of(responses() * 2, [5, 3, 5, 3, 5, 3, 7, 8, 7, 8, 7, 9])
    assert minibatches(batch, 2) == [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]
    parts = minibatches(batch, 3)
    assert sorted(i for part in parts for i in part) == list(range(12))
    assert len(minibatches(batch, 9)) == 5


@pytest.mark.parametrize("asked", [1, 2])
def test_a_critics_gradients(given, asked):
    from transformers import AutoModelForTokenClassification

    critic = Critic(POLICY, CPU, learning_rate=1e-3)
    assert not critic.read(ITEMS, BATCH.n_tokens).any()
    seeded = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(critic.model.score.weight, std=0.3, generator=seeded)
    model = AutoModelForTokenClassification.from_pretrained(
        POLICY, num_labels=1, dtype=torch.float32
    ).eval()
    model.load_state_dict(critic.model.state_dict())

    values = []
    for one in ITEMS:
        if not one.ids:
            values.append([])
            continue
        out = model(torch.tensor([[*one.prompt, *one.ids]])).logits[0, :, 0]
        values.append(out[len(one.prompt) - 1 : -1])
    old = critic.read(ITEMS, BATCH.n_tokens)
    for i, own in enumerate(values):
        if len(own):
            torch.testing.assert_close(old[i, : len(own)], own.detach(), rtol=1e-3, atol=1e-4)
            assert not old[i, len(own) :].any()
    old, goals = old + NOISE, old + MORE
    # At every token, or where turns begin alone: what is not asked has no part.
    goals[:, 1::2] = torch.nan if asked == 2 else goals[:, 1::2]
    told = CriticUpdate(critic, UpdateSettings())(BATCH, old, goals)
    loss, n = 0.0, sum(len(one.ids[::asked]) for one in ITEMS)
    for i, own in enumerate(values):
        for t, v in enumerate(own):
            if t % asked:
                continue
            near = old[i, t] + min(max((v - old[i, t]).item(), -0.2), 0.2)
            is_far = abs((v - old[i, t]).item()) > 0.2
            free, held = (v - goals[i, t]) ** 2, (near - goals[i, t]) ** 2
            loss = loss + (held if is_far and held > free else free) / 2 / n
    same_gradients(model, loss, given[0])
    assert told == pytest.approx({"critic_loss": loss.item()}, rel=1e-3)


# Implicit rewards.


def test_an_implicit_reward_models_gradients_and_its_log_ratios(stock, speaker, given, before):
    beta = 0.7
    reference = (before + MORE) * BATCH.mask
    ratios, told = ImplicitUpdate(speaker, ImplicitSettings(beta=beta))(BATCH, reference)
    found = chosen(padded_logs(stock, ITEMS), ITEMS) - reference
    loss, right = 0.0, 0
    for i, one in enumerate(ITEMS):
        n = len(one.ids)
        torch.testing.assert_close(ratios[i, :n], found[i, :n].detach(), rtol=1e-3, atol=1e-4)
        assert not ratios[i, n:].any()
        if n:
            total = found[i, :n].sum()
            is_right = one is ITEMS[0] or one is ITEMS[3]
            chance = 1 / (1 + (-beta * total).exp())
            loss = loss - (chance if is_right else 1 - chance).log() / 5
            right += (total.item() > 0) == is_right
    assert len(given) == 1
    same_gradients(stock, loss, given[0])
    assert told == pytest.approx({"prm_loss": loss.item(), "prm_accuracy": right / 5}, rel=1e-3)


def test_an_implicit_reward_model_learns_outcomes():
    prm = Speaker(POLICY, CPU, learning_rate=3e-4)
    reference, _ = prm.read(ITEMS, BATCH.n_tokens)
    update = ImplicitUpdate(prm, ImplicitSettings(beta=0.5))
    told = [update(BATCH, reference)[1] for _ in range(8)]
    assert told[0]["prm_loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert told[-1]["prm_loss"] < 0.1
    assert told[-1]["prm_accuracy"] == 1


def parts_of(**implicit):
    from prmkit.rl.loop import Plan
    from prmkit.rl.settings import RLSettings

    plan = Plan(
        run=RLSettings(policy=str(POLICY), algorithm="prime", device="cpu", warmup=0),
        rewards=RewardSettings(reward="implicit"),
        update=UpdateSettings(learning_rate=1e-4, low=0.0),
        implicit=ImplicitSettings(prm_learning_rate=1e-3, **implicit)
        if implicit.get("online", True)
        else ImplicitSettings(**implicit),
    )
    return assemble(POLICY, plan, None, Team())


@pytest.mark.parametrize("forward", ["single", "double"])
def test_rewards_by_the_reward_model_before_and_after_it_learns(forward):
    parts = parts_of(forward=forward)
    reference, _ = parts.reference.read(ITEMS, BATCH.n_tokens)
    ratios, told = parts._implicit(BATCH, reference)
    after = ratios_of(parts.prm, BATCH, reference)
    assert told["prm_loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert after.abs().max() > 1e-2
    if forward == "double":
        torch.testing.assert_close(ratios, after)
    else:
        assert ratios.abs().max() < 1e-4


def test_a_frozen_reward_model_stays_what_it_is(tiny_lm):
    """It is another model than the policy, and no part of a checkpoint."""
    parts = parts_of(online=False, prm=str(tiny_lm))
    assert list(parts.learners) == ["policy"]
    start = {n: p.clone() for n, p in parts.prm.model.named_parameters()}
    assert not any(p.requires_grad for p in parts.prm.model.parameters())
    reference, _ = parts.reference.read(ITEMS, BATCH.n_tokens)
    own, _ = parts.prm.read(ITEMS, BATCH.n_tokens)
    ratios, told = parts._implicit(BATCH, reference)
    torch.testing.assert_close(ratios, (own - reference) * BATCH.mask)
    assert told == {}
    figures, _ = parts.learn(BATCH)
    assert "prm_loss" not in figures
    for name, weight in parts.prm.model.named_parameters():
        assert torch.equal(weight, start[name])


# Pairs.

TEXTS = [
    ("Now 3 + 4 = 7 apples.\n", "So 7 eggs.\n"),
    ("Now 3 + 4 = 7 apples.\n", "The answer is 7.\n"),
    ("So they have 12 eggs.\n",),
]
SCORES = [(0.8, 0.1), (0.8, 0.6), (0.2,)]


def scored():
    voice = HFPolicy(POLICY, device="cpu", max_kept=0)
    problem = Problem(id="p", prompt="Ada has 3 apples and 4 pears.")
    found = []
    for i, (texts, values) in enumerate(zip(TEXTS, SCORES, strict=True)):
        ids = [token for text in texts for token in voice.text_ids(text)] + [voice.end]
        trajectory = Trajectory(
            problem=problem, steps=tuple(Step(text=t) for t in texts), correct=i == 1
        )
        scores = StepScores(values=values, semantics="correctness", model="m")
        prompt = tuple(voice.question_ids(problem))
        found.append(Rollout(trajectory, prompt, tuple(ids), (len(ids) - 1,), scores))
    found.append(found[1]._replace(scores=Unscored(reason="none")))
    return voice, found


@pytest.mark.parametrize("algorithm", ["step-dpo", "dpo"])
def test_pairs_gradients(stock, speaker, given, algorithm):
    voice, rollouts = scored()
    other = Speaker(POLICY, CPU, TEMPERATURE)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.mul_(1.02)
    settings = RewardSettings(reward="score", pair_beta=0.4, threshold=0.5, margin=0.3)
    told = PairUpdate(algorithm, speaker, other, voice, settings, UpdateSettings())(rollouts)
    prompt = rollouts[0].prompt
    ids = {text: tuple(voice.text_ids(text)) for texts in TEXTS for text in texts}
    if algorithm == "step-dpo":
        # After the question, the mean 0.8 and 0.2; after the first step 0.6 and 0.1.
        first, second, third = TEXTS[0][0], TEXTS[1][1], TEXTS[0][1]
        later = prompt + ids[first]
        pairs = [
            (Asked(prompt, ids[first]), Asked(prompt, ids[TEXTS[2][0]])),
            (Asked(later, ids[second]), Asked(later, ids[third])),
        ]
    else:
        # The right one's lowest score is 0.6; the wrong ones' are 0.1 and 0.2.
        pairs = [(Asked(prompt, rollouts[1].ids), Asked(prompt, rollouts[i].ids)) for i in (0, 2)]
    loss, ahead = 0.0, 0
    for pair in pairs:
        sums = []
        for one in pair:
            with torch.no_grad():
                reference = other.read([one], len(one.ids))[0][0]
            sums.append((chosen(padded_logs(stock, [one]), [one])[0] - reference).sum())
        loss = loss + (1 + (-0.4 * (sums[0] - sums[1])).exp()).log() / 2
        ahead += (sums[0] > sums[1]).item()
    same_gradients(stock, loss, given[0])
    expected = {"pairs": 2.0, "loss": loss.item(), "pair_accuracy": ahead / 2, "grad_norm": 2.5}
    assert told == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "bounds"),
    [
        # Values differ by .6 at most, and the lowest one of the right response is .6.
        ("step-dpo", {"margin": 0.61}), ("dpo", {"margin": 0.61}), ("dpo", {"threshold": 0.65}),
    ],
)  # fmt: skip
def test_without_pairs_nothing_is_learnt(speaker, given, algorithm, bounds):
    voice, rollouts = scored()
    settings = RewardSettings(reward="score", **bounds)
    update = PairUpdate(algorithm, speaker, speaker, voice, settings, UpdateSettings())
    assert update(rollouts) == {"pairs": 0.0}
    assert given == []


def test_pairs_are_learnt_from_as_often_as_is_said(speaker, given):
    voice, rollouts = scored()
    settings = RewardSettings(reward="score", margin=0.3)
    changes = UpdateSettings(epochs=2, minibatches=5)
    told = PairUpdate("step-dpo", speaker, speaker, voice, settings, changes)(rollouts)
    # Two pairs, each a minibatch.
    assert len(given) == 4
    assert told["pairs"] == 2


# Steps.


def test_without_tokens_nothing_is_learnt(speaker, given, before):
    empty = batch_of([BATCH.rollouts[-1]] * 2, [0, 0])
    nothing = torch.zeros(2, 1)
    assert PolicyUpdate(speaker, UpdateSettings(), False, MAX)(empty, nothing, nothing, None) == {}
    ratios, told = ImplicitUpdate(speaker, ImplicitSettings())(empty, nothing)
    assert (ratios.tolist(), told) == ([[0.0], [0.0]], {})
    assert given == []


def test_gradients_that_are_no_numbers_change_nothing():
    policy = Speaker(POLICY, CPU, learning_rate=1e-3)
    start = {n: p.clone() for n, p in policy.model.named_parameters()}

    def loss(some):
        return policy.log_probs([ITEMS[i] for i in some])[0].sum() * math.nan

    with pytest.raises(PrmkitError, match="norm of the gradients is nan"):
        learn(policy, ITEMS, range(6), loss)
    for name, weight in policy.model.named_parameters():
        assert torch.equal(weight, start[name])


def test_gradients_are_cut_and_the_learning_rate_rises():
    policy = Speaker(POLICY, CPU, learning_rate=1e-3, max_grad_norm=0.5, warmup=3)
    rates = []
    for _ in range(5):
        rates.append(policy.optimizer.param_groups[0]["lr"])
        for weight in policy.model.parameters():
            weight.grad = torch.ones_like(weight)
        n = sum(weight.numel() for weight in policy.model.parameters())
        assert policy.step() == pytest.approx(math.sqrt(n), rel=1e-4)
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
