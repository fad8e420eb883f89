"""``prm label`` of agents' episodes: in their environment, and by their outcomes alone."""

from __future__ import annotations

import json

import pytest
import stamina

import agents
from fake_environments import AgentGymServer
from prmkit.cli import episodes, label_episodes, play
from prmkit.cli.episodes import AgentSettings
from prmkit.cli.label_episodes import situations
from prmkit.environments.base import Task
from prmkit.environments.crafting import crafting
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import rollout
from prmkit.errors import InvalidSetting
from prmkit.formats.files import read_records, write_records
from prmkit.policies.base import SamplingSettings
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored

N_STEPS = 6


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Episodes of an agent that half the time does nonsense; some were too long."""
    tasks = [Task(seed, "depth-1") for seed in range(3)]
    groups = rollout(
        agents.Agent(0.5),
        crafting,
        tasks,
        3,
        sampling=SamplingSettings(),
        settings=EpisodeSettings(max_steps=N_STEPS),
    )
    records = [episode.record for group in groups for episode in group]
    assert {record.trajectory.correct for record in records} == {True, False}
    file = tmp_path_factory.mktemp("played") / "episodes.jsonl"
    write_records(records, file)
    return file


@pytest.fixture
def by(monkeypatch):
    """Puts an agent, and a scorer, where models would be loaded."""

    def put(agent, scorer=None):
        found = scorer or agents.promises()
        monkeypatch.setattr(label_episodes, "open_policy", lambda settings: (agent, {"policy": 1}))
        monkeypatch.setattr(episodes, "open_scorer", lambda settings: found)
        monkeypatch.setattr(episodes, "about_model", lambda settings, scorer: {"name": scorer.name})
        return agent

    return put


def labelled(folder):
    return list(read_records(folder / "records.jsonl"))


GO_ON = ("--env", "crafting", "--max-steps", N_STEPS, "--json", "-o")


def test_turns_are_gone_on_from_in_their_environment(prm, by, played, tmp_path):
    # Who never errs succeeds wherever there are turns enough left.
    by(agents.Agent(0.0))
    code, told, err = prm("label", played, "--k", 2, "--kind", "soft", *GO_ON, tmp_path / "a")
    assert code == 0, err
    metrics = json.loads(told)
    steps = 0
    for record in labelled(tmp_path / "a"):
        trajectory = record.trajectory
        assert record.labels.source == "monte_carlo in crafting, 2 rollouts"
        for i, value in enumerate(record.labels.values):
            texts = [step.text for step in trajectory.steps[: i + 1]]
            left = len(agents.at(trajectory.problem, texts).plan())
            assert value == float(i + 1 + left <= N_STEPS)
        ended = trajectory.finish == "eos"
        assert record.labels.trials[:-1] == (2,) * (len(trajectory.steps) - 1)
        assert record.labels.trials[-1] == (1 if ended else 2)
    assert 0 in {v for r in labelled(tmp_path / "a") for v in r.labels.values}
    asked = {
        prefix.key for r in read_records(played) for prefix in label_episodes._asked(r.trajectory)
    }
    assert metrics["rollouts"] == metrics["rollouts_this_time"] == 2 * len(asked)
    assert metrics["episodes"] == metrics["labelled"] == 9
    for record in labelled(tmp_path / "a"):
        for prefix in label_episodes._asked(record.trajectory):
            left = len(agents.at(prefix.problem, [s.text for s in prefix.steps]).plan())
            if prefix.key in asked:
                steps += 2 * min(left, N_STEPS - len(prefix.steps))
                asked.remove(prefix.key)
    assert metrics["environment_steps"] == steps


def test_labels_are_drawn_once_and_are_hard_or_soft(prm, by, played, tmp_path):
    given = ("label", played, "--limit", 4, "--k", 3)
    by(agents.Agent(0.6))
    first = json.loads(prm(*given, *GO_ON, tmp_path / "a")[1])
    records = (tmp_path / "a" / "records.jsonl").read_bytes()
    idle = by(agents.Agent(0.6))
    again = json.loads(prm(*given, *GO_ON, tmp_path / "a")[1])
    assert not idle.calls
    assert again["rollouts_this_time"] == again["replayed_steps_this_time"] == 0
    assert again["environment_steps"] == first["environment_steps"]
    assert (tmp_path / "a" / "records.jsonl").read_bytes() == records
    assert prm(*given, "--kind", "soft", *GO_ON, tmp_path / "b")[0] == 0
    for hard, soft in zip(labelled(tmp_path / "a"), labelled(tmp_path / "b"), strict=True):
        assert hard.labels.successes == soft.labels.successes
        assert hard.labels.values == tuple(float(n > 0) for n in hard.labels.successes)
        pairs = zip(soft.labels.successes, soft.labels.trials, strict=True)
        assert soft.labels.values == tuple(n / of for n, of in pairs)
    assert {v for r in labelled(tmp_path / "b") for v in r.labels.values} - {0, 1}


def test_an_environment_that_answers_otherwise_is_a_failure_of_the_rollout(
    prm, by, played, tmp_path
):
    records = list(read_records(played))[:2]
    first = records[0].trajectory
    changed = (Step(text=first.steps[0].text, observation="Rain."), *first.steps[1:])
    records[0] = records[0].replace(trajectory=first.model_copy(update={"steps": changed}))
    write_records(records, tmp_path / "x.jsonl")
    by(agents.Agent(0.0))
    code, told, _ = prm("label", tmp_path / "x.jsonl", "--k", 2, *GO_ON, tmp_path / "a")
    assert code == 3
    bad, good = labelled(tmp_path / "a")
    n = len(label_episodes._asked(first))
    assert bad.meta["failed_rollouts"]["n"] == json.loads(told)["failed_rollouts"] == 2 * n
    assert "answered otherwise" in bad.meta["failed_rollouts"]["reason"]
    assert bad.labels.values[:n] == (None,) * n
    assert None not in good.labels.values


def test_counted_means_of_those_that_did_the_same(prm, played, tmp_path):
    code, _, err = prm("label", played, "--method", "counted", "--json", "-o", tmp_path / "a")
    assert code == 0, err
    records = labelled(tmp_path / "a")
    for record in records:
        own = situations(record.trajectory)
        for i, value in enumerate(record.labels.values):
            same = [
                r.trajectory.correct
                for r in records
                for j, turn in enumerate(situations(r.trajectory))
                if turn == own[i] and j == i
            ]
            assert value == pytest.approx(sum(same) / len(same))
            assert (record.labels.successes[i], record.labels.trials[i]) == (sum(same), len(same))
    # Thoughts differ, and still some did the same.
    assert max(n for r in records for n in r.labels.trials) > 1
    code, _, _ = prm(
        "label", played, "--method", "counted", "--gamma", 0.5, "--json", "-o", tmp_path / "b"
    )
    for whole, less in zip(records, labelled(tmp_path / "b"), strict=True):
        assert less.labels.values[-1] == whole.labels.values[-1]
        assert all(b <= a for a, b in zip(whole.labels.values, less.labels.values, strict=True))


def test_situations_are_told_apart_by_what_was_done_and_answered(played):
    record = next(iter(read_records(played)))
    own = situations(record.trajectory)
    assert len(set(own)) == len(own)
    steps = record.trajectory.steps
    thought = steps[0].model_copy(update={"text": steps[0].text.replace("number", "figure")})
    other = steps[0].model_copy(update={"observation": "Rain."})

    def with_first(step):
        return situations(record.trajectory.model_copy(update={"steps": (step, *steps[1:])}))

    assert with_first(thought) == own
    # What was answered to an action is no part of it, but of what comes after.
    assert with_first(other)[0] == own[0]
    assert set(with_first(other)[1:]).isdisjoint(own)
    problem = record.trajectory.problem.model_copy(update={"prompt": "Another one."})
    elsewhere = record.trajectory.model_copy(update={"problem": problem})
    assert set(situations(elsewhere)).isdisjoint(own)


def test_where_an_action_ends_tells_situations_apart():
    """The trap: the same letters, of which others are the answer."""

    def told(action, answer):
        steps = (Step(text=f"Action: {action}", observation=answer), Step(text="Action: stop"))
        return situations(Trajectory(problem=Problem(id="p", prompt="q"), steps=steps))

    assert told("go on", "ly")[1] == told("go on", "ly")[1] != told("go only", "")[1]


def test_a_last_turn_that_ended_an_episode_is_labelled_by_its_outcome(prm, by, tmp_path):
    by(agents.Agent(0.0))
    (group,) = rollout(
        agents.Agent(0.0), crafting, [Task(0, "depth-1")], 1, sampling=SamplingSettings(),
        settings=EpisodeSettings(max_steps=N_STEPS),
    )  # fmt: skip
    won = group[0].record
    trajectory = won.trajectory
    assert (trajectory.finish, trajectory.correct) == ("eos", True)
    lost = trajectory.model_copy(update={"correct": False})
    write_records([won, won.replace(trajectory=lost)], tmp_path / "x.jsonl")
    code, _, err = prm("label", tmp_path / "x.jsonl", "--k", 2, *GO_ON, tmp_path / "a")
    assert code == 0, err
    last = [(r.labels.successes[-1], r.labels.trials[-1]) for r in labelled(tmp_path / "a")]
    assert last == [(1, 1), (0, 1)]


def test_promises_beyond_the_range_of_outcomes_count_as_its_ends():
    steps = tuple(Step(text=f"Action: {i}") for i in range(3))
    trajectory = Trajectory(problem=Problem(id="p", prompt="q"), steps=steps, correct=True)
    scores = StepScores(values=(-0.5, 1.5, 0.3), semantics="value", model="m")
    found = label_episodes._targets(trajectory, scores, AgentSettings(lam=0.5, gamma=0.5))
    # Q̂_3 = 1; Q̂_2 = .5 (1 + .5 (1 - 1)) = .5; Q̂_1 = .5 (0 + .5 (.5 - 0)).
    assert found.values == pytest.approx((0.125, 0.5, 1.0))
    advantages = scores.model_copy(update={"semantics": "advantage"})
    with pytest.raises(InvalidSetting, match="advantage scores"):
        label_episodes._targets(trajectory, advantages, AgentSettings())


def test_temporal_differences_of_promises(prm, by, played, tmp_path):
    by(None)
    given = ("label", played, "--method", "temporal", "--model", "x", "--json", "-o")
    code, _, err = prm(*given, tmp_path / "a", "--lam", 0.5)
    assert code == 0, err
    for record in labelled(tmp_path / "a"):
        (scored,) = agents.promises().score([record.trajectory])
        target = float(record.trajectory.correct)
        expected = [target]
        for value in scored.values[-2::-1]:
            target = value + 0.5 * (target - value)
            expected.append(target)
        assert record.labels.values == pytest.approx(expected[::-1])
        assert record.labels.source == "temporal, promises, gamma 1, lambda 0.5"
    unknown = [
        r.replace(trajectory=r.trajectory.model_copy(update={"correct": None}))
        for r in list(read_records(played))[:1]
    ]
    write_records(unknown, tmp_path / "x.jsonl")
    for method in (given[2:6], ("--method", "counted")):
        code, _, _ = prm("label", tmp_path / "x.jsonl", *method, "-o", tmp_path / method[1])
        assert code == 3
        (record,) = labelled(tmp_path / method[1])
        assert record.labels is None
        assert record.scores[-1] == Unscored(reason="its outcome is not known")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "craft"], "Did you mean 'crafting'"),
        (["--env", "tools"], "is of the environment 'crafting', not of 'tools'"),
        (["--env", "crafting", "--method", "counted"], "labelled by mc, not by counted; leave out"),
        (["--env", "crafting", "--method", "omega"], "labelled by mc, not by omega"),
        (["--env", "crafting", "--stop-at-success"], "each as often"),
        (["--env", "crafting", "--budget", "5"], "limit episodes with --limit"),
        (["--env", "crafting", "--model", "x"], "leave out --model"),
        (["--env", "crafting", "--gamma", "0.5"], "no meaning with --env"),
        (["--env", "crafting", "--alpha", "0.4"], "they are omega's"),
        (["--method", "temporal"], "name it with --model"),
        (["--method", "counted", "--lam", "0.5"], "lam and a reward model have no meaning"),
        (["--method", "counted", "--temperature", "0.5"], "counted draws nothing"),
        (["--method", "counted", "--rollouts", "5"], "it takes none of these"),
        (["--method", "counted", "--max-steps", "5"], "no meaning without --env"),
        (["--gamma", "1.5"], "it must be from 0 to 1"),
        (["--max-steps", "5"], "no meaning without --env"),
    ],
)
def test_what_has_no_meaning_is_told_before_any_work(prm, by, played, tmp_path, arguments, message):
    by(agents.Agent())
    code, _, err = prm("label", played, *arguments, "-o", tmp_path / "a")
    assert code == 1
    assert message in " ".join(err.split())
    assert not (tmp_path / "a").exists()


def test_an_environment_elsewhere_is_played_and_its_turns_are_labelled(
    prm, by, tmp_path, monkeypatch
):
    agent = by(agents.Elsewhere())
    monkeypatch.setattr(play, "open_policy", lambda settings: (agent, {"policy": 1}))
    played, turns = tmp_path / "played", tmp_path / "turns"
    with AgentGymServer("textcraft") as server:
        name = f"agentgym:textcraft={server.url}"
        how = ("--seeds", 2, "--samples", 2, "--max-steps", 4)
        code, told, err = prm("play", name, *how, "-o", played, "--json")
        assert code == 0, err
        assert json.loads(told)["episodes"] == 4
        file = played / "records.jsonl"
        more = ("--k", 3, "--kind", "soft", "--max-steps", 4, "-o", turns)
        code, _, err = prm("label", file, "--env", name, *more)
        assert code == 0, err
        code, _, err = prm("label", file, "--env", "agentgym:webshop=http://x", "-o", turns)
        assert code == 1
        assert "of the environment 'agentgym-textcraft', not of 'agentgym-webshop'" in " ".join(
            err.split()
        )
    for record in labelled(turns):
        assert record.labels.kind == "soft"
        assert None not in record.labels.values
    code, _, err = prm("play", "agentgym:textcraft", "-o", tmp_path / "never")
    assert code == 1
    assert "agentgym:babyai=http://127.0.0.1:8000" in "".join(err.split())


def test_a_server_that_is_away_is_told(prm, by, tmp_path, monkeypatch):
    agent = by(agents.Elsewhere())
    monkeypatch.setattr(play, "open_policy", lambda settings: (agent, {"policy": 1}))
    address = "agentgym:textcraft=http://127.0.0.1:9"
    with stamina.set_testing(True, attempts=2, cap=True):
        code, _, err = prm("play", address, "--seeds", 1, "--samples", 1, "-o", tmp_path / "a")
    assert code == 3
    assert "1 episodes could not be played" in " ".join(err.split())
