"""``prm rl --env`` as it is typed: an agent is taught, and gone on with."""

from __future__ import annotations

import json

import pytest

from prmkit.cli import rl
from prmkit.cli.rl_env import RLEnvironment
from prmkit.environments.base import Task
from prmkit.environments.playing import EpisodeSettings
from prmkit.errors import InvalidSetting, PrmkitError

ENV = (
    "rl", "--env", "crafting", "--task", "depth-1", "--seeds", "20-27", "--max-steps", 3,
    "--problems-per-step", 2, "--samples", 2, "--max-new-tokens", 8, "--learning-rate", 1e-3,
    "--report-to", "none", "--device", "cpu",
)  # fmt: skip


def other(command, option, value):
    """The same with another value of an option."""
    command = list(command)
    if option in command:
        command[command.index(option) + 1] = value
        return command
    return [*command, option, value]


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(out):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out)]


@pytest.fixture(scope="module")
def command(tiny_lm, tiny_prm):
    # Nobody succeeds at random; so what is paid are scores of turns.
    return (
        *ENV, "--policy", tiny_lm, "--model", tiny_prm, "--algorithm", "ppo", "--reward", "score",
        "--held-out-seeds", "50-51", "--eval-samples", 1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The folder of a run of three steps that nobody disturbs."""
    from prmkit.cli import main

    out = tmp_path_factory.mktemp("whole") / "rl"
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command), "--steps", "3", "--json", "-o", str(out)])
    assert ended.value.code == 0
    return out


def test_an_agent_is_taught_and_evaluated(whole):
    found = rows(whole)
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    assert [row["env_steps"] for row in found] == [0, 12, 24, 36]
    assert [row["step"] for row in found if "eval_accuracy" in row] == [0, 3]
    assert found[-1]["eval_problems"] == 2
    for row in found[1:]:
        assert row["steps"] == 3
        assert row["unscored"] == 0
        assert row["grad_norm"] > 0
    told = json.loads((whole / "config.json").read_text())
    assert (told["env"], told["max_steps"], told["per"]) == ("crafting", 3, "step")
    assert "in_flight" not in told
    assert told["problems"].startswith("8, ")
    assert (whole / "report.html").is_file()
    assert (whole / "policy" / "model.safetensors").is_file()


def test_ctrl_c_and_the_same_command_again(prm, command, whole, tmp_path, monkeypatch):
    from prmkit.rl import episodes

    out, original, left = tmp_path / "rl", episodes.rollout, [4]

    def interrupted(*arguments, **more):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(*arguments, **more)

    monkeypatch.setattr(episodes, "rollout", interrupted)
    # Two evaluations at the start, and two steps.
    code, printed, _ = prm(*command, "--steps", 3, "-o", out)
    assert (code, printed) == (130, "")
    assert [row["step"] for row in rows(out)] == [0, 1, 2]
    left[0] = 9
    code, printed, _ = prm(*command, "--steps", 3, "-o", out, "--in-flight", 128)
    assert code == 0
    assert "environment steps" in printed
    assert left[0] == 9 - 3
    assert timeless(out) == timeless(whole)
    one, other = ((f / "policy" / "model.safetensors").read_bytes() for f in (out, whole))
    assert one == other


def test_another_environment_or_other_tasks_are_another_run(prm, command, whole):
    for more in (("--seeds", "8"), ("--max-steps", 4), ("--held-out-seeds", "60-60")):
        code, _, err = prm(*other(command, *more), "--steps", 3, "-o", whole)
        assert code == 1
        assert "other settings" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--problems", "p.jsonl"), "problems has no meaning with the environment crafting"),
        (("--eval", "p.jsonl"), "hold tasks of it out (--held-out-seeds)"),
        (("--world", "ood"), "world has no meaning with the environment"),
        (("--limit", 4), "say which tasks (--seeds)"),
        (("--split", "line"), "the steps of an episode are its turns"),
        (("--seeds", "none"), "seeds is 'none'"),
        (("--held-out-seeds", "27-30"), "1 tasks are held out and practised on too"),
        (("--task", "depth-99"), "no task is called 'depth-99'"),
        (("--games", "g"), "games are TextWorld's"),
        (("--reward", "score"), "give a reward model (--model)"),
        (("--eval-every", 2), "without tasks to evaluate on (--held-out-seeds)"),
        (("--eval-samples", 2), "without tasks to evaluate on (--held-out-seeds)"),
        (("--algorithm", "step-dpo", "--model", "embedded/prm"), "dpo compares whole episodes"),
        (("--max-steps", 0), "max_steps"),
    ],
)
def test_what_has_no_meaning_is_refused(prm, tmp_path, monkeypatch, more, message):
    from prmkit.rl import parts

    def loaded(*arguments, **settings):
        raise AssertionError("a model was loaded")

    for name in ("HFPolicy", "Speaker", "Critic"):
        monkeypatch.setattr(parts, name, loaded)
    command = ENV
    for option, value in zip(more[::2], more[1::2], strict=True):
        command = other(command, option, value)
    code, _, err = prm(*command, "--steps", 1, "-o", tmp_path / "rl")
    assert code in (1, 2)
    assert message in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "rl").exists()


@pytest.mark.parametrize(
    "given", [{"task": ("depth-1",)}, {"seeds": "3"}, {"held_out_seeds": "3"}, {"max_steps": 3}]
)
def test_options_of_an_environment_need_one(given):
    with pytest.raises(InvalidSetting, match=r"has no meaning without an environment \(--env\)"):
        RLEnvironment(**given)


def test_tasks_are_those_of_all_kinds_and_seeds():
    practice = RLEnvironment(
        env="crafting", task=("depth-1", "depth-2"), seeds="2", held_out_seeds="7-8", threads=2
    ).practice()
    assert practice.practised == [
        Task(seed, kind) for kind in ("depth-1", "depth-2") for seed in (0, 1)
    ]
    assert practice.held_out == [
        Task(seed, kind) for kind in ("depth-1", "depth-2") for seed in (7, 8)
    ]
    assert RLEnvironment().episodes is None
    assert RLEnvironment(env="tools").episodes == EpisodeSettings(in_flight=128)
    with pytest.raises(PrmkitError, match="craftin"):
        RLEnvironment(env="craftin").practice()
    assert rl.RLRollouts().settings([Task()]).max_new_tokens == 512
