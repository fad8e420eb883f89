"""The documentation runs, prints what it says, and is in step with the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import fences
import write_checkpoint_docs
import write_cli_docs
from prmkit.cli import app
from prmkit.scorers.checkpoints import CHECKPOINTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN = [p for p in PAGES if any(f.language in fences.RUN for f in fences.fences(p.read_text()))]


LONG = {"labelling.md", "evaluation.md", "training.md", "search.md"}
"""Pages that take long: a file of their own runs them with the slow tests."""


@pytest.mark.parametrize("page", [p for p in RUN if p.name not in LONG], ids=lambda page: page.name)
def test_pages_run_and_print_what_they_say(page):
    assert fences.differences(page) == []


def test_the_pages_that_run_are_among_them():
    assert {"README.md", "journey.md", *LONG} <= {page.name for page in RUN}


def test_help_is_in_step():
    assert write_cli_docs.PAGE.read_text() == write_cli_docs.page(), "run `make docs`"
    assert {*write_cli_docs.COMMANDS} == {name for name in app if not name.startswith("-")}


def test_the_table_of_checkpoints_is_in_step():
    page = write_checkpoint_docs.PAGE.read_text()
    assert page == write_checkpoint_docs.page(), "run `make docs`"
    assert all(f"`{known.id}`" in page for known in CHECKPOINTS)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_and_targets_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for target in set(re.findall(r"^    make ([\w-]+)", text, re.MULTILINE)):
        ran = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr


def test_outputs_are_compared_with_their_numbers_in_mind():
    assert fences.alike("a 1 b 0.52\n", "a 1 b 0.55\n")
    assert not fences.alike("a 1 b 0.52\n", "a 2 b 0.52\n")
    assert not fences.alike("a 0.9", "a 0.5")
    assert not fences.alike("a 0.5", "b 0.5")
    assert not fences.alike("a 0.5", "a 0.5 0.5")


def test_filling_changes_outputs_alone(tmp_path):
    """What follows an output keeps its place; filling again changes nothing."""
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```python\nprint(1 + 1)\n```\n\n```output\n3\n```\n\nText.\n")
    expected = page.read_text().replace("3\n", "2\n")
    for _ in range(2):
        fences.fill(page)
        assert page.read_text() == expected
