"""Environments of Gymnasium in words."""

from __future__ import annotations

import copy

import pytest

from prmkit.environments.base import Task
from prmkit.environments.laws import ENVIRONMENT_LAWS, Trial
from prmkit.errors import EnvironmentFailed, LawBroken, UnknownName
from prmkit.testing import check_environment

gymnasium = pytest.importorskip("gymnasium", reason="needs prmkit[agents]")

from prmkit.environments.gym import GymnasiumEnvironment, Spoken  # noqa: E402

MOVES = ("left", "down", "right", "up")
SPOKEN = Spoken(
    describe=lambda seen, info: "Cross the ice to the last of 16 fields: " + ", ".join(MOVES) + ".",
    observe=lambda seen, info: f"You are on field {seen + 1}.",
    act=lambda text: MOVES.index(text) if text in MOVES else None,
    succeeded=lambda total, terminated, info: total > 0,
    actions=MOVES,
)


def frozen_lake(kind):
    return gymnasium.make("FrozenLake-v1", is_slippery=kind == "slippery", disable_env_checker=True)


def make(spoken=SPOKEN, made=frozen_lake, copies="deep"):
    return GymnasiumEnvironment("ice", ("plain", "slippery"), made, spoken, copies=copies)


@pytest.mark.parametrize("copies", ["pickled", "deep", None])
@pytest.mark.parametrize("law", ENVIRONMENT_LAWS, ids=lambda law: law.__name__)
def test_it_keeps_the_laws(law, copies):
    tasks = tuple(Task(seed, name) for seed in (0, 1, 2) for name in ("plain", "slippery"))
    law(Trial(lambda: make(copies=copies), tasks))


def test_an_episode_by_hand():
    ice = make()
    start = ice.reset(Task(0, "plain"))
    assert start.observation == "You are on field 1."
    assert start.problem.prompt.startswith("Cross the ice")
    said = [ice.step(m) for m in ("down", "dance", "down", "right", "right", "down", "right")]
    assert [r.observation for r in said[:3]] == [
        "You are on field 5.",
        "'dance' is no action. Use one of: left, down, right, up.",
        "You are on field 9.",
    ]
    last = "You are on field 16.\nThe episode is over. The task is solved."
    assert said[-1] == (last, True, True, 1.0)
    assert ice.actions() == ()


def test_an_episode_that_fails_and_one_of_which_nothing_is_known():
    for succeeded, told, success in (
        (SPOKEN.succeeded, " The task is not solved.", False),
        (lambda *_: None, "", None),
    ):
        ice = make(SPOKEN._replace(succeeded=succeeded))
        ice.reset(Task(0, "plain"))
        reply = [ice.step("right"), ice.step("down")][-1]
        assert reply == (f"You are on field 6.\nThe episode is over.{told}", True, success, 0.0)


def test_a_crash_is_told():
    def made(kind):
        env = frozen_lake(kind)
        env.unwrapped.P = {}
        return env

    ice = make(made=made)
    ice.reset(Task(0, "plain"))
    with pytest.raises(EnvironmentFailed, match="'ice' failed: KeyError"):
        ice.step("down")
    with pytest.raises(EnvironmentFailed, match="could not begin: NameNotFound"):
        make(made=lambda kind: gymnasium.make("NoSuch-v0")).reset(Task(0, "plain"))


class Shared(gymnasium.Wrapper):
    """Its deep copy goes on with the same state."""

    def __deepcopy__(self, memory):
        return copy.copy(self)


class Begun(gymnasium.Wrapper):
    """Pickled, it is one that begins, as those are that remember their arguments alone."""

    def __reduce__(self):
        return _begun, ()


def _begun():
    env = Begun(frozen_lake("plain").unwrapped)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize(("wrapper", "copies"), [(Shared, "deep"), (Begun, "pickled")])
def test_a_copy_that_is_none_is_caught_by_the_laws(wrapper, copies):
    with pytest.raises(LawBroken, match="future|answered"):
        check_environment(
            lambda: make(made=lambda kind: wrapper(frozen_lake(kind).unwrapped), copies=copies)
        )


def test_without_copies_there_is_no_snapshot():
    ice = make(copies=None)
    ice.reset(Task(0))
    with pytest.raises(EnvironmentFailed, match="cannot be copied"):
        ice.snapshot()
    with pytest.raises(EnvironmentFailed, match="no snapshot"):
        ice.restore(3)
    with pytest.raises(UnknownName, match="way to copy an environment"):
        make(copies=True)
