"""Every recipe runs, small."""

from __future__ import annotations

import json
import random
import runpy
import sys
from pathlib import Path

import pytest

from prmkit.embedded.solutions import write_solution
from prmkit.embedded.world import problems

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "1_score.py": [],
    "2_label.py": ["out", "--problems", "1", "--rollouts", "2"],
    "3_train.py": ["out", "--solutions", "64"],
    "4_evaluate.py": ["--problems", "3", "--report", "report.html"],
    "5_judges.py": ["--problems", "3", "--samples", "3"],
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


@pytest.mark.parametrize("name", SMALL)
def test_recipes_run(name, tmp_path, monkeypatch, capsys):
    if name == "pipelines/prm800k.py":
        write_ratings(tmp_path / "train.jsonl", 16, 0)
        write_ratings(tmp_path / "test.jsonl", 4, 100)
    monkeypatch.chdir(tmp_path)
    # In this process: the libraries that recipes load take longer than they do.
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name]])
    runpy.run_path(str(RECIPES / name), run_name="__main__")
    assert PRINTS[name] in capsys.readouterr().out
