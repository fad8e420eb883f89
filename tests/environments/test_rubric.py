"""OpenEnv's rubric: here beside a stand-in of its base class, by ``-m bridges`` the real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bridge_children import told_by
from prmkit.errors import InvalidSetting, ScoringError
from prmkit.records import Unscored
from prmkit.scorers.scripted import ScriptedScorer


class StandIn:
    """The protocol of openenv-core 0.3.0's `TrajectoryRubric`, as far as it is relied on."""

    def __init__(self, intermediate_reward=0.0):
        self.intermediate_reward, self._trajectory = intermediate_reward, []

    def __call__(self, action, observation):
        self._trajectory.append((action, observation))
        done = getattr(observation, "done", False)
        return self.score_trajectory(self._trajectory) if done else self.intermediate_reward

    def reset(self):
        self._trajectory = []

    @property
    def trajectory(self):
        return list(self._trajectory)

    def state_dict(self):
        return {"intermediate_reward": self.intermediate_reward}

    def load_state_dict(self, state):
        self.intermediate_reward = state["intermediate_reward"]


@pytest.fixture
def rubric(monkeypatch):
    """The module, beside the stand-in."""
    names = "openenv", "openenv.core", "openenv.core.rubrics", "openenv.core.rubrics.trajectory"
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].TrajectoryRubric = StandIn
    monkeypatch.delitem(sys.modules, "prmkit.environments.rubric", raising=False)
    from prmkit.environments import rubric

    yield rubric
    sys.modules.pop("prmkit.environments.rubric", None)


class Counting(ScriptedScorer):
    """A tenth of the length of each step; notes what it is asked."""

    def __init__(self):
        super().__init__(lambda problem, texts: len(texts[-1]) / 10, semantics="value", name="n")
        self.asked = []

    def score(self, trajectories):
        self.asked.append(list(trajectories))
        found = super().score(trajectories)
        long = [any("?" in step.text for step in t.steps) for t in trajectories]
        return [Unscored(reason="too long") if no else s for s, no in zip(found, long, strict=True)]


def seen(text, done=False):
    dumped = {"text": text, "done": done, "reward": None, "metadata": {"x": 1}}
    return SimpleNamespace(done=done, model_dump=lambda mode: dumped)


EPISODE = [({"message": "hello"}, seen("Hm.")), ({"message": "bye"}, seen("So.", done=True))]


def test_an_episode_by_hand(rubric):
    scorer = Counting()
    judge = rubric.PRMRubric(scorer, "Talk.", intermediate_reward=-1.0)
    assert judge.compute_step_rewards() == []
    rewards = [judge(action, observed) for action, observed in EPISODE]
    assert rewards == pytest.approx([-1, 0.3])
    assert judge.compute_step_rewards() == pytest.approx([0.5, 0.3])
    # It was scored once, as what an agent said and was answered.
    ((read,),) = [asked for asked in scorer.asked if asked]
    assert read.problem.text == "Talk."
    assert [(s.text, s.observation) for s in read.steps] == [("hello", "Hm."), ("bye", "So.")]
    judge.reset()
    assert judge.compute_step_rewards() == []
    assert judge(*EPISODE[1]) == pytest.approx(0.3)


def test_many_episodes_are_scored_by_one_call(rubric):
    scorer = Counting()
    judge = rubric.PRMRubric(scorer, lambda episode: f"{len(episode)} turns", aggregate="mean")
    found = judge.step_rewards([EPISODE, [], EPISODE[:1]])
    assert found == [pytest.approx([0.5, 0.3]), [], pytest.approx([0.5])]
    (asked,) = scorer.asked
    assert [t.problem.text for t in asked] == ["2 turns", "1 turns"]
    assert judge.score_trajectory(EPISODE) == pytest.approx(0.4)


def test_what_cannot_be_scored_is_an_error(rubric):
    judge = rubric.PRMRubric(Counting(), "Talk.", longest=2)
    with pytest.raises(ScoringError, match=r"episode 1 has 4 steps, and longest is 2"):
        judge.step_rewards([EPISODE, EPISODE * 2])
    strange = [({"message": "why?"}, seen("?"))]
    with pytest.raises(ScoringError, match=r"episode 1 of 2, of 1 steps, has no scores: too long"):
        judge.step_rewards([EPISODE, strange])
    with pytest.raises(ScoringError, match="without a step"):
        judge.score_trajectory([])
    with pytest.raises(InvalidSetting, match="longest"):
        rubric.PRMRubric(Counting(), "Talk.", longest=0)


def test_settings_travel_and_words_are_ones_own(rubric):
    judge = rubric.PRMRubric(Counting(), "Talk.", aggregate="min", longest=7)
    other = rubric.PRMRubric(
        Counting(), "Talk.", say=lambda action: "x" * action, observe=lambda o: "-"
    )
    other.load_state_dict(judge.state_dict())
    assert (other.aggregate, other.longest) == ("min", 7)
    assert other.score_trajectory([(4, None), (2, None)]) == pytest.approx(0.2)
    assert rubric.words_of("as it is") == "as it is"
    assert rubric.words_of({"a": 1}) == '{"a": 1}'


def test_without_openenv_it_says_what_to_install():
    code = "import sys; sys.modules['openenv'] = None; import prmkit.environments.rubric"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "pip install 'openenv-core'" in ran.stderr


@pytest.mark.bridges
def test_an_environment_of_openenv_is_rewarded_by_it():
    told = told_by(Path(__file__).with_name("openenv_child.py"), "openenv")
    assert told["rewards"] == pytest.approx([0, 0, 0.41])
    assert told["steps"] == pytest.approx([0.51, 0.21, 0.41])
    assert told["many"] == [pytest.approx(told["steps"]), pytest.approx([0.51]), []]
    assert (told["empty"], told["named"]) == ([], [])
    assert told["hooked"] == pytest.approx([0.41])
    assert told["state"] == {"intermediate_reward": 0.0, "aggregate": "last", "longest": 1000}
