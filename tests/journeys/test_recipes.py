"""Every recipe runs, small."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from prmkit.embedded.solutions import write_solution
from prmkit.embedded.world import problems

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "1_score.py": [],
    "2_label.py": ["out", "--problems", "2", "--rollouts", "2"],
    "3_train.py": ["out", "--solutions", "64"],
    "4_evaluate.py": ["--problems", "3", "--report", "report.html"],
    "5_judges.py": ["--problems", "4", "--samples", "4"],
    "6_prm800k.py": ["train.jsonl", "test.jsonl", "out", "--hidden", "32", "--results", "r.json"],
}
PRINTS = {
    "1_score.py": "<- first suspected error",
    "2_label.py": "4 solutions in out/labelled.jsonl",
    "3_train.py": "64 solutions",
    "4_evaluate.py": "model - log-ratio, first_error/f1",
    "5_judges.py": "prm and log-ratio, fitted",
    "6_prm800k.py": "180 labelled steps",
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
    assert {path.name for path in RECIPES.glob("*.py")} == {*SMALL}
    for path in RECIPES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", SMALL)
def test_recipes_run(name, tmp_path):
    if name == "6_prm800k.py":
        write_ratings(tmp_path / "train.jsonl", 16, 0)
        write_ratings(tmp_path / "test.jsonl", 4, 100)
    ran = subprocess.run(
        [sys.executable, str(RECIPES / name), *SMALL[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert PRINTS[name] in ran.stdout
