"""Particle Gibbs with few particles against exact enumeration, and what it holds on to."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from letters import distance, estimated, exactly
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.errors import InvalidSetting, SearchError
from prmkit.policies.hf import HFPolicy
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, StepScores, Unscored
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.catalogue import algorithm
from prmkit.search.drive import search
from prmkit.search.particles import Filter, Population, resampled
from prmkit.search.replay import recorded, traces_in
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.trace import read_events
from prmkit.search.tree import Node


@pytest.mark.parametrize("ess", [0.5, 1.0])
def test_few_particles_are_right_after_many_iterations(ess):
    options = {"n": 4, "ess": ess, "potential": "odds"}
    right = exactly(True, lambda v: v / (1 - v))
    found = estimated("particle-gibbs", 12, iterations=100, burn_in=3, **options)
    assert distance(found, right) < 0.07
    # A filter of as many particles is not, however often it is run.
    options |= {"scheme": "multinomial"}
    assert distance(estimated("particle-filter", 400, **options), right) > 0.14


@pytest.mark.slow
def test_without_increments_all_potentials_count():
    found = estimated("particle-gibbs", 8, n=4, iterations=80, ess=1.0, increments=False)
    assert distance(found, exactly(False)) < 0.05
    assert distance(exactly(False), exactly(True)) > 0.1


def lines(prefix, rng):
    """One to four lines and an answer."""
    rest = "".join(f"{rng.randrange(9)}\n" for _ in range(rng.randrange(1, 5)))
    return rest + "= 1" if len(prefix.steps) < 5 else "= 1"


def run(script=lines, score=lambda _, steps: random.Random("".join(steps)).random(), **how):
    settings = SearchSettings(step_stop=("\n",), split="line", answers="text", aggregation="last")
    events = []
    (found,) = search(
        [Problem(id="p", prompt="?")],
        algorithm("particle-gibbs", **how),
        ScriptedPolicy(script),
        ScriptedScorer(score),
        settings=settings,
        on_event=lambda problem, event: events.append(event),
    )
    return found, events


def test_the_kept_particle_survives_every_resampling():
    """However bad it is, and however often the others are resampled."""
    _, events = run(n=4, iterations=30, ess=1.0)
    kept, seen = None, 0
    for event in events:
        if event.get("kind") == "keep":
            kept = tuple(event["path"])
        elif event.get("kind") == "resample" and kept:
            place = tuple(event["paths"][0])
            assert event["ancestors"][0] == 0
            assert place == kept[: len(place)]
            seen += 1
    assert seen > 30


def test_each_iteration_draws_for_all_but_the_kept_particle():
    (found, events) = run(lambda prefix, rng: f"= {rng.randrange(9)}", n=4, iterations=5)
    assert found.cost.completions == 4 + 4 * 3
    assert sum(event.get("kind") == "keep" for event in events) == 4
    assert len(found.candidates) == len(set(found.candidates)) == 16
    assert sum(found.weights) == pytest.approx(1.0)


def test_particles_of_the_burn_in_are_no_candidates():
    found, events = run(n=3, iterations=4, burn_in=3)
    (*_, last) = (tuple(e["path"]) for e in events if e.get("kind") == "keep")
    assert len(found.candidates) == 3
    assert last in {node.path for node in found.candidates}


def test_where_nothing_is_scored_nothing_is_kept():
    found, events = run(lambda prefix, rng: "= 1", lambda *_: None, n=3, iterations=3)
    assert {e["path"] for e in events if e.get("kind") == "keep"} == {None}
    assert len(found.candidates) == 9
    assert found.node.solution() == "= 1"


def test_the_others_are_drawn_without_the_kept_one():
    """Each of them by weight, and by itself; those that have ended take no part."""
    problem = Problem(id="p", prompt="?")
    root = Node(problem)
    finishes = ("open", "eos", "open", "open", "open")
    nodes = [
        Node(problem, root, i, text="x", steps=("x",), finish=finish)
        for i, finish in enumerate(finishes)
    ]
    weights = np.array([0.1, 0.3, 0.4, 0.15, 0.05])
    how = Filter(n=5, ess=1.0, scheme="multinomial")
    counts = np.zeros((5, 5))
    for seed in range(4000):
        population = Population(list(nodes), np.log(weights), np.log(weights))
        ancestors, _ = resampled(how, population, 0, np.random.default_rng(seed), (2, 4))
        assert ancestors[1] == 1
        assert ancestors[2] == 4
        assert population.nodes[2] is nodes[4]
        assert np.exp(population.logs).sum() == pytest.approx(1.0)
        others = np.bincount(ancestors[[0, 3, 4]], minlength=5)
        counts += np.outer(others, others)
    w = np.where(np.arange(5) == 1, 0, weights) / 0.7
    # E[n n'] of three multinomial draws.
    expected = 3 * 2 * np.outer(w, w) + np.diag(3 * w)
    assert np.abs(counts / 4000 - expected).max() < 0.12


@pytest.mark.parametrize("options", [{"n": 1}, {"iterations": 0}, {"iterations": 3, "burn_in": 3}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InvalidSetting):
        run(**options)


@pytest.mark.parametrize("increments", [True, False])
def test_ancestors_move_no_expectation(increments):
    found = estimated(
        "particle-gibbs", 16, n=3, iterations=60, ess=1.0, increments=increments, ancestors=True
    )
    assert distance(found, exactly(increments)) < 0.06


LONG = 7


def coins(prefix, rng):
    return "\n".join(rng.choice("ab") for _ in range(len(prefix.steps), LONG))


def of_coins(prefix, text, ends):
    return len(text.split()) * math.log(0.5) if ends else -math.inf


def begins_wrong(**how):
    """How far each search is, on average, from what solutions begin with: a and b alike."""
    settings = SearchSettings(step_stop=("\n",), split="line", answers="text", aggregation="last")
    found = search(
        [Problem(id=str(i), prompt="?") for i in range(16)],
        algorithm("particle-gibbs", n=3, iterations=12, ess=1.0, **how),
        ScriptedPolicy(coins, likely=of_coins),
        ScriptedScorer(lambda _, steps: 0.8 if steps[-1][0] == "b" else 0.2),
        settings=settings,
    )
    shares = [
        sum(
            w
            for node, w in zip(one.candidates, one.weights, strict=True)
            if node.solution()[0] == "b"
        )
        for one in found
    ]
    return float(np.mean(np.abs(np.array(shares) - 0.5)))


def test_ancestors_let_beginnings_change():
    """Many steps and few particles: all come to begin as the kept one does, but for ancestors."""
    assert begins_wrong(ancestors=False) > 0.35
    assert begins_wrong(ancestors=True) < 0.25


@pytest.mark.parametrize(
    ("policy", "top_p", "match"),
    [
        (ScriptedPolicy(coins), 1.0, "does not tell.*ancestors=false"),
        (ScriptedPolicy(coins, likely=of_coins), 0.9, "top_p is 0.9; set it to 1.*ancestors=false"),
    ],
)
def test_ancestors_are_refused_before_anything_is_drawn(policy, top_p, match):
    settings = SearchSettings(step_stop=("\n",), split="line", top_p=top_p)
    scorer = ScriptedScorer(lambda _, steps: 0.5)
    how = algorithm("particle-gibbs", ancestors=True)
    found = search([Problem(id="p", prompt="?")], how, policy, scorer, settings=settings)
    with pytest.raises(SearchError, match=match):
        next(found)
    assert policy.requests == []


def test_a_rest_goes_where_it_is_likely():
    """The policy nearly always writes the letter before again, and all are worth the same."""

    def script(prefix, rng):
        letters = prefix.text.split() or [rng.choice("ab")]
        new = [] if prefix.steps else list(letters)
        while len(prefix.steps) + len(new) < 4:
            same = letters[-1]
            letters.append(same if rng.random() < 0.9 else "ba"["ab".index(same)])
            new.append(letters[-1])
        return "\n".join(new)

    def likely(prefix, text, ends):
        letters = [*prefix.text.split()[-1:], *text.split()]
        pairs = itertools.pairwise(letters)
        return sum(math.log(0.9 if a == b else 0.1) for a, b in pairs)

    found = with_ancestors(policy=ScriptedPolicy(script, likely=likely), n=3, iterations=400)
    steady = sum(
        weight
        for node, weight in zip(found.candidates, found.weights, strict=True)
        if len(set(node.solution().split())) == 1
    )
    assert steady == pytest.approx(0.9**3, abs=0.06)


def with_ancestors(folder=None, budget=None, scorer=None, policy=None, **how):
    settings = SearchSettings(step_stop=("\n",), split="line", answers="text", aggregation="last")
    (found,) = search(
        [Problem(id="p", prompt="?")],
        algorithm("particle-gibbs", **{"n": 3, "iterations": 4, "ess": 1.0, **how}, ancestors=True),
        policy or ScriptedPolicy(coins, likely=of_coins),
        scorer or ScriptedScorer(lambda _, steps: 0.8, extends=False),
        settings=settings,
        budget=budget,
        traces=folder,
    )
    return found


def test_copies_and_readings_are_in_the_trace(tmp_path):
    found = with_ancestors(tmp_path)
    (path,) = traces_in(tmp_path)
    again = recorded(path)
    copies = [node for node in found.root.walk() if node.of is not None]
    assert copies
    assert [
        (n.path, n.text, n.steps, n.finish, n.cost, n.scores, n.of and n.of.path)
        for n in again.root.walk()
    ] == [
        (n.path, n.text, n.steps, n.finish, n.cost, n.scores, n.of and n.of.path)
        for n in found.root.walk()
    ]
    told = [event for event in read_events(path) if event["event"] == "likelihood"]
    assert found.cost.readings == len(told) > 20
    assert again.cost == found.cost
    for event in told:
        node, after = again.nodes[tuple(event["path"])], again.nodes[tuple(event["after"])]
        assert event["log"] == pytest.approx((node.n_steps - after.n_steps) * math.log(0.5))
        # The question's mark-up, id and text, and the solution.
        assert event["cost"] == [0, 0, 4 + len(node.solution()), 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("calls", range(20, 140, 7))
def test_readings_are_within_the_budget(calls):
    found = with_ancestors(budget=Budget(calls=calls))
    assert calls - 1 <= found.cost.calls <= calls
    assert found.ended == "budget"
    assert all(node.of is None for node in found.candidates)
    prices = Budget(dollars=calls * 1e-5, prices=(1.0, 0.0, 0.0))
    assert prices.fits(with_ancestors(budget=prices).cost)


class Blinking:
    """Scores whole solutions, but for some of their beginnings."""

    name, semantics = "blinking", "correctness"

    def score(self, trajectories):
        return [
            Unscored(reason="blinked", model=self.name)
            if 2 <= len(one.steps) < LONG and random.Random(one.text).random() < 0.2
            else StepScores(
                values=(0.5,) * len(one.steps), semantics=self.semantics, model=self.name
            )
            for one in trajectories
        ]


def test_a_rest_that_cannot_be_scored_is_put_behind_nobody():
    """So the kept particle never loses its weight."""
    found = with_ancestors(scorer=Blinking(), n=5, iterations=12)
    assert any(part.of is not None for node in found.candidates for part in node.line())
    for node in found.candidates:
        assert all(part.unscored is None for part in node.line()[1:])


def test_a_language_model_tells_its_likelihoods(tmp_path):
    policy = HFPolicy(WEIGHTS / "policy", device="cpu")
    settings = SearchSettings(step_stop=("\n",), split="line", max_step_tokens=40)
    (problem,) = problems("test", 1)
    (found,) = search(
        [problem],
        algorithm("particle-gibbs", n=3, iterations=3, ess=1.0, ancestors=True),
        policy,
        ScriptedScorer(lambda _, steps: random.Random("".join(steps)).random(), extends=False),
        settings=settings,
        traces=tmp_path,
    )
    events = list(read_events(traces_in(tmp_path)[0]))
    told = [event for event in events if event["event"] == "likelihood"]
    nodes = {node.path: node for node in found.root.walk()}
    assert told
    for event in told:
        node, after = nodes[tuple(event["path"])], nodes[tuple(event["after"])]
        ids, more = policy.question_ids(problem), []
        for part in node.line():
            (ids if len(part.path) <= len(after.path) else more).extend(part.ids or ())
        (log,) = policy.log_likelihoods([ids], [more], [node.finish == "eos"], 0.8)
        assert (event["log"] or -math.inf) == pytest.approx(log, abs=1e-3)
