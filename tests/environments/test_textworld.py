"""TextWorld's games, made here and played."""

from __future__ import annotations

import pytest

from prmkit.environments.base import Task, demonstrate
from prmkit.environments.laws import ENVIRONMENT_LAWS, Trial
from prmkit.errors import EnvironmentFailed

textworld = pytest.importorskip("textworld", reason="needs prmkit[textworld]")

from prmkit.environments import textworld as here  # noqa: E402
from prmkit.environments.textworld import TextWorld, _said, game_of  # noqa: E402

TASKS = (Task(0, "small"), Task(1, "small"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("games")


@pytest.mark.slow
@pytest.mark.parametrize("law", ENVIRONMENT_LAWS, ids=lambda law: law.__name__)
def test_it_keeps_the_laws(law, folder):
    law(Trial(lambda: TextWorld(folder), TASKS, steps=5))


def test_a_game_is_made_once_and_solved(folder):
    shown = demonstrate(TextWorld(folder), TASKS[0])
    assert shown.correct
    assert len(shown.steps) == 3
    before = (folder / "small-0.z8").stat().st_mtime_ns
    again = demonstrate(TextWorld(folder), TASKS[0])
    assert again == shown
    assert (folder / "small-0.z8").stat().st_mtime_ns == before
    assert {p.name for p in folder.iterdir()} >= {"small-0.z8", "small-0.json"}
    assert not list(folder.glob(".making-*"))


def test_snapshots_and_commands_to_the_program(folder):
    game = TextWorld(folder)
    game.reset(TASKS[0])
    state, plan = game.snapshot(), game.plan()
    first = [game.step(command) for command in plan]
    for command in ("quit", "undo", "restart", "", "日本", "look\nlook" * 50):
        other = TextWorld(folder)
        other.restore(state)
        assert "is no command" in other.step(command).observation
        assert [other.step(command) for command in plan] == first


def test_a_game_that_cannot_be_solved_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(here, "_is_solved_by_its_plan", lambda path: False)
    monkeypatch.setattr(here, "TRIALS", 2)
    with pytest.raises(EnvironmentFailed, match="none of 2 games"):
        TextWorld(tmp_path).reset(TASKS[0])
    assert list(tmp_path.iterdir()) == []


def test_another_game_is_made_where_the_first_is_not_solved(tmp_path, monkeypatch):
    asked = []

    def second(path):
        asked.append(path)
        return len(asked) == 2

    monkeypatch.setattr(here, "_is_solved_by_its_plan", second)
    path = game_of(tmp_path, TASKS[0])
    assert len(asked) == 2
    assert path.is_file()


def test_what_is_said_has_no_status_line():
    status = ">" + " " * 40 + "-= Cellar =-0/3"
    assert _said(f"\nYou go.\n\n\n\nA door.\n\n{status}") == "You go.\n\nA door."
    assert _said(f"\nWell done.\n\n     *** The End ***\n\nRESTART?\n\n{status}") == "Well done."
    assert _said(status) == ""
