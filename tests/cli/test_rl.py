"""``prm rl`` as it is typed: in the embedded world, torn and gone on with, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from prmkit.cli import rl
from prmkit.cli.reward_model import RLModel
from prmkit.embedded.world import problems
from prmkit.errors import InvalidSetting
from prmkit.formats.files import write_records
from prmkit.records import Problem, Record, Step, Trajectory
from prmkit.rl import parts
from prmkit.rl.loop import Plan
from prmkit.rl.monitors import Alarm
from prmkit.rl.settings import RLSettings, RolloutSettings

TINY = (
    "--problems-per-step", 2, "--samples", 2, "--max-new-tokens", 24,
    "--eval-samples", 1, "--limit", 8,
    "--learning-rate", 1e-4, "--report-to", "none", "--device", "cpu",
)  # fmt: skip


def put(file, items):
    write_records(
        [Record(trajectory=Trajectory(problem=p, steps=(Step(text="So."),))) for p in items], file
    )
    return file


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return put(tmp_path_factory.mktemp("data") / "test.jsonl", problems("test", 3, 60_000))


@pytest.fixture(scope="module")
def command(held_out):
    return ("rl", *TINY, "--eval", held_out)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The folder of a run of three steps that nobody disturbs."""
    from prmkit.cli import main

    out = tmp_path_factory.mktemp("whole") / "rl"
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command), "--steps", "3", "--json", "-o", str(out)])
    assert ended.value.code == 0
    return out


@pytest.fixture
def no_model(monkeypatch):
    """Loading weights is a failure."""

    def loaded(*arguments, **more):
        raise AssertionError("a model was loaded")

    for name in ("HFPolicy", "Speaker", "Critic"):
        monkeypatch.setattr(parts, name, loaded)


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(out):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out)]


def weights(out):
    return (out / "policy" / "model.safetensors").read_bytes()


def one_line(text):
    return " ".join(text.split())


def test_a_policy_of_the_embedded_world_is_taught(prm, command, tmp_path):
    out = tmp_path / "rl"
    code, printed, err = prm(*command, "--steps", 2, "-o", out)
    assert code == 0, err
    assert "right, likeliest: after" in printed
    assert "sampled tokens" in printed
    assert f"policy: {out / 'policy'}" in err
    assert "no live curves" not in err
    found = rows(out)
    assert [row["step"] for row in found] == [0, 1, 2]
    assert [row["eval_problems"] for row in found if "eval_greedy" in row] == [3, 3]
    assert found[2]["seconds"] > found[1]["seconds"] > 0
    assert sorted(p.name for p in out.iterdir()) == [
        "checkpoints", "config.json", "metrics.jsonl", "policy", "report.html",
    ]  # fmt: skip
    assert "grpo of policy" in (out / "report.html").read_text()
    config = json.loads((out / "config.json").read_text())
    # Lines, as that world writes them.
    assert config["rollouts"]["split"] == "line"
    assert config["rollouts"]["max_new_tokens"] == 24
    # Made longer, and by another name of the same settings.
    code, printed, err = prm(*command, "--steps", 3, "--save-every", 1, "-o", out, "--json")
    assert code == 0, err
    told = json.loads(printed)
    assert told["step"] == 3
    assert told["policy"] == str(out / "policy")
    assert [row["step"] for row in rows(out)] == [0, 1, 2, 3]
    # What is taught is a policy again.
    code, printed, err = prm(
        "sample", "--policy", out / "policy", "--limit", 1, "--samples", 1, "--json",
        "--out", tmp_path / "sampled",
    )  # fmt: skip
    assert code == 0, err


def test_what_is_json_is_the_last_row(prm, command, whole, capsys):
    code, printed, err = prm(*command, "--steps", 3, "--json", "-o", whole)
    assert (code, err) == (0, "")
    told = json.loads(printed)
    assert {k: v for k, v in told.items() if k not in ("out", "policy")} == rows(whole)[-1]


def test_ctrl_c_and_the_same_command_again(prm, command, whole, tmp_path, monkeypatch):
    from prmkit.rl import practice

    out, original, left = tmp_path / "rl", practice.roll_out, [2]

    def interrupted(*arguments, **more):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(*arguments, **more)

    monkeypatch.setattr(practice, "roll_out", interrupted)
    code, printed, err = prm(*command, "--steps", 3, "-o", out)
    assert (code, printed) == (130, "")
    assert "give the same command again" in err
    assert [row["step"] for row in rows(out)] == [0, 1, 2]
    # The third step alone.
    left[0] = 1
    code, _, err = prm(*command, "--steps", 3, "-o", out)
    assert code == 0, err
    assert left == [0]
    assert timeless(out) == timeless(whole)
    assert weights(out) == weights(whole)


def begun(command, out):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "prmkit.cli", *map(str, command), "-o", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process, out, n):
    """Until so many rows are there."""
    start = time.monotonic()
    while not (out / "metrics.jsonl").exists() or len(rows(out)) < n:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - start < 240
        time.sleep(0.01)


LONG = ("--steps", 12, "--save-every", 3)


@pytest.fixture(scope="module")
def peace(command, tmp_path_factory):
    """A process that nobody disturbs."""
    out = tmp_path_factory.mktemp("peace") / "rl"
    process = begun((*command, *LONG), out)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_a_signal_from_the_keyboard(command, peace, tmp_path):
    out = tmp_path / "rl"
    process = begun((*command, *LONG), out)
    wait_for(process, out, 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "give the same command again" in err
    assert len(rows(out)) < 13
    process = begun((*command, *LONG), out)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert timeless(out) == timeless(peace)
    assert weights(out) == weights(peace)


@pytest.mark.slow
def test_killed_again_and_again(command, peace, tmp_path):
    """At rows that are before, at and behind checkpoints, and in the middle of steps."""
    out = tmp_path / "rl"
    for n, seconds in ((2, 0.0), (4, 0.05), (6, 0.1), (9, 0.0), (13, 0.0), (13, 0.1)):
        process = begun((*command, *LONG), out)
        wait_for(process, out, n)
        time.sleep(seconds)
        process.kill()
        process.communicate()
    process = begun((*command, *LONG), out)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert timeless(out) == timeless(peace)
    assert weights(out) == weights(peace)
    assert not list(out.rglob("*.tmp"))


def test_what_a_kill_leaves_in_the_run_folder_is_swept(prm, command, whole):
    """A model that was half written is a folder."""
    (whole / ".policy.abc.tmp").mkdir()
    (whole / ".policy.abc.tmp" / "config.json").write_text("{")
    (whole / ".metrics.jsonl.abc.tmp").write_text("{")
    code, _, err = prm(*command, "--steps", 3, "-o", whole)
    assert code == 0, err
    assert not list(whole.glob(".*"))


def test_a_folder_with_a_run_of_other_settings_is_left_alone(
    prm, command, whole, no_model, tmp_path
):
    before = (whole / "config.json").read_bytes(), weights(whole), timeless(whole)
    for changes, message in (
        (("--seed", 1), "seed: 0 there, 1 now"),
        (("--reward", "prl"), "rewards"),
        (("--samples", 3), "rollouts"),
        (("--monitors.window", 4), "monitors"),
        (("--limit", 7), "problems: '8, "),
    ):
        arguments = list(command)
        if changes[0] in arguments:
            at = arguments.index(changes[0])
            del arguments[at : at + 2]
        code, _, err = prm(*arguments, "--steps", 3, *changes, "-o", whole)
        assert code == 1, err
        assert "holds a run with other settings" in err
        assert message in one_line(err)
    assert ((whole / "config.json").read_bytes(), weights(whole), timeless(whole)) == before


@pytest.mark.parametrize("name", ["model", "reference", "ensemble"])
def test_a_run_depends_on_the_files_of_all_reward_models(tmp_path, monkeypatch, name):
    """A model of the hub is where it was downloaded to."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "weights").write_text("old")

    def folder(given):
        return tmp_path / "there" if given == "some/model" else Path(given)

    monkeypatch.setattr(rl, "model_folder", folder)
    own = ("some/model",) if name == "ensemble" else "some/model"
    model = RLModel(**{"model": "another/one", name: own})
    plan = Plan(run=RLSettings(policy=str(tmp_path / "policy")))
    before = rl._described(plan, model, [], [])
    assert rl._described(plan, model, [], []) == before
    (tmp_path / "there" / "weights").write_text("new")
    assert rl._described(plan, model, [], [])["files"] != before["files"]


def test_fewer_steps_than_are_done_are_refused(prm, command, whole):
    code, _, err = prm(*command, "--steps", 2, "-o", whole)
    assert code == 1
    assert "has done 3 steps, and steps is 2" in one_line(err)


def test_begun_anew(prm, command, whole, tmp_path):
    out = tmp_path / "rl"
    arguments = (*command, "--steps", 1, "-o", out, "--json")
    assert prm(*arguments, "--seed", 1)[0] == 0
    code, _, err = prm(*arguments, "--no-resume")
    assert code == 0, err
    assert timeless(out)[1]["sampled_tokens"] == timeless(whole)[1]["sampled_tokens"]
    assert json.loads((out / "config.json").read_text())["seed"] == 0


def test_alarms_are_told(prm, command, tmp_path, monkeypatch):
    from prmkit.rl.monitors import Watch

    def seen(watch, step, row):
        return [Alarm(step, "length", 9.0, 3.0, "they grow")] if step == 2 else []

    monkeypatch.setattr(Watch, "seen", seen)
    code, printed, err = prm(*command, "--steps", 2, "-o", tmp_path / "rl")
    assert code == 0, err
    assert "alarm at step 2: they grow" in err
    assert "alarms" in printed
    assert rows(tmp_path / "rl")[2]["alarms"][0]["monitor"] == "length"


def test_scores_of_the_embedded_reward_model_by_default(prm, command, tmp_path):
    out = tmp_path / "rl"
    code, _, err = prm(*command, "--steps", 1, "--reward", "min", "--algorithm", "rloo", "-o", out)
    assert code == 0, err
    (row,) = rows(out)[1:]
    assert 0 <= row["prm"] <= 1
    assert row["unscored"] == 0
    assert json.loads((out / "config.json").read_text())["scorer"]["model"] == "embedded/prm"


# What is refused, before a model is loaded.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--family", "step_end"), "no meaning without one (--model)"),
        (("--ensemble", "embedded/prm"), "no meaning without one (--model)"),
        (("--together", "mean"), "no meaning without an ensemble"),
        (("--reward", "score", "--eta", 3), "eta is 3.0, and changes nothing here"),
        (("--algorithm", "prime", "--clip-high", 0.3), "clip_high is 0.3"),
        (("--algorithm", "step-dpo", "--kl", 0.1), "kl is 0.1"),
        (("--beta", 0.1), "beta is 0.1"),
        (("--from", "trl"), "format of files"),
        (("--report-to", "wandb"), "wandb, which is not installed"),
    ],
)
def test_what_means_nothing_is_refused(prm, no_model, tmp_path, arguments, message):
    if "wandb" in arguments and find_spec("wandb"):
        pytest.skip("wandb is installed")
    code, printed, err = prm("rl", "--limit", 4, *arguments, "-o", tmp_path / "rl")
    assert (code, printed) == (1, "")
    assert message in one_line(err)
    assert not (tmp_path / "rl").exists()


@pytest.mark.parametrize("world", ["train", "test", "ood"])
def test_no_problem_of_the_embedded_world_is_practised_on_and_held_out(world):
    practised, held_out = rl._problems(rl.RLTask(world=world))
    assert (len(practised), len(held_out)) == (4000, 100)
    assert {p.text for p in practised}.isdisjoint(p.text for p in held_out)
    few = rl._problems(rl.RLTask(world=world, limit=7))
    assert few == (practised[:7], held_out[:7])
    with pytest.raises(InvalidSetting, match="limit is -1"):
        rl.RLTask(world=world, limit=-1)


def test_responses_are_as_the_problems_ask_for():
    given = rl.RLRollouts(problems=3, samples=5, temperature=0.5)
    plain = RolloutSettings(problems=3, samples=5, temperature=0.5)
    assert given.settings(asked(2)) == plain
    world = list(problems("test", 2))
    assert given.settings(world) == replace(plain, max_new_tokens=200, split="line")
    own = replace(given, max_new_tokens=9, split="number")
    assert own.settings(world) == replace(plain, max_new_tokens=9, split="number")


def test_another_policy_needs_a_reward_model_for_scores(prm, no_model, tiny_lm, tmp_path):
    code, _, err = prm("rl", "--policy", tiny_lm, "--reward", "score", "-o", tmp_path / "rl")
    assert code == 1
    assert "give a reward model (--model)" in one_line(err)


def asked(n, answers=True):
    return [Problem(id=f"p{i}", prompt=f"{i} + 1?", answer=str(i + 1) * answers or None)
            for i in range(n)]  # fmt: skip


def test_problems_of_files(prm, tmp_path):
    file, other = put(tmp_path / "a.jsonl", asked(4)), put(tmp_path / "b.jsonl", asked(9)[7:])
    out = tmp_path / "rl"
    arguments = (
        "--problems-per-step",
        3,
        "--samples",
        2,
        "--max-new-tokens",
        8,
        "--report-to",
        "none",
    )
    # Of which the limit takes less than a step has.
    code, _, err = prm("rl", file, *arguments, "--limit", 2, "--steps", 1, "-o", out)
    assert code == 0, err
    assert "eval_greedy" not in rows(out)[-1]
    config = json.loads((out / "config.json").read_text())
    assert config["problems"].startswith("2, ")
    assert config["rollouts"]["split"] == "blank_line"
    again = ("rl", file, *arguments, "--steps", 1, "--split", "line", "--eval", other)
    code, _, err = prm(*again, "-o", tmp_path / "again")
    assert code == 0, err
    assert rows(tmp_path / "again")[-1]["eval_problems"] == 2


def test_problems_that_cannot_be_used_are_refused(prm, no_model, tmp_path):
    def refused(*arguments):
        code, _, err = prm("rl", *arguments, "-o", tmp_path / "rl")
        assert code == 1
        assert not (tmp_path / "rl").exists()
        return one_line(err)

    known, unknown = asked(4), asked(9, answers=False)[4:]
    file = put(tmp_path / "a.jsonl", known)
    both = put(tmp_path / "b.jsonl", known[3:] + asked(9)[8:])
    mixed = put(tmp_path / "c.jsonl", known + unknown)
    assert "1 problems of" in (told := refused(file, "--eval", both))
    assert "'p3'" in told
    assert "5 of 9 problems to practise on have no answer, such as 'p4'" in refused(mixed)
    # Bounds are on the share that is right, and pairs of dpo are of a right and a wrong one.
    for more in (("--reward", "score", "--low", 0.1), ("--algorithm", "dpo")):
        assert "5 of 9 problems to practise on have no answer" in refused(mixed, *more)
    told = refused(file, "--eval", put(tmp_path / "d.jsonl", unknown))
    assert "5 of 5 problems held out have no answer" in told
    assert "world is ood, and problems come from" in refused(file, "--world", "ood")
    assert "eval_samples has no meaning" in refused(file, "--eval-samples", 2)
    assert "eval_every has no meaning" in refused(file, "--eval-every", 2)
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no row" in refused(tmp_path / "empty.jsonl")


def test_without_outcomes_answers_are_not_needed(prm, tmp_path):
    file = put(tmp_path / "a.jsonl", asked(3, answers=False))
    code, _, err = prm(
        "rl", file, "--steps", 1, "--problems-per-step", 2, "--samples", 2, "--max-new-tokens", 8,
        "--reward", "score", "--report-to", "none", "-o", tmp_path / "rl",
    )  # fmt: skip
    assert code == 0, err
    (row,) = rows(tmp_path / "rl")[1:]
    assert row["known"] == 0
    assert "accuracy" not in row
    assert row["kept"] > 0


def test_a_server_that_is_not_there_claims_no_folder(prm, tmp_path):
    code, _, err = prm(
        "rl", "--steps", 1, "--server", "http://127.0.0.1:9", "--attempts", 1, "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert "did not answer" in err
    assert not (tmp_path / "out").exists()
