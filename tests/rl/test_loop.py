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
from prmkit.records import Problem, StepScores, Trajectory
from prmkit.rl import saving
from prmkit.rl.learner import Asked, Machine, Speaker, padded, passes
from prmkit.rl.loop import Loop, Plan, train_policy
from prmkit.rl.practice import Questions
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import (
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)
from prmkit.splitting import splitter

CPU = Machine("cpu", False, 4096)
PROBLEMS = [Problem(id=f"p{i}", prompt=f"Ada has {i} apples and {i + 2} pears.") for i in range(6)]


def likes_short(problem, text):
    return Outcome(None, len(text) < 60)


def even(problem, text):
    return Outcome(None, len(text) % 2 == 0)


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


def test_log_probabilities_are_those_of_the_stock_model():
    temperature = 0.7
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


# What is learnt.


FEW = [
    ("grpo", {"reward": "prl"}),
    ("rloo", {"reward": "min", "outcome_weight": 1.0}),
    ("prime", {"reward": "implicit"}),
    ("ppo", {"reward": "score"}),
    ("reinforce", {}),
    ("step-dpo", {"reward": "score"}),
    ("dpo", {"reward": "score", "threshold": 0.05}),
]
MORE = [
    ("grpo", {}),
    ("grpo", {"reward": "score"}),
    ("grpo", {"reward": "progress", "outcome_weight": 0.5}),
    ("grpo", {"reward": "implicit"}),
    ("rloo", {}),
    ("rloo", {"reward": "min", "length_power": 1.0}),
    ("rloo", {"reward": "clip"}),
    ("rloo", {"reward": "delta", "consensus": True}),
    ("ppo", {}),
    ("ppo", {"reward": "implicit"}),
    ("reinforce", {"reward": "implicit"}),
    ("reinforce++", {"reward": "score"}),
]
ALGORITHMS = [*FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)]


@pytest.mark.parametrize(("algorithm", "rewards"), ALGORITHMS)
def test_every_algorithm_runs_with_every_kind_of_reward(tmp_path, algorithm, rewards):
    own = plan(
        tmp_path, rollouts={"max_new_tokens": 16},
        run={"algorithm": algorithm, "steps": 2}, rewards=rewards,
        update={"low": 0.0, "high": 1.0} if algorithm == "prime" else {},
    )  # fmt: skip
    result = train_policy(PROBLEMS, own, even, scorer=Counts())
    rows = [row for row in result.rows if row["step"]]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert all(v == v for v in row.values() if isinstance(v, float)), row
        # Below 0 where what is earned may be.
        assert -1 < row["prm"] < 3
        assert row["prm"] != 0
    assert rows[1]["sampled_tokens"] > rows[0]["sampled_tokens"] > 0
    start = load_file(WEIGHTS / "policy" / "model.safetensors")
    assert not same(weights(result), {k: v.float() for k, v in start.items()})
    assert (result.out / "prm").is_dir() == (rewards.get("reward") == "implicit")
    assert HFPolicy(result.policy, device="cpu").end == 3


@pytest.mark.slow
def test_a_policy_learns_what_pays(tmp_path):
    changes = {
        "run": {"algorithm": "rloo", "steps": 12, "save_every": 100},
        "rollouts": {"problems": 6, "samples": 8, "max_new_tokens": 3},
        "update": {"learning_rate": 5e-4},
    }

    def says_so(problem, text):
        return Outcome(None, text.startswith("So"))

    rows = train_policy(PROBLEMS, plan(tmp_path, **changes), says_so).rows
    right = [r["accuracy"] for r in rows if r["step"]]
    assert sum(right[-3:]) / 3 > sum(right[:3]) / 3 + 0.1


def test_problems_beyond_the_bounds_teach_nothing(tmp_path):
    bounds = {
        "update": {"low": 0.2, "high": 0.8}, "run": {"steps": 2},
        "rollouts": {"max_new_tokens": 8},
    }  # fmt: skip
    result = train_policy(
        PROBLEMS, plan(tmp_path, **bounds), lambda problem, text: Outcome(None, True)
    )
    assert [row["kept"] for row in result.rows if row["step"]] == [0.0] * 2
    start = load_file(WEIGHTS / "policy" / "model.safetensors")
    assert same(weights(result), {k: v.float() for k, v in start.items()})


def rollouts(*known):
    """Responses to one problem; "broken" ones have no tokens."""
    found = []
    for correct in known:
        ids = () if correct == "broken" else (5, 3)
        right = None if correct == "broken" else correct
        trajectory = Trajectory(problem=PROBLEMS[0], correct=right)
        found.append(Rollout(trajectory, (1,), ids, (), None))
    return found


@pytest.mark.parametrize(
    ("changes", "known", "taught"),
    [
        ({}, [True, False, True], [True, False, True]),
        # Neither is an attempt that was worse than another.
        ({}, [True, None, "broken"], [True]),
        ({"rewards": {"reward": "score"}}, [True, None, "broken"], [True, None]),
        ({"rewards": {"reward": "score", "consensus": True}}, [True, None], [True]),
        # Its reward model learns from outcomes alone.
        ({"rewards": {"reward": "implicit", "outcome_weight": 0.0}}, [True, None], [True]),
        # A fifth to four fifths are right, as in PRIME (arXiv:2502.01456).
        ({"run": {"algorithm": "prime"}}, [True] + [False] * 4, [True] + [False] * 4),
        ({"run": {"algorithm": "prime"}}, [True] + [False] * 5, []),
        ({"run": {"algorithm": "prime"}}, [True] * 5 + [False], []),
        ({"run": {"algorithm": "prime"}, "update": {"high": 1.0}}, [True, True], [True, True]),
        # Half of those that are known.
        ({"update": {"low": 0.5, "high": 0.5}}, [True, False, None], [True, False]),
        ({"update": {"low": 0.51}}, [True, False, None], []),
        ({"update": {"high": 0.49}}, [True, False, "broken"], []),
        ({"update": {"low": 0.1}, "rewards": {"reward": "score"}}, [None, None], []),
    ],
)
def test_which_responses_teach(tmp_path, changes, known, taught):
    loop = Loop.__new__(Loop)
    loop._plan = plan(tmp_path, **changes)
    found = loop._teaching(rollouts(*known))
    assert [one.trajectory.correct for one in found] == taught
    assert all(one.ids for one in found)


def test_all_problems_have_their_turn_before_one_has_a_second(tmp_path):
    practice = Questions(PROBLEMS, (), splitter("line"), likes_short)
    loop = Loop(practice, plan(tmp_path), None)
    seen = [p.id for step in (1, 2, 3, 4) for p in loop._chosen(step)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == sorted(p.id for p in PROBLEMS)
    assert seen[:6] != seen[6:]
    # The same by number alone, in whatever order they are asked for.
    assert [p.id for p in loop._chosen(1)] == seen[:3]
    assert [p.id for p in loop._chosen(4)] == seen[9:]
    # Fewer problems than a step has: again and again, as evenly as can be.
    loop._problems, loop._order = PROBLEMS[:2], (-1, [])
    seen = [p.id for step in (1, 2) for p in loop._chosen(step)]
    assert sorted(seen) == ["p0"] * 3 + ["p1"] * 3


# Killed, and gone on with.

IMPLICIT = {
    "run": {"algorithm": "prime", "steps": 4, "save_every": 2, "eval_every": 3, "eval_samples": 1},
    "rollouts": {"problems": 2, "samples": 3, "max_new_tokens": 8},
    "rewards": {"reward": "implicit"},
    "update": {"low": 0.0, "high": 1.0},
}
HELD_OUT = PROBLEMS[4:]


@pytest.fixture(scope="module")
def go(tiny_lm):
    def run(out, **more):
        own = plan(out, tiny_lm, **IMPLICIT)
        return train_policy(PROBLEMS[:4], own, even, held_out=HELD_OUT, **more)

    return run


@pytest.fixture(scope="module")
def whole(go, tmp_path_factory):
    """A run that nobody disturbs."""
    return go(tmp_path_factory.mktemp("whole"))


def rows_of(result):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.rows]


def assert_alike(whole, resumed):
    assert rows_of(whole) == rows_of(resumed)
    assert same(weights(whole), weights(resumed))
    assert same(*(load_file(r.out / "prm" / "model.safetensors") for r in (whole, resumed)))
    assert [p.name for p in saving.points(resumed.out)][-1] == "step-4"
    assert not list(resumed.out.rglob("*.tmp"))


class Stop(Exception):
    pass


def test_a_run_that_is_resumed_has_the_weights_of_one_that_was_not(tmp_path, go, whole):
    def stop(row):
        if row["step"] == 3:
            raise Stop

    with pytest.raises(Stop):
        go(tmp_path, on_row=stop)
    assert [p.name for p in saving.points(tmp_path)] == ["step-2"]
    # As a kill may leave it: a torn line, half a checkpoint, half a model.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "accu')
    (tmp_path / "checkpoints" / ".step-4.abc.tmp").mkdir()
    (tmp_path / ".policy.abc.tmp").mkdir()
    told = []
    resumed = go(tmp_path, on_row=told.append)
    assert [row["step"] for row in told] == [3, 4]
    assert_alike(whole, resumed)
    assert [p.name for p in saving.points(tmp_path)] == ["step-2", "step-4"]
    evaluated = [row["step"] for row in whole.rows if "eval_accuracy" in row]
    assert evaluated == [0, 3, 4]


@pytest.mark.parametrize(
    ("where", "calls", "saved"),
    [
        # In the drawing of step 4 and in its middle, in the evaluation after step 3, and in the
        # writing of its row.
        ("prmkit.rl.practice.roll_out", 3, 3),
        ("prmkit.rl.learner.Learner.step", 7, 2),
        ("prmkit.rl.practice.are_right", 3, 3),
        ("prmkit.rl.saving.append", 3, 3),
        ("prmkit.rl.loop.save_model", 1, 4),
    ],
)
def test_ctrl_c_keeps_whole_steps(tmp_path, monkeypatch, go, whole, where, calls, saved):
    import pkgutil

    original, left = pkgutil.resolve_name(where.replace(".Learner.", ":Learner.")), [calls]

    def interrupted(*arguments, **more):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path)
    assert [p.name for p in saving.points(tmp_path)][-1] == f"step-{saved}"
    assert_alike(whole, go(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_ctrl_c_at_any_line_of_the_loop(tmp_path, go, whole, part):
    import sys

    from prmkit.rl import loop

    files = {loop.__file__, saving.__file__}
    left = [0]

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        return trace

    def traced(out):
        sys.settrace(trace)
        try:
            go(out)
        finally:
            sys.settrace(None)

    traced(tmp_path / "counted")
    lines = -left[0]
    left[0] = random.Random(part).randrange(lines // 8, lines)
    with pytest.raises(KeyboardInterrupt):
        traced(tmp_path / "run")
    assert_alike(whole, go(tmp_path / "run"))


def test_a_run_that_is_done_is_not_done_again(tmp_path, tiny_lm):
    own = plan(tmp_path, tiny_lm, run={"steps": 1})
    first = train_policy(PROBLEMS, own, likes_short)
    (first.policy / "model.safetensors").unlink()
    told = []
    again = train_policy(PROBLEMS, own, likes_short, on_row=told.append)
    assert told == []
    assert again.rows == first.rows
    # A kill may have come before the policy was written.
    assert (again.policy / "model.safetensors").is_file()
    longer = train_policy(PROBLEMS, plan(tmp_path, tiny_lm, run={"steps": 2}), likes_short)
    assert [row["step"] for row in longer.rows] == [0, 1, 2]
    with pytest.raises(RunFolderError, match="has done 2 steps, and steps is 1"):
        train_policy(PROBLEMS, own, likes_short)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b"{"), ("state.json", b"{}"), ("policy/weights.pt", b"x"),
        ("policy/optimizer.pt", b""), ("policy/scheduler.pt", None),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_told(tmp_path, file, content):
    learner = Speaker(WEIGHTS / "policy", CPU, learning_rate=1e-3)
    saving.save(tmp_path, saving.Point(1, {}), {"policy": learner})
    assert saving.load(tmp_path, {"policy": learner}) == saving.Point(1, {})
    place = tmp_path / "checkpoints" / "step-1" / file
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(RunFolderError, match="step-1 is damaged"):
        saving.load(tmp_path, {"policy": learner})


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
        ({"update": {"minibatches": 4}}, "no more minibatches than problems"),
        ({"run": {"eval_every": 2}}, "problems to evaluate on"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tmp_path, changes, message):
    with pytest.raises(InvalidSetting, match=message):
        train_policy(PROBLEMS, plan(tmp_path / "out", policy="nowhere", **changes), likes_short)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rewards": {"softmin": 0.0}}, "softmin"),
        ({"rewards": {"threshold": 0.1}}, "threshold"),
        ({"rewards": {"eta": 1.0}}, "eta"),
        ({"rewards": {"margin": 0.0}}, "margin"),
        ({"rewards": {"pair_beta": 1.0}}, "pair_beta"),
        ({"rewards": {"aggregate": "mean"}}, "aggregate"),
        ({"update": {"kl_kind": "k1"}}, "kl_kind"),
        ({"update": {"clip_high": 0.3}}, "clip_high"),
        ({"update": {"gamma": 0.9}}, "gamma"),
        ({"update": {"lam": 0.9}}, "lam"),
        ({"run": {"algorithm": "rloo"}, "update": {"scale": "none"}}, "scale"),
        ({"run": {"algorithm": "rloo"}, "update": {"gamma": 0.9}}, "gamma"),
        ({"implicit": {"beta": 0.1}}, "beta"),
        ({"implicit": {"forward": "double"}}, "forward"),
    ],
)
def test_options_that_change_nothing_are_refused(tmp_path, changes, name):
    with pytest.raises(InvalidSetting, match=f"{name} is .* changes nothing"):
        plan(tmp_path, **changes).check(has_scorer=False)


@pytest.mark.parametrize(
    ("rewards", "update"),
    [
        ({"consensus": True}, {}), ({"length_power": 1.0}, {}), ({}, {"kl": 0.1}),
        ({}, {"low": 0.2}), ({}, {"average": "response"}), ({}, {"clip_low": 0.1, "epochs": 2}),
    ],
)  # fmt: skip
def test_options_that_change_nothing_of_pairs_are_refused(tmp_path, rewards, update):
    run = {"algorithm": "step-dpo"}
    with pytest.raises(InvalidSetting, match="changes nothing"):
        plan(tmp_path, run=run, rewards={"reward": "score"} | rewards, update=update).check(True)


def test_options_that_mean_something_are_taken(tmp_path):
    for algorithm, rewards, update in (
        ("grpo", {}, {"clip_high": 0.28, "minibatches": 2, "scale": "none"}),
        ("rloo", {"reward": "min", "length_power": 1.0}, {"gamma": 0.9}),
        ("ppo", {"reward": "clip", "threshold": 0.4}, {"lam": 0.9, "gamma": 0.99}),
        ("grpo", {"aggregate": "mean"}, {"kl": 0.1, "kl_kind": "k2"}),
        ("dpo", {"reward": "score", "threshold": 0.6, "aggregate": "mean"}, {"epochs": 2}),
    ):
        own = plan(tmp_path, run={"algorithm": algorithm}, rewards=rewards, update=update)
        own.check(has_scorer=True)


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
        (lambda: ImplicitSettings(online=False, prm="x", prm_grad_norm=1.0), InvalidSetting),
        (lambda: RolloutSettings(temperature=0.0), InvalidSetting),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, error):
    with pytest.raises(error):
        make()
