"""``prm play`` as it is typed: by a policy, by a planner, scored, interrupted."""

from __future__ import annotations

import json

import pytest

import agents
from prmkit.cli import episodes, play
from prmkit.environments.base import task_of
from prmkit.environments.catalogue import environment
from prmkit.formats.files import read_records
from prmkit.policies.base import failed
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.settings import ModelSettings

SMALL = ("--task", "depth-1", "--task", "depth-2", "--seeds", 3, "--samples", 3, "--max-steps", 9)


class Agent(agents.Agent):
    """Stops as if interrupted after some calls, or fails in some tasks."""

    def __init__(self, stop_after=None, fails=None):
        super().__init__()
        self._stop_after, self._fails = stop_after, fails

    def complete(self, prefixes, n, settings, seeds, first=None):
        if self._stop_after is not None and len(self.calls) >= self._stop_after:
            raise KeyboardInterrupt
        drawn = super().complete(prefixes, n, settings, seeds, first)
        return [
            [failed("no answer")] if task_of(p.problem).seed == self._fails else d
            for p, d in zip(prefixes, drawn, strict=True)
        ]


@pytest.fixture
def by(monkeypatch):
    """Puts an agent, and a scorer, where models would be loaded."""

    def put(agent, scorer=None):
        scorer = scorer or agents.promises()
        monkeypatch.setattr(play, "open_policy", lambda settings: (agent, {"policy": "agent"}))
        monkeypatch.setattr(episodes, "open_scorer", lambda settings: scorer)
        monkeypatch.setattr(episodes, "about_model", lambda settings, scorer: {"name": "promises"})
        return agent

    return put


def test_episodes_are_scored_and_the_best_chosen(prm, by, tmp_path):
    by(Agent())
    given = ("play", "crafting", *SMALL, "--model", "embedded/prm", "-o", tmp_path / "a", "--json")
    code, told, err = prm(*given)
    assert code == 0, err
    metrics = json.loads(told)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "config.json", "ledger.sqlite", "scores.sqlite", "records.jsonl", "metrics.json",
        "report.html",
    }  # fmt: skip
    records = list(read_records(tmp_path / "a" / "records.jsonl"))
    assert len(records) == metrics["episodes"] == 18
    solved = [record.trajectory.correct for record in records]
    assert metrics["succeeded"] == sum(solved)
    assert 0 < sum(solved) < 18
    steps = [len(record.trajectory.steps) for record in records]
    assert metrics["environment_steps"] == sum(steps)
    assert metrics["steps_of_an_episode"] == pytest.approx(sum(steps) / 18, abs=0.01)
    assert metrics["success"][0] == pytest.approx(sum(solved) / 18, abs=1e-4)
    best = 0.0
    for at in range(0, 18, 3):
        ends = []
        for record in records[at : at + 3]:
            (scores,) = record.scores
            assert isinstance(scores, StepScores)
            assert all(step.observation for step in record.trajectory.steps)
            ends.append(scores.values[-1])
        top = [solved[at + i] for i in range(3) if ends[i] == max(ends)]
        best += sum(top) / len(top) / 6
    last = metrics["at"][-1]
    assert [at["n"] for at in metrics["at"]] == [1, 2, 3]
    assert last["best"][0] == pytest.approx(best, abs=1e-4)
    assert last["environment_steps"] == pytest.approx(sum(steps) / 6, abs=0.01)
    assert metrics["at"][0]["best"][0] == metrics["success"][0]
    assert metrics["best_minus_single"][0] == pytest.approx(best - sum(solved) / 18, abs=2e-4)
    assert "majority" not in last
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["task"], config["scorer"]["model"]) == (["depth-1", "depth-2"], "embedded/prm")


def test_an_episode_has_the_score_that_is_asked_for():
    trajectory = Trajectory(problem=Problem(id="p", prompt="q"), steps=(Step(text="a"),) * 3)
    scores = StepScores(values=(0.9, 0.1, 0.5), semantics="value", model="m")
    for how, score in (("last", 0.5), ("min", 0.1), ("mean", 0.5), ("max", 0.9)):
        assert play._played(trajectory, (scores,), how).score == pytest.approx(score)
    assert play._played(trajectory, (Unscored(reason="?"),), "last").score is None


def test_where_a_model_runs_is_no_part_of_its_scores(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(episodes, "open_scorer", lambda settings: agents.promises())
    monkeypatch.setattr(episodes, "about_model", lambda settings, scorer: told.append(settings))
    episodes.TurnScorer(ModelSettings(model="m", server="vllm=http://x", family="f"), tmp_path)
    episodes.TurnScorer(ModelSettings(model="m", device="cuda", family="f"), tmp_path)
    assert told == [ModelSettings(model="m", family="f")] * 2


def test_groups_are_scored_a_few_at_a_time():
    groups = [[i] * 4 for i in range(5)]
    assert list(episodes.in_chunks(iter(groups), 4, 9)) == [groups[:2], groups[2:4], groups[4:]]
    assert list(episodes.in_chunks(iter(groups), 40, 9)) == [[group] for group in groups]


def test_an_interrupted_run_goes_on_and_ends_alike(prm, by, tmp_path):
    given = ("play", "crafting", *SMALL, "--in-flight", 4, "--json", "--model", "x", "-o")
    whole = by(Agent())
    assert prm(*given, tmp_path / "whole")[0] == 0
    by(Agent(stop_after=10))
    code, out, err = prm(*given, tmp_path / "part")
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert not (tmp_path / "part" / "records.jsonl").exists()
    again = by(Agent())
    assert prm(*given, tmp_path / "part")[0] == 0
    # What had ended is not played again.
    assert sum(again.calls) < sum(whole.calls)
    for name in ("records.jsonl", "metrics.json", "report.html"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    scorer = agents.promises()
    idle = by(Agent(stop_after=0), scorer)
    assert prm(*given, tmp_path / "part")[0] == 0
    assert (idle.calls, scorer.scored) == ([], [])
    code, _, err = prm(*given, tmp_path / "part", "--temperature", 0.5)
    assert code == 1
    assert "temperature: 1.0 there, 0.5 now" in " ".join(err.split())


def test_what_could_not_be_played_is_no_attempt_and_is_tried_again(prm, by, tmp_path):
    given = ("play", "crafting", *SMALL, "--model", "x", "-o", tmp_path / "a")
    by(Agent(fails=1))
    code, out, err = prm(*given)
    assert code == 3
    assert "6 episodes could not be played (no answer)" in " ".join(err.split())
    assert "prm play" in out
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert (metrics["not_played"], metrics["tasks_not_judged"], metrics["unscored"]) == (6, 2, 6)
    bad = [r for r in read_records(tmp_path / "a" / "records.jsonl") if "error" in r.meta]
    assert len(bad) == 6
    # What could not be played is not too long for the policy.
    assert metrics["without_a_turn"] == 0
    # Of all that were begun.
    assert metrics["steps_of_an_episode"] == pytest.approx(
        metrics["environment_steps"] / 18, abs=0.01
    )
    assert all(isinstance(record.scores[0], Unscored) for record in bad)
    by(Agent())
    assert prm(*given)[0] == 0
    assert prm(*given[:-1], tmp_path / "b")[0] == 0
    names = [tmp_path / folder / "records.jsonl" for folder in "ab"]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_planners_demonstrate(prm, tmp_path):
    given = ("--seeds", "7-9", "--demonstrate", "--json", "-o", tmp_path / "a")
    code, told, err = prm("play", "tools", "--task", "chain", "--task", "invoice", *given)
    assert code == 0, err
    assert json.loads(told)["success"] == [1, 1, 1]
    records = list(read_records(tmp_path / "a" / "records.jsonl"))
    assert [task_of(r.trajectory.problem).seed for r in records] == [7, 8, 9] * 2
    for record in records:
        assert record.trajectory.correct is True
        game = environment("tools")()
        game.reset(task_of(record.trajectory.problem))
        assert game.plan() == tuple(step.text for step in record.trajectory.steps)
    # Where a file counts, the answer does not.
    assert [r.trajectory.answer is None for r in records] == [False] * 3 + [True] * 3


def test_a_majority_where_answers_count(prm, by, tmp_path):
    class Answers(Agent):
        def _turn(self, prefix, rng):
            said = rng.choice(("7", "7.0", "8"))
            return f'{{"name": "answer", "arguments": {{"answer": "{said}"}}}}'

    by(Answers())
    given = ("--seeds", 2, "--samples", 5, "--json", "-o")
    metrics = json.loads(prm("play", "tools", "--task", "price", *given, tmp_path / "a")[1])
    assert metrics["at"][-1]["majority"] == [0, 0, 0]
    records = read_records(tmp_path / "a" / "records.jsonl")
    assert {record.trajectory.answer for record in records} == {"7", "8"}
    metrics = json.loads(prm("play", "tools", "--task", "invoice", *given, tmp_path / "b")[1])
    assert "majority" not in metrics["at"][-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["craftin"], "Did you mean 'crafting'"),
        (["crafting", "--task", "depth-9"], "depth-8"),
        (["crafting", "--task", "depth-2", "--task", "depth-2"], "given twice"),
        (["crafting", "--seeds", "0"], "give how many, such as 20"),
        (["crafting", "--seeds", "9-3"], "such as 100-119"),
        (["crafting", "--demonstrate", "--samples", "2"], "samples has no meaning with"),
        (["crafting", "--demonstrate", "--temperature", "0.5"], "leave out its options"),
        (["crafting", "--aggregate", "min"], "without a reward model"),
        (["crafting", "--family", "step_end"], "without one (--model)"),
        (["crafting", "--games", "x"], "games are TextWorld's"),
    ],
)
def test_what_has_no_meaning_is_told_before_any_work(prm, tmp_path, arguments, message):
    code, _, err = prm("play", *arguments, "-o", tmp_path / "a")
    assert code == 1
    assert message in " ".join(err.split())
    assert not (tmp_path / "a").exists()


def test_with_the_models_that_ship(prm, tmp_path):
    """They know nothing of the game; what is drawn and scored is the same whenever it is."""
    given = ("--max-steps", 2, "--max-new-tokens", 12, "--json", "-o")
    small = ("play", "crafting", "--task", "depth-1", "--seeds", 1, "--samples", 2)
    code, told, err = prm(*small, "--model", "embedded/prm", *given, tmp_path / "a")
    assert code == 0, err
    assert json.loads(told)["environment_steps"] == 4
    records = list(read_records(tmp_path / "a" / "records.jsonl"))
    for record in records:
        assert [len(record.scores[0].values), record.trajectory.correct] == [2, False]
    code, told, err = prm(
        "label", tmp_path / "a" / "records.jsonl", "--env", "crafting", "--k", 1, *given,
        tmp_path / "b",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(told)["environment_steps"] == 2
    for record in read_records(tmp_path / "b" / "records.jsonl"):
        assert record.labels.values == (0, 0)
