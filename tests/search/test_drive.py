"""What drivers do: they stop when told, in time, and say what cannot be done."""

from __future__ import annotations

import itertools
import threading

import pytest

from prmkit.errors import InvalidSetting, SearchError
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search import Budget, DriveSettings, algorithm, search
from prmkit.search.drive import Rounds, Tools, grouping
from prmkit.search.judging import Judging
from prmkit.search.laws import SETTINGS
from prmkit.search.maze import Maze, MazePolicy, judge
from prmkit.search.run import Run
from prmkit.search.speaking import Speaker
from prmkit.search.trace import Trace

MAZE = Maze(ends=0.05, blank=0.0, long=0.0)
PROBLEMS = [Problem(id=f"p{i}", prompt="?" * 40, answer="0") for i in range(3)]


class NotCounting:
    """A scorer that says nothing of its tokens."""

    name, semantics = "quiet", "correctness"

    def score(self, trajectories):
        return ScriptedScorer(MAZE.score).score(trajectories)


def run(name="beam", scorer=None, tokens=True, problems=PROBLEMS, driving=None, **options):
    given = {key: options.pop(key) for key in ("budget", "on_event", "cancel") if key in options}
    return search(
        problems,
        algorithm(name, **options),
        MazePolicy(MAZE, takes_ids=tokens),
        ScriptedScorer(MAZE.score) if scorer is None else scorer,
        settings=SETTINGS,
        judge=judge,
        driving=driving,
        **given,
    )


@pytest.mark.parametrize("driving", [None, DriveSettings(overlap=True)])
def test_a_search_that_is_cancelled_gives_what_it_has(driving):
    cancel, children = threading.Event(), []

    def stop(problem, event):
        if event["event"] == "child":
            children.append(event["path"])
        if len(children) == 6:
            cancel.set()

    found = list(run(n=6, width=3, on_event=stop, cancel=cancel, driving=driving))
    assert [one.ended for one in found] == ["cancelled"] * 3
    whole = sum(one.cost.completions for one in run(n=6, width=3))
    assert 6 <= sum(one.cost.completions for one in found) < whole / 2


def test_a_search_ends_when_its_time_is_over():
    """The clock goes on by a second at every look; nothing is begun after the last."""
    ticks = itertools.count()
    tools = Tools(
        Speaker(MazePolicy(MAZE), SETTINGS), Judging(ScriptedScorer(MAZE.score)), judge,
        grouping("text"),
    )  # fmt: skip
    one = Run(
        PROBLEMS[0],
        algorithm("beam", n=6, width=3),
        SETTINGS,
        Budget(seconds=60),
        tools,
        Trace({}),
        clock=lambda: float(next(ticks)),
    )
    while not one.is_over:
        Rounds(tools).round([one])
    assert one.ended == "budget"
    assert one.cost.completions > 0
    longer = sum(found.cost.completions for found in run(n=6, width=3, problems=PROBLEMS[:1]))
    assert one.cost.completions < longer


def test_prompts_are_paid_for():
    """At a dollar for a prompt token, a budget of dollars is a budget of prompts."""
    prompt = len(MazePolicy(MAZE).question_ids(PROBLEMS[0]))
    prices = (1e6, 0.0, 0.0)
    for affordable in (1, 2, 3):
        budget = Budget(dollars=prompt * affordable, prices=prices)
        for one in run("best-of-n", n=5, budget=budget):
            assert budget.fits(one.cost)
            assert budget.price(one.cost) == one.cost.prompt_tokens
            # A request bills its prompt once, but each child may come in a request of its own.
            assert one.cost.completions >= affordable
            assert one.cost.completions <= 5
    (poor, *_) = run("best-of-n", n=5, budget=Budget(dollars=prompt - 1, prices=prices))
    assert poor.cost.completions == 0
    assert poor.ended == "budget"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scorer": NotCounting(), "budget": Budget(scorer_tokens=9)}, "does not count the tokens"),
        (
            {"scorer": NotCounting(), "budget": Budget(dollars=1, prices=(0, 0, 1))},
            "limit calls or seconds",
        ),
        (
            {"tokens": False, "budget": Budget(dollars=1, prices=(1, 1, 0))},
            "does not take token ids",
        ),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(options, told):
    with pytest.raises(InvalidSetting, match=told):
        list(run("best-of-n", n=2, **options))


def test_other_limits_can_be_kept_without_counts():
    for one in run("best-of-n", n=3, scorer=NotCounting(), budget=Budget(calls=4)):
        assert one.cost.calls <= 4
        assert one.cost.scorer_tokens == 0


def test_scores_need_a_scorer():
    with pytest.raises(SearchError, match="there is no scorer"):
        list(search(PROBLEMS, algorithm("beam", n=4), MazePolicy(MAZE), settings=SETTINGS))


@pytest.mark.parametrize("driving", [None, DriveSettings(overlap=True, threads=3)])
def test_what_goes_wrong_in_a_model_is_raised(driving):
    class Broken(ScriptedPolicy):
        def continue_ids(self, *args, **kwargs):
            raise ZeroDivisionError("in the model")

    with pytest.raises(ZeroDivisionError, match="in the model"):
        list(
            search(
                PROBLEMS, algorithm("majority", n=2), Broken(MAZE.script), settings=SETTINGS,
                driving=driving,
            )
        )  # fmt: skip


def test_problems_are_read_as_they_are_needed():
    read = []

    def some():
        for problem in PROBLEMS:
            read.append(problem.id)
            yield problem

    found = run("best-of-n", n=1, problems=some(), driving=DriveSettings(in_flight=1))
    next(found)
    assert read == ["p0"]


@pytest.mark.parametrize(
    "given", [{"threads": 2}, {"strict": False}, {"in_flight": 0}, {"overlap": True, "threads": 0}]
)
def test_settings_without_meaning_are_refused(given):
    with pytest.raises(InvalidSetting):
        DriveSettings(**given)


@pytest.mark.parametrize(
    "given", [{"calls": 0}, {"seconds": -1}, {"dollars": 1}, {"prices": (0, -1, 0)}]
)
def test_budgets_without_meaning_are_refused(given):
    with pytest.raises(InvalidSetting):
        Budget(**given)
