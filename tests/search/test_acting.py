"""Searches in a small world whose figures can be counted by hand."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import pytest

from prmkit.environments.base import Reply, Start, Task, problem_of
from prmkit.environments.world import WorldEnvironment
from prmkit.errors import EnvironmentFailed, InputTooLong, InvalidSetting, SearchError
from prmkit.policies.base import Completion
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search import (
    Acting,
    Budget,
    DriveSettings,
    SearchSettings,
    algorithm,
    drive,
    search,
    set_tasks,
)
from prmkit.search.replay import recorded, replay, traces_in
from prmkit.search.requests import Pool, expand

ONE = DriveSettings(in_flight=1)
WAY = ("right", "left", "right")
BEST = SearchSettings(aggregation="last", choice="best", answers="text")


class State:
    """Where one is; as an object of its own, to see when it is let go."""

    def __init__(self, done=()):
        self.done = done


class Fork:
    """Three forks; one way leads to the goal."""

    name, tasks = "fork", ("three",)

    def __init__(self, way=WAY):
        self.way = way

    def begin(self, task):
        return State(), Start(problem_of("fork", task, "Find the way.", "A fork."), "A fork.")

    def act(self, state, action):
        done = (*state.done, action)
        over = len(done) == 3
        return State(done), Reply(f"You went {action}.", over, done == self.way if over else None)

    def actions(self, state):
        return ("left", "right")

    def plan(self, state):
        return self.way[len(state.done) :]


class Forks:
    """Makes forks, counts what is done in them, and sees which states are kept."""

    def __init__(self, way=WAY, snapshots=True, breaks=()):
        self.way, self.snapshots, self.breaks = way, snapshots, breaks
        self.steps, self.made, self.closed = 0, 0, 0
        self.states = weakref.WeakSet()

    def __call__(self):
        self.made += 1
        return _Environment(self)


class _Environment(WorldEnvironment):
    def __init__(self, forks):
        super().__init__(Fork(forks.way))
        self.forks, self.can_snapshot = forks, forks.snapshots

    def step(self, action):
        self.forks.steps += 1
        done = (*self._here().state.done, action)
        if done in self.forks.breaks:
            raise EnvironmentFailed("the bridge is out")
        return super().step(action)

    def snapshot(self):
        assert self.can_snapshot
        state = super().snapshot()
        self.forks.states.add(state.state)
        return state

    def close(self):
        self.forks.closed += 1


class Coin:
    """Says left and right in turn; greedily, left."""

    name = "coin"

    def __init__(self, forks=None, stop_after=None, longest=None):
        self.calls, self.kept = [], []
        self._forks, self._stop_after, self._longest = forks, stop_after, longest

    def complete(self, prefixes, n, settings, seeds, first=None):
        if self._stop_after is not None and len(self.calls) >= self._stop_after:
            raise KeyboardInterrupt
        if self._forks is not None:
            gc.collect()
            self.kept.append(len(self._forks.states))
        if self._longest is not None and max(len(p.steps) for p in prefixes) >= self._longest:
            raise InputTooLong("too long to be read")
        for prefix in prefixes:
            assert all(step.observation for step in prefix.steps)
        self.calls.append(len(prefixes) * n)
        first = first or [0] * len(prefixes)
        greedy = settings.temperature == 0
        return [
            [Completion(("left", "right")[not greedy and (at + i) % 2], "eos", 5) for i in range(n)]
            for at in first
        ]


def perfect(problem, steps):
    """1 on the way."""
    return float(tuple(steps) == WAY[: len(steps)])


def go(
    name,
    forks=None,
    policy=None,
    scorer=perfect,
    tasks=1,
    max_steps=5,
    given=None,
    lazily=False,
    **options,
):
    forks = forks or Forks()
    given = given or {}
    acting = Acting(make=forks, max_steps=max_steps, **given.pop("acting", {}))
    problems = list(set_tasks(forks, [Task(i) for i in range(tasks)], pytest.fail))
    found = search(
        problems,
        algorithm(name, **options),
        policy or Coin(),
        scorer and ScriptedScorer(scorer),
        settings=BEST,
        acting=acting,
        **given,
    )
    return found if lazily else list(found)


def tree(found):
    return [
        (n.path, n.text, n.observation, n.finish, n.scores, n.cost._replace(replayed=0))
        for n in found.root.walk()
    ]


def actions(found):
    return tuple(step.text for step in found.node.trajectory().steps)


def test_beam_search_finds_the_way_that_a_greedy_policy_misses():
    (greedy,) = go("greedy", scorer=None)
    assert (actions(greedy), greedy.correct) == (("left",) * 3, False)
    assert (greedy.cost.env_steps, greedy.cost.replayed, greedy.cost.completions) == (3, 0, 3)
    (best,) = go("best-of-n", n=4)
    # After the first turn of an episode each is the first child of its node.
    assert {tuple(s.text for s in r.trajectory.steps) for r in best.records} == {
        ("left", "left", "left"),
        ("right", "left", "left"),
    }
    assert (best.cost.env_steps, best.correct) == (12, False)
    (found,) = go("beam", n=4, width=4)
    assert (actions(found), found.correct, found.ended) == (WAY, True, "done")
    assert (found.cost.env_steps, found.cost.replayed) == (12, 0)
    (chosen,) = [r for r in found.records if r.meta["search"].get("chosen")]
    assert chosen.trajectory.finish == "eos"
    assert [s.observation for s in chosen.trajectory.steps] == [f"You went {a}." for a in WAY]
    assert chosen.scores[0].values == (1.0, 1.0, 1.0)
    assert chosen.trajectory.separator == "\n"


@pytest.mark.parametrize(
    ("snapshots", "kept", "replayed"),
    [
        (True, 32, 0),
        # One child of each level goes the way, and the others follow.
        (True, 0, 1 + 2),
        # An environment waits for one of the children; the others go the way again.
        (False, 32, 3 * 1 + 3 * 2),
        (False, 0, 4 * 1 + 4 * 2),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_ways_back_are_counted_and_change_no_tree(snapshots, kept, replayed, threads):
    forks = Forks(snapshots=snapshots)
    (found,) = go("beam", forks, n=4, width=4, given={"acting": {"kept": kept, "threads": threads}})
    assert (found.cost.env_steps, found.cost.replayed) == (12, replayed)
    assert forks.steps == 12 + replayed
    assert forks.closed == forks.made
    plain = Forks()
    assert tree(found) == tree(go("beam", plain, n=4, width=4)[0])
    # One to begin the task, and one for all that is done.
    assert plain.made == 2


def test_nothing_is_kept_of_a_tree_that_is_done(monkeypatch):
    actors = []
    make = drive.Actor
    monkeypatch.setattr(drive, "Actor", lambda *given: actors.append(make(*given)) or actors[-1])
    for _ in go("beam", tasks=3, n=4, width=4, lazily=True, given={"driving": ONE}):
        assert not actors[0]._trees


def test_children_of_a_node_are_done_at_once_where_each_goes_its_own_way():
    """Two steps wait for each other."""
    forks, both = Forks(snapshots=False), threading.Barrier(2, timeout=30)

    class Waiting(_Environment):
        def step(self, action):
            both.wait()
            return super().step(action)

    (problem,) = set_tasks(lambda: Waiting(forks), [Task(0)], pytest.fail)
    (found,) = search(
        [problem], algorithm("beam", n=2, width=2), Coin(), ScriptedScorer(perfect), settings=BEST,
        acting=Acting(make=lambda: Waiting(forks), max_steps=1, threads=2),
    )  # fmt: skip
    assert not found.not_drawn


@pytest.mark.parametrize("snapshots", [True, False])
@pytest.mark.parametrize("name", ["beam", "best-of-n", "mcts"])
def test_no_step_beyond_the_limit(name, snapshots):
    options = {"beam": {"n": 4, "width": 2}, "best-of-n": {"n": 4}, "mcts": {"n": 6, "width": 2}}
    most = go(name, Forks(snapshots=snapshots), **options[name])[0].cost.steps_paid
    ends = set()
    for limit in range(1, most + 1):
        forks = Forks(snapshots=snapshots)
        (found,) = go(name, forks, given={"budget": Budget(env_steps=limit)}, **options[name])
        assert forks.steps == found.cost.steps_paid <= limit
        ends.add(found.ended)
    assert ends == {"budget", "done"}


def test_an_episode_that_is_begun_can_be_ended():
    """Seven steps are two whole episodes of three and one that is cut, not four of two."""
    (found,) = go("best-of-n", n=4, max_steps=3, given={"budget": Budget(env_steps=7)})
    assert (len(found.candidates), found.cost.env_steps, found.ended) == (2, 7, "budget")
    (found,) = go("best-of-n", n=4, max_steps=3, given={"budget": Budget(policy_tokens=1537)})
    assert len(found.candidates) == 4


def test_algorithms_do_not_see_who_succeeds():
    one, other = Forks(), Forks(way=("left", "left", "left"))
    for name, options in (("mcts", {"n": 6, "width": 2}), ("beam", {"n": 4, "width": 4})):
        (mine,), (theirs,) = go(name, one, **options), go(name, other, **options)
        assert tree(mine) == tree(theirs)
        assert (mine.correct, theirs.correct) == (True, False)


def test_an_episode_that_is_too_long_has_failed():
    for max_steps, policy in ((2, None), (5, Coin(longest=2))):
        (found,) = go("beam", policy=policy, n=4, width=4, max_steps=max_steps)
        assert (found.node, found.candidates, found.ended) == (None, (), "done")
        ends = [n.finish for n in found.root.walk() if not n.children and n.parent is not None]
        assert "length" in ends
        assert not found.not_drawn
        assert max(n.n_steps for n in found.root.walk()) == 2


def test_an_environment_that_fails_ends_nothing_but_the_child(tmp_path):
    broken = Forks(breaks=[WAY[:2]])
    given = {"traces": tmp_path}
    (found,) = go("beam", broken, n=4, width=4, given=dict(given))
    assert found.not_drawn == ("the bridge is out",) * 2
    assert found.ended == "done"
    assert found.correct is False
    assert found.cost.env_steps == broken.steps
    # Once it works again, the same search asks again, and pays for what is new alone.
    mended = Forks()
    (again,) = go("beam", mended, n=4, width=4, given=dict(given))
    assert (actions(again), again.correct) == (WAY, True)
    assert mended.steps < 12
    assert again.cost.steps_paid == broken.steps + mended.steps


def test_states_are_kept_while_they_may_be_gone_on_from():
    for kept in (2, 32):
        forks = Forks()
        policy = Coin(forks)
        go("mcts", forks, policy, n=12, width=2, given={"acting": {"kept": kept}}, tasks=2)
        assert 0 < max(policy.kept) <= 2 * min(kept, 7)
        gc.collect()
        assert not len(forks.states)
    # Those that were given up are let go at once.
    forks = Forks()
    policy = Coin(forks)
    go("early-rejection", forks, policy, n=4, below=0.5)
    assert policy.kept[1] == 1 + 2


def test_the_states_that_were_used_last_are_kept():
    def again(scene):
        """Goes on from the same turn, time after time."""
        ((first,),) = yield from expand([scene.root], 1)
        for _ in range(5):
            yield from expand([first], 1)
        return Pool(())

    forks = Forks()
    problems = list(set_tasks(forks, [Task(0)], pytest.fail))
    (found,) = search(problems, again, Coin(), acting=Acting(make=forks, kept=2))
    assert (found.cost.env_steps, found.cost.replayed) == (6, 0)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_killed_search_goes_on(stop, tmp_path):
    (whole,) = go("beam", n=4, width=4)
    with pytest.raises(KeyboardInterrupt):
        go("beam", policy=Coin(stop_after=stop), n=4, width=4, given={"traces": tmp_path})
    forks, policy = Forks(), Coin()
    (found,) = go("beam", forks, policy, n=4, width=4, given={"traces": tmp_path})
    assert tree(found) == tree(whole)
    # What was done is done again once, just to come back.
    assert (sum(policy.calls), found.cost.env_steps, found.cost.replayed) == (
        4 * (3 - stop),
        12,
        stop,
    )
    assert forks.steps == 4 * (3 - stop) + stop


def test_a_trace_is_chosen_from_again_without_the_environment(tmp_path):
    (found,) = go("mcts", n=8, width=2, given={"traces": tmp_path})
    assert found.correct
    (told,) = map(recorded, traces_in(tmp_path))
    assert [(n.path, n.steps, n.observation) for n in told.root.walk()] == [
        (n.path, n.steps, n.observation) for n in found.root.walk()
    ]
    against = ScriptedScorer(lambda problem, steps: 1.0 - perfect(problem, steps))
    for scorer, correct in ((None, True), (against, False)):
        (again,) = replay([told], scorer, BEST, _no_judge, lambda answers: [None] * len(answers))
        assert (again.correct, again.before) == (correct, (None, True))


def _no_judge(problem, text):
    raise AssertionError("the trace knows")


def test_tasks_share_calls_of_the_policy_and_overlap_changes_nothing():
    policy = Coin()
    together = go("beam", policy=policy, tasks=3, n=4, width=4)
    assert policy.calls == [12, 12, 12]
    for driving in (DriveSettings(in_flight=1), DriveSettings(overlap=True, threads=3)):
        alone = go("beam", tasks=3, n=4, width=4, given={"driving": driving})
        assert list(map(tree, alone)) == list(map(tree, together))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("majority", {}, "solved by deeds"),
        ("adaptive-self-consistency", {}, "solved by deeds"),
        ("adaptive", {}, "solved by deeds"),
        ("particle-gibbs", {"n": 2, "ancestors": True}, "answered otherwise there"),
    ],
)
def test_what_has_no_meaning_is_refused(name, options, told):
    forks = Forks()
    with pytest.raises(SearchError, match=told):
        go(name, forks, **options)
    assert (forks.steps, forks.closed) == (0, forks.made)


def test_votes_and_repair():
    given = {"acting": {"answer": lambda t: t.steps[0].text}}
    (found,) = go("majority", scorer=None, n=3, given=dict(given))
    assert (found.answer, found.correct) == ("left", False)
    with pytest.raises(SearchError, match="leave repair at 0"):
        go("adaptive", repair=0.5, given=dict(given))


def test_limits_and_judges_without_meaning_are_refused():
    with pytest.raises(InvalidSetting, match="no meaning without an environment"):
        list(search([], algorithm("greedy"), Coin(), budget=Budget(env_steps=3)))
    with pytest.raises(InvalidSetting, match="leave the judge out"):
        go("greedy", scorer=None, given={"judge": _no_judge})


def test_tasks_that_cannot_begin_are_left_out():
    class Away(_Environment):
        def reset(self, task):
            if task.seed == 1:
                raise RuntimeError("no such room")
            return super().reset(task)

    forks, told = Forks(), []
    problems = set_tasks(
        lambda: Away(forks), [Task(i) for i in range(3)], lambda p, error: told.append(error)
    )
    assert [problem.meta["seed"] for problem in problems] == [0, 2]
    assert told == ["a reset failed: RuntimeError: no such room"]


def test_a_way_that_is_answered_otherwise_is_a_failure():
    """The environment changes its mind; without snapshots that is seen on the way back."""

    class Moody(_Environment):
        moods = itertools.count()

        def step(self, action):
            reply = super().step(action)
            return reply._replace(observation=f"{reply.observation} {next(self.moods)}")

    forks = Forks(snapshots=False)
    problems = list(set_tasks(lambda: Moody(forks), [Task(0)], pytest.fail))
    (found,) = search(
        problems, algorithm("beam", n=2, width=2), Coin(), ScriptedScorer(perfect), settings=BEST,
        acting=Acting(make=lambda: Moody(forks), kept=0),
    )  # fmt: skip
    assert len(found.not_drawn) == 2
    assert "answered otherwise than it was" in found.not_drawn[0]
    assert found.cost.replayed == 2
