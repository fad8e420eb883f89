"""``prm play --search`` as it is typed."""

from __future__ import annotations

import json

import pytest

import agents
from prmkit.cli import play_search
from prmkit.environments.base import task_of
from prmkit.formats.files import read_records
from prmkit.policies.base import failed
from prmkit.search import replay

SMALL = ("--task", "depth-1", "--task", "depth-2", "--seeds", 3, "--max-steps", 6)
BEAM = ("--search", "beam", "--n", 8, "--set", "width=4", "--model", "x")


class Agent(agents.Agent):
    """Errs often; stops as if interrupted after some calls, or fails in some task."""

    def __init__(self, stop_after=None, fails=None):
        super().__init__(wrong=0.6)
        self._stop_after, self._fails = stop_after, fails

    def complete(self, prefixes, n, settings, seeds, first=None):
        if self._stop_after is not None and len(self.calls) >= self._stop_after:
            raise KeyboardInterrupt
        drawn = super().complete(prefixes, n, settings, seeds, first)
        return [
            [failed("no answer")] * n if task_of(p.problem).seed == self._fails else d
            for p, d in zip(prefixes, drawn, strict=True)
        ]


@pytest.fixture
def by(monkeypatch):
    """Puts an agent, and a scorer, where models would be loaded."""

    def put(agent):
        monkeypatch.setattr(play_search, "open_policy", lambda settings: (agent, {}))
        monkeypatch.setattr(play_search, "open_scorer", lambda settings: agents.promises())
        return agent

    return put


def played(prm, *given):
    code, told, err = prm("play", "crafting", *SMALL, *given, "--json")
    assert code == 0, err
    return json.loads(told)


def test_a_search_solves_what_single_episodes_do_not(prm, by, tmp_path):
    by(Agent())
    greedy = played(prm, "--search", "greedy", "-o", tmp_path / "greedy")
    beam = played(prm, *BEAM, "-o", tmp_path / "beam")
    assert {p.name for p in (tmp_path / "beam").iterdir()} == {
        "config.json", "traces", "records.jsonl", "metrics.json", "report.html",
    }  # fmt: skip
    assert (beam["tasks"], beam["success"][0], beam["succeeded"]) == (6, 1.0, 6)
    assert greedy["success"][0] < 1
    records = list(read_records(tmp_path / "beam" / "records.jsonl"))
    chosen = [r for r in records if r.meta["search"].get("chosen")]
    assert len(chosen) == 6
    assert all(r.trajectory.correct and r.scores[0].values for r in chosen)
    told = [replay.recorded(path) for path in replay.traces_in(tmp_path / "beam")]
    # Each turn is one completion and one step, and is scored unless it was one too many.
    steps = sum(len(one.nodes) - 1 for one in told)
    assert beam["environment_steps"] == beam["completions"] == steps
    assert beam["scorings"] == sum(n.scores is not None for one in told for n in one.root.walk())
    assert beam["scorings"] < steps
    assert beam["steps_of_a_task"] == pytest.approx(steps / 6, abs=0.01)
    assert beam["replayed"] == beam["not_played"] == beam["tasks_not_judged"] == 0
    page = (tmp_path / "beam" / "report.html").read_text()
    assert "of the episodes that beam chose" in page
    config = json.loads((tmp_path / "beam" / "config.json").read_text())
    assert (config["search"], config["n"], config["set"]) == ("beam", 8, ["width=4"])
    assert "samples" not in config


def test_where_no_episode_ends_the_furthest_is_shown(prm, by, tmp_path):
    by(Agent())
    given = ("--search", "best-of-n", "--n", 2, "--model", "x", "--budget", "env_steps=1")
    found = played(prm, *given, "-o", tmp_path)
    assert (found["success"][0], found["without_an_end"], found["ended_by_budget"]) == (0, 6, 6)
    assert found["environment_steps"] == 6
    records = list(read_records(tmp_path / "records.jsonl"))
    assert [(len(r.trajectory.steps), r.trajectory.correct) for r in records] == [(1, False)] * 6


def test_an_interrupted_search_goes_on_and_ends_alike(prm, by, tmp_path):
    given = ("play", "crafting", *SMALL, *BEAM, "--in-flight", 2, "--json", "-o")
    whole = by(Agent())
    assert prm(*given, tmp_path / "whole")[0] == 0
    by(Agent(stop_after=7))
    assert prm(*given, tmp_path / "part")[0] == 130
    again = by(Agent())
    assert prm(*given, tmp_path / "part")[0] == 0
    assert 0 < sum(again.calls) < sum(whole.calls)
    whole_records, records = (
        (tmp_path / name / "records.jsonl").read_bytes() for name in ("whole", "part")
    )
    assert records == whole_records
    idle = by(Agent(stop_after=0))
    assert prm(*given, tmp_path / "part")[0] == 0
    assert idle.calls == []
    code, _, err = prm(*given, tmp_path / "part", "--aggregate", "min")
    assert code == 1
    assert "aggregate: 'last' there, 'min' now" in " ".join(err.split())


def test_what_could_not_be_drawn_is_no_attempt_and_is_tried_again(prm, by, tmp_path):
    given = ("play", "crafting", *SMALL, *BEAM, "--json", "-o", tmp_path)
    by(Agent(fails=1))
    code, told, err = prm(*given)
    metrics = json.loads(told)
    assert code != 0
    assert "no answer" in err
    assert (metrics["tasks"], metrics["tasks_not_judged"], metrics["not_played"]) == (6, 2, 2)
    records = [r for r in read_records(tmp_path / "records.jsonl") if "error" in r.meta]
    assert [(r.trajectory.correct, r.meta["error"]) for r in records] == [(None, "no answer")] * 2
    by(Agent())
    code, told, _ = prm(*given)
    assert (code, json.loads(told)["success"][0]) == (0, 1.0)


def test_votes_are_for_answers(prm, by, tmp_path):
    class Guesser(Agent):
        def _turn(self, prefix, rng):
            call = {"name": "answer", "arguments": {"value": str(rng.randrange(2))}}
            return f"Action: {json.dumps(call)}"

    by(Guesser())
    code, told, err = prm(
        "play", "tools", "--seeds", 2, "--search", "majority", "--n", 5, "--json", "-o", tmp_path
    )
    assert code == 0, err
    metrics = json.loads(told)
    assert (metrics["tasks"], metrics["scorings"], metrics["choice"]) == (2, 0, "weighted")
    code, _, err = prm("play", "crafting", "--search", "majority", "-o", tmp_path / "b")
    assert code == 1
    assert "nothing can be voted on" in " ".join(err.split())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--n", 3), "no meaning without an algorithm"),
        (("--budget", "calls=3"), "no meaning without an algorithm"),
        (("--search", "beam"), "beam needs scores"),
        (("--search", "greedy", "--model", "x"), "needs no scores"),
        (("--search", "greedy", "--samples", 2), "samples has no meaning"),
        (("--search", "greedy", "--demonstrate"), "the planner plays"),
        (("--search", "bream", "--model", "x"), "bream"),
        (("--search", "beam", "--set", "wide=3", "--model", "x"), "wide"),
        (("--search", "beam", "--model", "x", "--choice", "majority"), "nothing can be voted on"),
        (("--search", "beam", "--model", "x", "--budget", "steps=3"), "env_steps"),
        (("--search", "particle-gibbs", "--set", "ancestors=true", "--model", "x"), "ancestors"),
    ],
)
def test_what_has_no_meaning_is_refused(prm, by, tmp_path, given, told):
    by(Agent())
    code, _, err = prm("play", "crafting", "--seeds", 1, *given, "-o", tmp_path / "a")
    assert code == 1
    assert told in " ".join(err.split())
    assert not (tmp_path / "a" / "metrics.json").exists()


def test_a_preset_brings_its_settings(prm, by, tmp_path):
    agent = by(Agent())
    asked = []
    complete = agent.complete
    agent.complete = lambda p, n, settings, *rest: (
        asked.append(settings.temperature) or complete(p, n, settings, *rest)
    )
    run = ("play", "crafting", *SMALL, "--search", "its-pf", "--n", 2, "--model", "x", "--json")
    code, told, err = prm(*run, "-o", tmp_path / "preset")
    assert code == 0
    assert "its-pf runs with temperature 0.8, choice algorithm" in err
    assert json.loads(told)["choice"] == "algorithm"
    assert set(asked) == {0.8}
    asked.clear()
    code, told, err = prm(*run, "--choice", "best", "--temperature", 0.5, "-o", tmp_path / "given")
    assert code == 0
    assert "runs with" not in err
    assert json.loads(told)["choice"] == "best"
    assert set(asked) == {0.5}
