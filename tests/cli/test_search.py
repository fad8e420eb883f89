"""``prm search`` and ``prm evaluate search``, as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fake_openai import FakeServer
from prmkit.embedded.build import WEIGHTS
from prmkit.formats.files import read_records
from prmkit.records import StepScores

SMALL = ("--limit", 3, "--n", 3, "--max-step-tokens", 40)


def test_a_search_leaves_a_run_folder(prm, tmp_path):
    out = tmp_path / "beam"
    given = ("search", *SMALL, "--algorithm", "beam", "--set", "width=3", "-o", out, "--json")
    code, told, _ = prm(*given)
    assert code == 0
    metrics = json.loads(told)
    assert metrics["problems"] == 3
    assert metrics["policy_tokens"] > 0
    assert metrics["scorer_tokens"] > 0
    assert 0 <= metrics["right"] <= 1
    assert {p.name for p in out.iterdir()} == {
        "config.json", "metrics.json", "records.jsonl", "report.html", "traces",
    }  # fmt: skip
    records = list(read_records(out / "records.jsonl"))
    chosen = [record for record in records if record.meta["search"].get("chosen")]
    assert len(chosen) == 3
    assert sum(bool(r.trajectory.correct) for r in chosen) / 3 == pytest.approx(
        metrics["right"], abs=1e-3
    )
    for record in records:
        (scores,) = record.scores
        assert isinstance(scores, StepScores)
    first = (out / "records.jsonl").read_bytes()
    code, again, _ = prm(*given)
    assert code == 0
    assert (out / "records.jsonl").read_bytes() == first
    assert json.loads(again)["policy_tokens"] == metrics["policy_tokens"]


def test_other_settings_need_another_folder(prm, tmp_path):
    assert prm("search", *SMALL, "--algorithm", "best-of-n", "-o", tmp_path / "a")[0] == 0
    code, _, err = prm("search", *SMALL, "--algorithm", "majority", "-o", tmp_path / "a")
    assert code == 1
    assert "another folder" in err
    code, _, _ = prm(
        "search", *SMALL, "--algorithm", "majority", "-o", tmp_path / "a", "--no-resume"
    )
    assert code == 0


def test_a_search_goes_on_with_a_server_elsewhere(prm, tmp_path):
    """What was drawn is there; the next server has nothing to draw."""
    out = tmp_path / "served"
    given = ["search", "--limit", 2, "--n", 2, "--algorithm", "best-of-n", "--max-tokens", 40]
    given += ["--tokenizer", WEIGHTS / "policy", "-o", out, "--json"]
    told = []
    for _ in range(2):
        with FakeServer(ends=10) as server:
            code, words, err = prm(*given, "--server", server.url)
            assert code in (0, 3), err
            told.append(json.loads(words))
            long = [body for _, body in server.bodies if body.get("max_tokens") == 40]
        assert len(long) == (2 if len(told) == 1 else 0)
    assert told[0]["policy_tokens"] == told[1]["policy_tokens"] > 0
    config = json.loads((out / "config.json").read_text())
    assert server.url not in json.dumps(config)


def test_what_could_not_be_drawn_is_told(prm, tmp_path):
    given = ["search", "--limit", 2, "--n", 4, "--algorithm", "best-of-n", "--max-tokens", 40]
    given += ["--tokenizer", WEIGHTS / "policy", "-o", tmp_path / "x", "--json"]
    with FakeServer(ends=10) as server:
        answered = server.fault

        def fault(body):
            fails = body.get("max_tokens") == 40 and server.failed["broken"] < 1
            server.failed["broken"] += fails
            return "broken" if fails else answered(body)

        server.fault = fault
        code, told, err = prm(*given, "--server", server.url, "--attempts", 1)
        assert code in (0, 3)
        # The completions of a request.
        assert json.loads(told)["not_drawn"] == 4
        assert "4 pieces could not be drawn" in " ".join(err.split())
        assert "fell over" in err
        code, told, err = prm(*given, "--server", server.url, "--attempts", 1)
    assert json.loads(told)["not_drawn"] == 0
    assert json.loads(told)["completions"] == 8
    assert "could not be drawn" not in err


def test_a_budget_is_kept(prm, tmp_path):
    out = tmp_path / "b"
    given = ("--budget", "policy_tokens=100,calls=9", "-o", out, "--json")
    code, told, _ = prm("search", *SMALL, "--algorithm", "best-of-n", *given)
    assert code in (0, 3)
    metrics = json.loads(told)
    assert metrics["policy_tokens"] <= 300
    assert metrics["completions"] + metrics["scorings"] <= 27
    assert metrics["ended_by_budget"] > 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--algorithm", "beem"], "Did you mean 'beam'"),
        (["--set", "widht=3"], "Did you mean 'width'"),
        (["--set", "width"], "NAME=VALUE"),
        (["--budget", "tokens=3"], "no limit of a budget is called 'tokens'"),
        (["--budget", "calls=many"], "give a number"),
        (["--budget", "calls=0"], "buys nothing"),
        (["--budget", "dollars=1"], "needs prices"),
        (["--choice", "loudest"], "weighted"),
        (["--split", "sentence"], "step-stop"),
        (["--n", "3"], "a multiple of the width"),
        (["--replay", "nowhere"], "holds no trace"),
        (["--model", "/nowhere"], "'/nowhere' is not a folder"),
    ],
)
def test_wrong_usage_is_told(prm, tmp_path, given, told):
    code, _, err = prm("search", "--limit", 1, *given, "-o", tmp_path / "x")
    assert code in (1, 2)
    assert told in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "x" / "config.json").exists()


def test_a_preset_says_what_it_runs_with(prm, tmp_path):
    code, _, err = prm("search", *SMALL, "--algorithm", "its-pf", "-o", tmp_path / "x")
    assert code == 0
    assert "its-pf runs with choice algorithm" in " ".join(err.split())


def test_a_replay_chooses_again_at_no_policy_cost(prm, tmp_path):
    out = tmp_path / "run"
    assert prm("search", *SMALL, "--algorithm", "best-of-n", "-o", out)[0] == 0
    code, told, _ = prm("search", "--replay", out, "--json", "-o", tmp_path / "again")
    assert code == 0
    same = json.loads(told)
    assert (same["other_answers"], same["policy_tokens"]) == (0, 0)
    assert same["right"] == same["right_before"]
    (trace, *_) = sorted((out / "traces").iterdir())
    given = ("--choice", "majority", "-o", tmp_path / "one", "--json")
    code, told, _ = prm("search", "--replay", trace, *given)
    assert json.loads(told)["problems"] == 1
    rows = json.loads((tmp_path / "one" / "replay.json").read_text())["problems"]
    assert rows[0]["trace"] == str(trace)


def test_searches_are_compared_at_equal_cost(prm, tmp_path):
    runs = [tmp_path / name for name in ("best-of-n", "majority")]
    for run in runs:
        assert prm("search", *SMALL, "--algorithm", run.name, "-o", run)[0] == 0
    code, told, _ = prm("evaluate", "search", *runs, "-o", tmp_path / "both", "--json")
    assert code == 0
    metrics = json.loads(told)
    assert metrics["problems"] == 3
    best, majority = metrics["runs"]["best-of-n"], metrics["runs"]["majority"]
    assert best["minus_the_first"] is None
    assert len(majority["minus_the_first"]) == 3
    assert majority["costs"]["scorer_tokens"] == 0
    assert best["costs"]["policy_tokens"] == majority["costs"]["policy_tokens"]
    assert best["curves"]["tokens"]["accuracy"][-1][0] == best["accuracy"][0]
    assert "best-of-n" in (tmp_path / "both" / "table.md").read_text()
    assert "<script" not in (tmp_path / "both" / "report.html").read_text()
    code, _, err = prm("evaluate", "search", tmp_path, "-o", tmp_path / "none")
    assert code == 1
    assert "holds no trace" in " ".join(err.split())
    assert prm("evaluate", "search")[0] == 1


@pytest.mark.slow
def test_a_killed_search_loses_nothing(tmp_path):
    """Killed again and again, it ends with the records of the one that was not."""
    given = [sys.executable, "-m", "prmkit.cli", "search", "--limit", "6", "--n", "4"]
    given += ["--algorithm", "particle-filter", "--in-flight", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run([*given, "-o", str(tmp_path / "whole")], env=env, check=False)
    assert whole.returncode == 0
    out = tmp_path / "killed"
    for _ in range(3):
        running = subprocess.Popen([*given, "-o", str(out)], env=env, stderr=subprocess.DEVNULL)
        traces = out / "traces"
        before = sum(f.stat().st_size for f in traces.glob("*")) if traces.is_dir() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and running.poll() is None:
            now = sum(f.stat().st_size for f in traces.glob("*")) if traces.is_dir() else 0
            if now > before + 6000:
                break
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert subprocess.run([*given, "-o", str(out)], env=env, check=False).returncode == 0
    first, second = (
        list(read_records(tmp_path / n / "records.jsonl")) for n in ("whole", "killed")
    )
    assert [r.trajectory for r in first] == [r.trajectory for r in second]
    for one, other in zip(first, second, strict=True):
        # Other batches sum in another order.
        assert one.scores[0].values == pytest.approx(other.scores[0].values, abs=1e-5)
        assert one.meta["search"]["path"] == other.meta["search"]["path"]
