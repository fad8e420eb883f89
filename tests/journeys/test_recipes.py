"""Every recipe runs, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "1_score.py": [],
    "2_label.py": ["out", "--problems", "2", "--rollouts", "2"],
    "3_train.py": ["out", "--solutions", "64"],
    "4_evaluate.py": ["--problems", "3", "--report", "report.html"],
    "5_judges.py": ["--problems", "4", "--samples", "4"],
}
PRINTS = {
    "1_score.py": "<- first suspected error",
    "2_label.py": "4 solutions in out/labelled.jsonl",
    "3_train.py": "64 solutions",
    "4_evaluate.py": "model - log-ratio, first_error/f1",
    "5_judges.py": "prm and log-ratio, fitted",
}


def test_every_recipe_is_tried():
    assert {path.name for path in RECIPES.glob("*.py")} == {*SMALL}
    for path in RECIPES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", SMALL)
def test_recipes_run(name, tmp_path):
    ran = subprocess.run(
        [sys.executable, str(RECIPES / name), *SMALL[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert PRINTS[name] in ran.stdout
