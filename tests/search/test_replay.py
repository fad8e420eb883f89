"""Traces are read back as they were, and tell of smaller budgets."""

from __future__ import annotations

import json
import random

import pytest

from prmkit.errors import FormatError, InvalidSetting, NothingToMeasure, RunFolderError
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.anytime import at, moments, settings_of
from prmkit.search.catalogue import algorithm
from prmkit.search.drive import grouping, search
from prmkit.search.laws import SETTINGS
from prmkit.search.maze import Maze, MazePolicy, judge
from prmkit.search.replay import recorded, replay, traces_in
from prmkit.search.settings import SearchSettings

TEXTS = grouping("text")
PROBLEMS = [Problem(id=f"p/{i}", prompt="?" * (i + 1), answer="0") for i in range(3)]


def run(folder, name, maze=None, settings=SETTINGS, **options):
    maze = maze or Maze()
    return list(
        search(
            PROBLEMS,
            algorithm(name, **options),
            MazePolicy(maze),
            ScriptedScorer(maze.score),
            settings=settings,
            judge=judge,
            traces=folder,
        )
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("best-of-n", {"n": 4}),
        ("beam", {"n": 6, "width": 3}),
        ("mcts", {"n": 5, "rollouts": 1}),
        ("adaptive", {"n": 8}),
        ("early-rejection", {"n": 6, "below": 0.5}),
    ],
)
@pytest.mark.parametrize("maze", [Maze(), Maze(blank=0.5), Maze(fails=0.3, unscored=0.2)])
def test_a_trace_is_read_back_as_it_was(tmp_path, name, options, maze):
    found = run(tmp_path, name, maze, **options)
    read = {one.problem.id: one for one in map(recorded, traces_in(tmp_path))}
    for one in found:
        again = read[one.problem.id]
        want, got = (
            [(n.path, n.text, n.steps, n.finish, n.scores, n.error, n.cost) for n in root.walk()]
            for root in (one.root, again.root)
        )
        assert want == got
        assert again.cost == one.cost
        assert [n.path for n in again.candidates.nodes] == [n.path for n in one.candidates]


def test_a_replay_with_the_same_scores_chooses_the_same(tmp_path):
    found = run(tmp_path, "best-of-n", n=6)
    read = sorted(map(recorded, traces_in(tmp_path)), key=lambda r: r.problem.id)
    for one, again in zip(found, replay(read, None, SETTINGS, judge, TEXTS), strict=True):
        assert again.chosen.node.path == one.node.path
        assert again.before == (one.answer, one.correct)


def test_a_replay_with_another_scorer_chooses_by_it(tmp_path):
    run(tmp_path, "best-of-n", n=8)

    def likes_two(problem, steps):
        return 0.9 if steps[-1].endswith("= 2") else 0.1

    other = ScriptedScorer(likes_two, name="other")
    read = list(map(recorded, traces_in(tmp_path)))
    there = [any(n.text.endswith("= 2") for n in r.candidates.nodes) for r in read]
    assert any(there)
    settings = SearchSettings(split="line", answers="text", choice="best", aggregation="last")
    for has, again in zip(there, replay(read, other, settings, judge, TEXTS), strict=True):
        assert (again.answer == "2") == has
    assert other.read > 0


def test_without_scores_there_is_nothing_to_weigh(tmp_path):
    run(tmp_path, "majority", n=4)
    read = list(map(recorded, traces_in(tmp_path)))
    with pytest.raises(InvalidSetting, match="--model"):
        list(replay(read, None, SETTINGS, judge, TEXTS))
    majority = SearchSettings(split="line", answers="text", choice="majority")
    assert len(list(replay(read, None, majority, judge, TEXTS))) == 3


def test_moments_of_a_best_of_n_are_smaller_ns(tmp_path):
    """What it would have answered after k solutions is what a best-of-k answers."""
    run(tmp_path / "8", "best-of-n", n=8)
    for path in traces_in(tmp_path / "8"):
        one = recorded(path)
        curve = moments(one, settings_of(one), judge, TEXTS)
        assert [m.tokens for m in curve] == sorted(m.tokens for m in curve)
        for k in range(1, 8):
            run(tmp_path / str(k), "best-of-n", n=k)
            fewer = recorded(tmp_path / str(k) / path.name)
            whole = sum(n.is_finished for n in fewer.root.children)
            if whole:
                assert curve[whole - 1].correct == bool(fewer.end["correct"])
        assert curve[-1].tokens == one.cost.tokens


def test_at():
    run_of = [
        type("M", (), {"tokens": t, "seconds": t / 10, "correct": c, "oracle": True})
        for t, c in ((10, False), (20, True), (30, False))
    ]
    assert at(run_of, [5, 10, 19, 20, 25, 30, 99], "tokens", "correct").tolist() == [
        0, 0, 0, 1, 1, 0, 0,
    ]  # fmt: skip
    assert at(run_of, [0.5, 1.0], "seconds", "oracle").tolist() == [0, 1]
    assert at([], [1.0], "tokens", "correct").tolist() == [0]


def test_a_trace_of_another_search_is_refused(tmp_path):
    run(tmp_path, "best-of-n", n=4)
    with pytest.raises(RunFolderError, match="another search"):
        run(tmp_path, "best-of-n", n=5)


def test_damaged_traces_are_told_with_their_line(tmp_path):
    run(tmp_path, "best-of-n", n=2)
    (path, *_) = traces_in(tmp_path)
    lines = path.read_text().splitlines()
    for damage, line in ((["{"], 1), ([*lines[:2], "[]"], 3), ([lines[0], "{not json"], 2)):
        path.write_text("\n".join([*damage, *lines[len(damage) :]]) + "\n")
        with pytest.raises(FormatError, match=f":{line}:"):
            recorded(path)
    orphan = {**json.loads(lines[1]), "path": [7, 7]}
    path.write_text("\n".join([lines[0], json.dumps(orphan)]) + "\n")
    with pytest.raises(FormatError, match=":2: no event that fits here"):
        recorded(path)
    with pytest.raises(NothingToMeasure, match="holds no trace"):
        traces_in(tmp_path / "nothing")


def test_ids_may_be_any_text(tmp_path):
    problems = [Problem(id=i, prompt="?") for i in ("../../x", "a" * 300, "日本", "a/b", "a b")]
    found = search(
        problems,
        algorithm("best-of-n", n=1),
        ScriptedPolicy(lambda p, r: str(r.random())),
        ScriptedScorer(lambda p, s: random.Random(s[-1]).random()),
        settings=SETTINGS,
        judge=lambda problem, text: Outcome(text, None),
        traces=tmp_path,
    )
    assert len(list(found)) == 5
    assert len(list(tmp_path.iterdir())) == 5
    assert {recorded(path).problem.id for path in traces_in(tmp_path)} == {p.id for p in problems}
