"""Every recipe runs, small."""

from __future__ import annotations

import json
import random
import re
import runpy
import sys
from pathlib import Path

import pytest

from prmkit.checkpoints import read_note
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.world import problems
from prmkit.formats import write_records
from prmkit.records import Record, Step, Trajectory

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "1_score.py": [],
    "2_label.py": ["out", "--problems", "1", "--rollouts", "2"],
    "3_train.py": ["out", "--solutions", "64"],
    "4_evaluate.py": ["--problems", "3", "--report", "report.html"],
    "5_judges.py": ["--problems", "3", "--samples", "3"],
    "6_search.py": ["--limit", "2", "--n", "4", "--out", "out"],
    "7_reinforce.py": [
        "--steps", "1", "--problems-a-step", "2", "--samples", "2", "--only", "outcome",
        "min-and-outcome", "--evaluate", "2", "--out", "out",
    ],
    "8_agents.py": ["--rounds", "1", "--out", "out"],
    "pipelines/prm800k.py": [
        "train.jsonl", "test.jsonl", "out", "--hidden", "32", "--results", "r.json",
    ],
    "pipelines/math_shepherd.py": [
        "out", "--problems", "4", "--samples", "2", "--rollouts", "2", "--test-problems", "3",
        "--best-of", "4",
    ],
    "pipelines/qwen_consensus.py": [
        "out", "--problems", "4", "--samples", "2", "--test-problems", "3",
    ],
    "pipelines/implicit_prm.py": [
        "out", "--problems", "4", "--samples", "4", "--test-problems", "3", "--best-of", "4",
    ],
}  # fmt: skip
PRINTS = {
    "1_score.py": "<- first suspected error",
    "2_label.py": "2 solutions in out/labelled.jsonl",
    "3_train.py": "64 solutions",
    "4_evaluate.py": "model - log-ratio, first_error/f1",
    "5_judges.py": "prm and log-ratio, fitted",
    "6_search.py": "report: out/report.html",
    "7_reinforce.py": "min-and-outcome",
    "8_agents.py": "temporal: at a mistake in",
    "pipelines/prm800k.py": "180 labelled steps",
    "pipelines/math_shepherd.py": "soft, best_of_4/min: ",
    "pipelines/qwen_consensus.py": "consensus, F1: ",
    "pipelines/implicit_prm.py": "dpo, best_of_4/sum: ",
}


def write_ratings(path, n, start):
    """Files of PRM800K's shape: at every step of a right solution, that one and two others."""
    rng = random.Random(start)
    with path.open("w") as out:
        for problem in problems("train", n, start):
            groups = []
            for text in write_solution(problem, rng)[:4]:
                offered = [{"text": text, "rating": 1}, {"text": f"{text} or 7", "rating": -1}]
                other = {"text": "So.", "rating": 0}
                groups.append({"completions": [*offered, other], "chosen_completion": 0})
            ambiguous = problem.id.endswith("7")
            row = {"id": problem.id, "problem": problem.text, "steps": groups}
            out.write(json.dumps({**row, "last_group_ambiguous": ambiguous}) + "\n")


def test_every_recipe_is_tried():
    found = {str(path.relative_to(RECIPES)): path for path in RECIPES.rglob("*.py")}
    assert {*found} == {*SMALL}
    for path in found.values():
        assert len(path.read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "name",
    # The pipelines train several models each.
    [pytest.param(n, marks=pytest.mark.slow) if n.startswith("pipelines/") else n for n in SMALL],
)
def test_recipes_run(name, tmp_path, monkeypatch, capsys):
    if name == "pipelines/prm800k.py":
        write_ratings(tmp_path / "train.jsonl", 16, 0)
        write_ratings(tmp_path / "test.jsonl", 4, 100)
    monkeypatch.chdir(tmp_path)
    # In this process: the libraries that recipes load take longer than they do.
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name]])
    runpy.run_path(str(RECIPES / name), run_name="__main__")
    printed = capsys.readouterr().out
    assert PRINTS[name] in printed
    if name == "8_agents.py":
        # Turns chosen by the model succeed more often, and it blames mistakes, not good turns.
        before, after = re.findall(r"agent \d: (\d\.\d+) of episodes succeed", printed)
        assert float(after) > float(before) + 0.1
        hits, failures = re.search(r"counted: at a mistake in (\d+) of (\d+)", printed).groups()
        assert int(hits) > 0.6 * int(failures)


@pytest.mark.slow
def test_consensus_with_a_judge_in_words_on_data_of_ones_own(tmp_path, monkeypatch, capsys):
    """GSM8K's rows are solved, a policy judges in words, ProcessBench's rows measure."""
    from prmkit.policies import loading
    from prmkit.policies.scripted import ScriptedPolicy

    asked = {problem.text: problem for problem in problems("train", 5)}
    with (tmp_path / "train.jsonl").open("w") as out:
        for problem in asked.values():
            out.write(json.dumps({"question": problem.text, "answer": f"#### {problem.answer}"}))
            out.write("\n")

    def critic(prefix, rng):
        told = prefix.problem.text
        (problem,) = (problem for text, problem in asked.items() if text in told)
        texts = re.findall(r"<paragraph_\d+>\n(.*)\n</paragraph_\d+>", told)
        steps = tuple(Step(text=f"{text}\n") for text in texts)
        first = true_labels(Trajectory(problem=problem, steps=steps)).first_error
        return f"I think \\boxed{{{-1 if first is None else first}}}"

    original = loading.load_policy
    monkeypatch.setattr(
        loading,
        "load_policy",
        lambda how: ScriptedPolicy(critic, "critic") if how.policy == "critic" else original(how),
    )
    cases = [
        Record(trajectory=t, labels=true_labels(t))
        for problem in problems("test", 8)
        for t in [
            Trajectory(
                problem=problem,
                steps=tuple(
                    Step(text=text)
                    for text in write_solution(problem, random.Random(1), MistakeRates())
                ),
            )
        ]
    ]
    write_records(cases, tmp_path / "gsm8k.jsonl", "processbench")
    monkeypatch.chdir(tmp_path)
    own = ["--data", "train.jsonl", "--test", "gsm8k.jsonl", "--base", str(WEIGHTS / "policy")]
    monkeypatch.setattr(sys, "argv", ["x", "out", *own, "--judge", "critic", "--samples", "4"])
    runpy.run_path(str(RECIPES / "pipelines" / "qwen_consensus.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"\d+ of 20 kept: .*'agree': \d+", printed)
    for name in ("rollouts", "judge", "consensus"):
        assert f"{name}, F1: " in printed
        assert read_note(tmp_path / "out" / name)["trained_from"] == "policy"
