"""Every environment keeps the laws; and one that breaks a law is caught."""

from __future__ import annotations

import random

import pytest

from prmkit.environments.base import Reply, Start, Task, replay, task_of
from prmkit.environments.crafting import crafting
from prmkit.environments.laws import Trial, default_tasks
from prmkit.environments.tools import tools
from prmkit.errors import EnvironmentFailed, InvalidRecord, LawBroken, UnknownName
from prmkit.records import Problem
from prmkit.testing import ENVIRONMENT_LAWS, check_environment

MADE = {"crafting": crafting, "tools": tools}


@pytest.mark.parametrize("law", ENVIRONMENT_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MADE)
def test_every_environment_keeps_the_laws(law, name):
    law(Trial(MADE[name], default_tasks(MADE[name]), ("dance",)))


class Base:
    """An environment around the crafting game, for breaking."""

    can_snapshot = True

    def __init__(self):
        self._real = crafting()
        self.name, self.tasks = self._real.name, self._real.tasks

    def __getattr__(self, name):
        return getattr(self._real, name)


class Random(Base):
    def reset(self, task):
        start = self._real.reset(task)
        said = f"{start.observation} {random.random()}"
        problem = start.problem.model_copy(update={"prompt": said})
        return Start(problem, said)


class Forgets(Base):
    def restore(self, state):
        pass


class Raises(Base):
    def step(self, action):
        if action == "null":
            raise ValueError("null")
        return self._real.step(action)


class Empty(Base):
    def step(self, action):
        reply = self._real.step(action)
        return reply._replace(observation="") if action == "inventory" else reply


class Surrogates(Base):
    def step(self, action):
        reply = self._real.step(action)
        return reply if "\ud800" not in action else reply._replace(observation=action)


class GoesOn(Base):
    def step(self, action):
        reply = self._real.step(action)
        return reply._replace(done=False, success=None) if "over" in reply.observation else reply


class Infinite(Base):
    def step(self, action):
        return self._real.step(action)._replace(reward=float("inf"))


class Drifts(Base):
    def __init__(self):
        super().__init__()
        self._n = 0

    def step(self, action):
        self._n += 1
        reply = self._real.step(action)
        return reply._replace(observation=f"{reply.observation} {self._n}")


class NoWay(Base):
    def plan(self):
        return ("inventory",)


class Tolerant(Base):
    def step(self, action):
        try:
            return self._real.step(action)
        except EnvironmentFailed:
            return Reply("hm")


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Random, "the same task, the same start"),
        (Forgets, "same future"),
        (Raises, "nonsense is answered"),
        (Empty, "says something"),
        (Surrogates, "an observation is text"),
        (GoesOn, "the end is the end"),
        (Infinite, "finite rewards"),
        (Drifts, "same future"),
        (NoWay, "plans succeed"),
        (Tolerant, "before the first episode"),
    ],
)
def test_what_breaks_a_law_is_caught(broken, law):
    with pytest.raises(LawBroken, match=law):
        check_environment(broken, [Task(0, "depth-1"), Task(1, "depth-2")])


def test_a_replay_gives_the_replies_again():
    game = crafting()
    plan = (game.reset(Task(3)), game.plan())[1]
    replayed = replay(game, Task(3), plan)
    assert replayed.last.success
    assert len(replayed.replies) == len(plan)
    assert replay(game, Task(3), ()).last == Reply(replayed.start.observation)


def test_a_problem_that_names_no_task_is_told():
    with pytest.raises(InvalidRecord, match="names no task"):
        task_of(Problem(id="x", prompt="?"))


def test_an_unknown_kind_names_the_near_ones():
    with pytest.raises(UnknownName, match="depth-2"):
        crafting().reset(Task(0, "depth2"))


def test_a_snapshot_of_another_kind_is_told():
    with pytest.raises(EnvironmentFailed, match="no snapshot"):
        crafting().restore({"held": 3})
