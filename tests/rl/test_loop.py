"""The loop on tiny models: what it learns, and that nothing of it depends on being left alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prmkit.embedded.build import WEIGHTS
from prmkit.errors import InvalidSetting, RunFolderError, UnknownName
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem, StepScores
from prmkit.rl import saving
from prmkit.rl.learner import Asked, Machine, Speaker, padded, passes
from prmkit.rl.loop import Loop, Plan, train_policy
from prmkit.rl.settings import (
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)

CPU = Machine("cpu", False, 4096)
PROBLEMS = [Problem(id=f"p{i}", prompt=f"Ada has {i} apples and {i + 2} pears.") for i in range(6)]


def likes_short(problem, text):
    return Outcome(None, len(text) < 60)


class Counts:
    """Scores of steps: how often a letter stands there, between 0 and 1."""

    name, semantics = "counts", "correctness"

    def score(self, trajectories):
        return [
            StepScores(
                values=tuple(min(s.text.count("e") / 5, 1.0) for s in t.steps),
                semantics="correctness",
                model=self.name,
            )
            for t in trajectories
        ]


def plan(out, policy=WEIGHTS / "policy", **changes):
    own = {
        "run": {"steps": 3, "save_every": 1, "warmup": 0, "eval_samples": 0},
        "rollouts": {"problems": 3, "samples": 4, "max_new_tokens": 24, "split": "line"},
        "rewards": {}, "update": {"learning_rate": 1e-3}, "implicit": {},
    }  # fmt: skip
    for name, more in changes.items():
        own[name] |= more
    return Plan(
        run=RLSettings(policy=str(policy), out=Path(out), device="cpu", **own["run"]),
        rollouts=RolloutSettings(**own["rollouts"]),
        rewards=RewardSettings(**own["rewards"]),
        update=UpdateSettings(**own["update"]),
        implicit=ImplicitSettings(**own["implicit"]),
    )


def weights(result):
    return load_file(result.policy / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# What a pass reads.


def stock_log_probs(folder, prompt, ids, temperature):
    """Token by token, by the stock model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0] / temperature
    logs = logits[len(prompt) - 1 : -1].log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return logs[torch.arange(len(ids)), torch.tensor(ids)], entropy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_stock_model(temperature):
    rng = random.Random(1)
    stem = tuple(rng.randrange(4, 800) for _ in range(7))
    items = [Asked(stem, tuple(rng.randrange(4, 800) for _ in range(n))) for n in (5, 1, 0, 9)] + [
        Asked(stem[:3], (5, 6, 7)),
        Asked(stem, (9, 9)),
    ]
    speaker = Speaker(WEIGHTS / "policy", CPU._replace(tokens=30), temperature)
    found, entropies = speaker.read(items, 9)
    for i, one in enumerate(items):
        n = len(one.ids)
        assert not found[i, n:].any()
        if n:
            expected, entropy = stock_log_probs(
                WEIGHTS / "policy", one.prompt, one.ids, temperature
            )
            torch.testing.assert_close(found[i, :n], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(entropies[i, :n], entropy, rtol=1e-4, atol=1e-4)


def test_passes_hold_so_many_tokens_and_keep_together_what_belongs_together():
    items = [Asked((1, 2), (3,) * n) for n in (1, 2, 3, 4, 5, 6)]
    assert passes(items, 10) == [[0, 1], [2], [3], [4], [5]]
    assert passes(items, 1, 2) == [[0, 1], [2, 3], [4, 5]]
    assert passes(items, 1000) == [[0, 1, 2, 3, 4, 5]]
    assert passes([], 10) == []


def test_padding_puts_each_sequence_in_its_row_and_lets_gradients_through():
    flat = torch.arange(1.0, 6.0, requires_grad=True)
    items = [Asked((1,), (1, 1)), Asked((1,), ()), Asked((1,), (1, 1, 1))]
    found = padded(flat, items)
    assert found.tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]
    (found * torch.tensor([[1.0, 2, 9], [9, 9, 9], [3, 4, 5]])).sum().backward()
    assert flat.grad.tolist() == [1, 2, 3, 4, 5]


def test_gradients_do_not_depend_on_how_a_batch_is_cut_into_passes(tmp_path, monkeypatch):
    found = {}
    for tokens in (60, 100_000):
        kept = found.setdefault(tokens, [])

        def step(learner, kept=kept):
            # Adam makes a whole step of the least gradient: what it is given is compared.
            kept.append({n: p.grad.clone() for n, p in learner.model.named_parameters()})
            learner.optimizer.zero_grad()
            return 1.0

        monkeypatch.setattr("prmkit.rl.learner.Learner.step", step)
        for average in ("token", "response", "max_tokens"):
            changes = {
                "run": {"algorithm": "ppo", "steps": 1},
                "update": {
                    "tokens_per_pass": tokens, "minibatches": 2, "kl": 0.1, "average": average,
                },
            }  # fmt: skip
            train_policy(PROBLEMS, plan(tmp_path / f"{tokens}{average}", **changes), likes_short)
    cut, whole = found.values()
    # Of the critic and of the policy, two minibatches each.
    assert len(cut) == len(whole) == 3 * 4
    for a, b in zip(cut, whole, strict=True):
        assert any(gradient.abs().max() > 1e-5 for gradient in b.values())
        for name, gradient in b.items():
            torch.testing.assert_close(a[name], gradient, rtol=1e-3, atol=1e-6)


# What is learnt.


ALGORITHMS = [
    ("grpo", {}),
    ("grpo", {"reward": "score"}),
    ("grpo", {"reward": "progress", "outcome_weight": 0.5}),
    ("grpo", {"reward": "implicit"}),
    ("grpo", {"reward": "prl"}),
    ("rloo", {}),
    ("rloo", {"reward": "min", "outcome_weight": 1.0}),
    ("rloo", {"reward": "min", "length_power": 1.0}),
    ("rloo", {"reward": "clip"}),
    ("rloo", {"reward": "delta", "consensus": True}),
    ("prime", {"reward": "implicit"}),
    ("ppo", {}),
    ("ppo", {"reward": "score"}),
    ("ppo", {"reward": "implicit"}),
    ("reinforce", {}),
    ("reinforce", {"reward": "implicit"}),
    ("reinforce++", {"reward": "score"}),
    ("step-dpo", {"reward": "score"}),
    ("dpo", {"reward": "score", "threshold": 0.05}),
]


@pytest.mark.parametrize(("algorithm", "rewards"), ALGORITHMS)
def test_every_algorithm_runs_with_every_kind_of_reward(tmp_path, algorithm, rewards):
    own = plan(
        tmp_path, run={"algorithm": algorithm, "steps": 2}, rewards=rewards,
        update={"low": 0.0, "high": 1.0},
    )  # fmt: skip
    result = train_policy(PROBLEMS, own, likes_short, scorer=Counts())
    rows = [row for row in result.rows if row["step"]]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert all(v == v for v in row.values() if isinstance(v, float)), row
    assert rows[1]["sampled_tokens"] > rows[0]["sampled_tokens"] > 0
    assert rows[0]["prm"] > 0
    start = load_file(WEIGHTS / "policy" / "model.safetensors")
    assert not same(weights(result), {k: v.float() for k, v in start.items()})
    assert (result.out / "prm").is_dir() == (rewards.get("reward") == "implicit")
    assert HFPolicy(result.policy, device="cpu").end == 3


def test_a_policy_learns_what_pays(tmp_path):
    changes = {
        "run": {"algorithm": "rloo", "steps": 12, "save_every": 100},
        "rollouts": {"problems": 6, "samples": 8, "max_new_tokens": 40},
        "update": {"learning_rate": 2e-3},
    }

    def says_so(problem, text):
        return Outcome(None, text.startswith("So"))

    rows = train_policy(PROBLEMS, plan(tmp_path, **changes), says_so).rows
    first, last = ([r["accuracy"] for r in rows if r["step"]][i] for i in (0, -1))
    assert first < 0.9
    assert last > first + 0.1


def test_prime_learns_outcomes_as_step_rewards(tmp_path):
    changes = {
        "run": {"algorithm": "prime", "steps": 10, "save_every": 100},
        "rewards": {"reward": "implicit"},
        "rollouts": {"problems": 4, "samples": 8},
        "update": {"learning_rate": 1e-7, "low": 0.0, "high": 1.0},
        "implicit": {"prm_learning_rate": 3e-3, "beta": 1.0},
    }

    def says_so(problem, text):
        return Outcome(None, text.startswith("So"))

    rows = train_policy(PROBLEMS, plan(tmp_path, **changes), says_so).rows[1:]
    assert rows[-1]["prm_accuracy"] > 0.9
    assert rows[-1]["prm_loss"] < 0.5 < rows[0]["prm_loss"] == pytest.approx(0.6931, abs=1e-3)


def test_problems_beyond_the_bounds_teach_nothing(tmp_path):
    bounds = {"update": {"low": 0.2, "high": 0.8}}
    result = train_policy(
        PROBLEMS, plan(tmp_path, **bounds), lambda problem, text: Outcome(None, True)
    )
    assert [row["kept"] for row in result.rows if row["step"]] == [0.0] * 3
    start = load_file(WEIGHTS / "policy" / "model.safetensors")
    assert same(weights(result), {k: v.float() for k, v in start.items()})


def test_all_problems_have_their_turn_before_one_has_a_second(tmp_path):
    loop = Loop(PROBLEMS, plan(tmp_path), likes_short, None, ())
    seen = [p.id for step in (1, 2, 3, 4) for p in loop._chosen(step)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == sorted(p.id for p in PROBLEMS)
    assert seen[:6] != seen[6:]


# Killed, and gone on with.


def test_a_run_that_is_resumed_has_the_weights_of_one_that_was_not(tmp_path):
    changes = {
        "run": {"algorithm": "prime", "steps": 4, "save_every": 2},
        "rewards": {"reward": "implicit"},
        "update": {"low": 0.0, "high": 1.0},
    }
    whole = train_policy(PROBLEMS, plan(tmp_path / "whole", **changes), likes_short)

    class Stop(Exception):
        pass

    def stop(row):
        if row["step"] == 3:
            raise Stop

    own = plan(tmp_path / "torn", **changes)
    with pytest.raises(Stop):
        train_policy(PROBLEMS, own, likes_short, on_row=stop)
    assert [p.name for p in saving.points(own.run.out)] == ["step-2"]
    resumed = train_policy(PROBLEMS, own, likes_short)
    assert same(weights(whole), weights(resumed))
    assert same(*(load_file(r.out / "prm" / "model.safetensors") for r in (whole, resumed)))
    told = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in r.rows]
        for r in (whole, resumed)
    ]
    assert told[0] == told[1]
    assert [p.name for p in saving.points(own.run.out)] == ["step-2", "step-4"]


def test_what_a_kill_left_half_written_is_swept_and_a_torn_line_dropped(tmp_path):
    own = plan(tmp_path, run={"steps": 2})
    train_policy(PROBLEMS, own, likes_short)
    (tmp_path / "checkpoints" / ".step-3.abc.tmp").mkdir()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "accu')
    longer = plan(tmp_path, run={"steps": 3})
    result = train_policy(PROBLEMS, longer, likes_short)
    assert [row["step"] for row in result.rows] == [0, 1, 2, 3]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_damaged_checkpoint_is_told(tmp_path):
    own = plan(tmp_path, run={"steps": 1})
    train_policy(PROBLEMS, own, likes_short)
    (tmp_path / "checkpoints" / "step-1" / "state.json").write_text("{")
    with pytest.raises(RunFolderError, match="step-1 is damaged"):
        train_policy(PROBLEMS, own, likes_short)


# What does not go together.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": {"reward": "score"}}, "--model"),
        ({"run": {"algorithm": "prime"}}, "implicit"),
        ({"run": {"algorithm": "step-dpo"}}, "pairs"),
        ({"run": {"algorithm": "ppo"}, "rewards": {"reward": "prl"}}, "kl"),
        ({"run": {"algorithm": "reinforce"}, "update": {"epochs": 2}}, "epochs"),
        ({"rollouts": {"samples": 1}}, "at least 2"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tmp_path, changes, message):
    with pytest.raises(InvalidSetting, match=message):
        train_policy(PROBLEMS, plan(tmp_path / "out", policy="nowhere", **changes), likes_short)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RLSettings(policy="x", algorithm="gppo"), UnknownName),
        (lambda: RewardSettings(reward="sum"), UnknownName),
        (lambda: RewardSettings(outcome_weight=0.0), InvalidSetting),
        (lambda: RewardSettings(consensus=True), InvalidSetting),
        (lambda: UpdateSettings(low=0.9, high=0.1), InvalidSetting),
        (lambda: UpdateSettings(gamma=0.0), InvalidSetting),
        (lambda: ImplicitSettings(online=False), InvalidSetting),
        (lambda: ImplicitSettings(online=False, prm="x", forward="double"), InvalidSetting),
        (lambda: RolloutSettings(temperature=0.0), InvalidSetting),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, error):
    with pytest.raises(error):
        make()
