"""``prm evaluate`` on agents' benchmarks: of models with a head, and of judges in words.

The data are hand-made rows of the published formats (`published_rows`), and the real ones where
they lie beside the checkout.
"""

from __future__ import annotations

import json

import pytest

import published_rows as rows
from prmkit.cli import judging
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.scorers.families import GENERATIVE
from prmkit.scorers.generative import GenerativeScorer


@pytest.fixture
def by(monkeypatch):
    """Puts a judge in words where a model would be loaded; it says `named(question)`."""

    def put(named):
        def script(prefix, rng):
            return f"I think \\boxed{{{named(prefix.problem.text)}}}"

        judge = GenerativeScorer(ScriptedPolicy(script, "critic"), GENERATIVE["judge"], n_samples=1)
        monkeypatch.setattr(judging, "open_scorer", lambda settings: judge)
        monkeypatch.setattr(judging, "about_model", lambda settings, scorer: {"name": "critic"})

    return put


def figures(prm, tmp_path, benchmark, data):
    out = tmp_path / "out"
    given = ("--data", data, "--model", "embedded/prm", "--resamples", 0, "-o", out)
    code, _, err = prm("evaluate", benchmark, *given)
    assert code == 0, err
    (model,) = json.loads((out / "metrics.json").read_text())["models"].values()
    return {name: told["value"] for name, told in model["figures"].items()}


@pytest.fixture
def whole(tmp_path):
    """The trajectories with their texts, of AgentProcessBench."""
    file = tmp_path / "data" / "hotpotqa.jsonl"
    file.parent.mkdir()
    rows.jsonl(file, [rows.agent_row(*row) for row in rows.AGENTS[:2]])
    return file


def test_a_judge_in_words_on_agent_process_bench(prm, by, tmp_path, whole):
    asked = []

    def named(text):
        asked.append(text)
        # The labels are 1, 1, -1 in one and 0, 1 in the other.
        return 2 if "assistant 10" in text else -1

    by(named)
    found = figures(prm, tmp_path, "agent_process_bench", whole)
    assert found["first_error_accuracy"] == 1
    assert found["step_accuracy"] == pytest.approx(4 / 5)
    # The judge reads what tools answered.
    (long,) = {text for text in asked if "assistant 10" in text}
    assert "assistant 2\n</paragraph_0>\nIt was answered:\ntool 3\n\n<paragraph_1>" in long


def test_a_model_with_a_head_on_agent_process_bench(prm, tmp_path, whole):
    found = figures(prm, tmp_path, "agent_process_bench", whole)
    assert {"step_accuracy", "first_error_accuracy", "hotpotqa/step_accuracy"} <= {*found}
    assert all(0 <= value <= 1 for value in found.values())


def test_a_judge_in_words_on_who_and_when(prm, by, tmp_path):
    by(lambda text: 1)
    found = figures(prm, tmp_path, "who_and_when", rows.who_and_when(tmp_path / "data"))
    # Both runs went wrong at step 1, and who did it took that step.
    assert (found["step_accuracy"], found["agent_accuracy"]) == (1, 1)
    assert found["hand_crafted/step_accuracy"] == 1


def test_a_judge_that_names_another_step_on_who_and_when(prm, by, tmp_path):
    by(lambda text: 2 if "Solver" in text else 0)
    found = figures(prm, tmp_path, "who_and_when", rows.who_and_when(tmp_path / "data"))
    assert (found["step_accuracy"], found["agent_accuracy"]) == (0, 0)


def test_a_model_with_a_head_on_who_and_when(prm, tmp_path):
    found = figures(prm, tmp_path, "who_and_when", rows.who_and_when(tmp_path / "data"))
    assert {"step_accuracy", "agent_accuracy", "algorithm_generated/step_accuracy"} <= {*found}


@pytest.mark.parametrize("name", ["agentprocessbench", "who_and_when"])
def test_judges_in_words_on_the_real_data(prm, by, tmp_path, shared_data, name):
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    benchmark = "agent_process_bench" if name == "agentprocessbench" else name
    data = folder / "hotpotqa.jsonl" if name == "agentprocessbench" else folder
    by(lambda text: 1)
    found = figures(prm, tmp_path, benchmark, data)
    cases = BENCHMARKS[benchmark].read(data)
    first = [case.record.labels.first_error for case in cases]
    if benchmark == "who_and_when":
        assert found["step_accuracy"] == pytest.approx(first.count(1) / len(first))
    else:
        assert found["first_error_accuracy"] == pytest.approx(first.count(1) / len(first))
