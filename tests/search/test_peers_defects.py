"""Each defect that was found in another library has a test named after it."""

from __future__ import annotations

import math
import random

import pytest

from prmkit.errors import InvalidSetting
from prmkit.policies.base import failed
from prmkit.policies.sampling import judge_by_answer
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, StepScores
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.catalogue import ALGORITHMS, algorithm, options_of
from prmkit.search.drive import search
from prmkit.search.settings import SearchSettings

PROBLEM = Problem(id="p", prompt="?", answer="7")
LINES = SearchSettings(step_stop=("\n",), split="line", answers="text")


def three_steps(prefix, rng):
    """Two lines and an answer."""
    rest = [f"line {i} {rng.randrange(10**6)}\n" for i in range(2)] + ["= 7"]
    return "".join(rest[len(prefix.steps) :])


def by_chance(problem, steps):
    return random.Random("".join(steps)).random()


def run(name, script=three_steps, score=by_chance, problems=(PROBLEM,), policy=None, **options):
    policy = policy or ScriptedPolicy(script)
    scorer = ScriptedScorer(score)
    settings = options.pop("settings", LINES)
    found = list(search(problems, algorithm(name, **options), policy, scorer, settings=settings))
    return found, policy, scorer


def test_end_of_text_at_step_3_is_exactly_3_calls():
    (found,), policy, _ = run("beam", n=1, width=1)
    assert len(policy.requests) == 3
    assert found.cost.completions == 3
    assert found.node.finish == "eos"


def test_n_4_width_4_draws_4_candidates_at_the_first_level():
    (found,), _, _ = run("beam", n=4, width=4)
    assert len(found.root.children) == 4


def test_lookahead_text_reaches_the_scorer():
    _, _, without = run("beam", n=2, width=2)
    (found,), _, scorer = run("beam", n=2, width=2, lookahead=2)
    ahead = [n for n in found.root.walk() if len(n.path) == 3]
    assert ahead
    assert max(len(steps) for steps in scorer.scored) == 3
    first_level = [steps for steps in scorer.scored if steps and len(steps) > 1]
    assert first_level
    assert len(scorer.scored) > len(without.scored)


def test_lookahead_decides_by_what_comes_after():
    """The first step that scores better leads to what scores worse."""

    def script(prefix, rng):
        first = "good\n" if rng.random() < 0.5 else "poor\n"
        told = prefix.text or first
        end = "bad end" if "good" in told else "fine end"
        return ([first, end] if not prefix.steps else [end])[0] + (end if not prefix.steps else "")

    def score(problem, steps):
        return {"good\n": 0.9, "poor\n": 0.4, "bad end": 0.1, "fine end": 0.8}[steps[-1]]

    last = SearchSettings(step_stop=("\n",), split="line", aggregation="last", answers="text")
    (near,), _, _ = run("beam", script, score, n=8, width=8, settings=last)
    (far,), _, _ = run("beam", script, score, n=8, width=8, lookahead=1, settings=last)
    assert near.node.solution() == "good\nbad end"
    assert far.node.solution() == "poor\nfine end"


def test_as_many_scores_as_steps_with_a_trailing_separator():
    def ends_in_separator(prefix, rng):
        return "".join(["a\n", "b\n", "\n", ""][len(prefix.steps) :])

    (found,), _, _ = run("beam", ends_in_separator, n=2, width=2)
    for record in found.records:
        (scores,) = record.scores
        assert isinstance(scores, StepScores)
        assert len(scores.values) == len(record.trajectory.steps) == 2
        assert all(step.text.strip() for step in record.trajectory.steps)


def test_a_step_that_the_length_cut_is_not_finished():
    short = SearchSettings(step_stop=("\n",), split="line", max_step_tokens=5, answers="text")
    (found,), _, _ = run("beam", lambda p, r: "much too long", n=2, width=2, settings=short)
    assert [node.finish for node in found.root.children] == ["length"] * 2
    assert found.node is None
    assert found.candidates == ()


def test_two_identical_problems_in_a_batch_stay_separate():
    (a, b), _, scorer = run("dvts", problems=[PROBLEM, PROBLEM], n=4, width=2)
    assert a.root is not b.root
    assert len(a.candidates) == len(b.candidates) > 0
    (alone,), _, only = run("dvts", n=4, width=2)
    assert [n.text for n in alone.root.walk()] == [n.text for n in b.root.walk()]
    assert len(scorer.scored) == 2 * len(only.scored)


@pytest.mark.parametrize("name", ["beam", "dvts", "sal-beam"])
def test_n_below_the_width_is_refused(name):
    with pytest.raises(InvalidSetting, match="multiple"):
        run(name, n=2, width=4)


SWEEP = {
    "n": (2, 6),
    "width": (1, 3),
    "max_steps": (1, 9),
    "lookahead": (0, 1),
    "distinct": (False, True),
    "balance": (0.01, 5.0),
    "sharing": ("largest_remainder", "ceiling"),
    "scheme": ("systematic", "multinomial"),
    "ess": (0.05, 1.0),
    "potential": ("value", "odds"),
    "increments": (False, True),
    "absorbing": (False, True),
    "tempering": ("none", "linear"),
    "early": (0.0, 1.0),
    "corrected": (False, True),
    "at_once": (1, 3),
    "sure": (0.6, 0.99),
    "exploration": (0.0, 9.0),
    "rollouts": (0, 2),
    "max_depth": (1, 9),
    "below": (0.0, 0.9),
    "patience": (1, 9),
    "start": (1, 4),
    "trust": (0.0, 2.0),
    "agreement": (0.05, 0.9),
    "repair": (0.0, 0.3),
    "iterations": (1, 3),
    "ancestors": (False, True),
    "burn_in": (0, 2),
}
WITH = {
    "ceiling": {"n": 7},
    "beam": {"n": 6, "width": 3},
    "dvts": {"n": 6, "width": 3},
    "sal-beam": {"n": 6, "width": 3},
    "mcts": {"n": 6},
    "early": {"tempering": "linear", "ess": 1.0},
    "corrected": {"tempering": "linear", "ess": 1.0},
    "absorbing": {"ess": 1.0},
    "tempering": {"ess": 1.0},
    "scheme": {"ess": 1.0},
    "ancestors": {"ess": 1.0},
    "patience": {"below": 0.5, "n": 9},
    "particle-gibbs": {"n": 4},
    "adaptive-self-consistency": {"sure": 0.8},
}


def some_end_early(prefix, rng):
    rest = [f"{rng.randrange(3)} of {i}\n" for i in range(6)]
    done = min(len(prefix.steps), 6)
    rest = rest[done : rng.randrange(done, 7)]
    return "".join(rest) + f"= {rng.randrange(3)}"


def early_likely(prefix, text, ends):
    """How likely that writes a text step by step: the logarithm."""
    lines = text.splitlines()
    done = len(prefix.steps)
    chances = [(1 - 1 / (7 - i)) / 3 for i in range(done, done + len(lines) - 1)]
    return sum(map(math.log, [*chances, 1 / (7 - done - len(chances)) / 3]))


ARGUMENTS = [(name, o) for name, function in ALGORITHMS.items() for o in options_of(function)]


@pytest.mark.parametrize(("name", "option"), ARGUMENTS, ids=lambda x: x)
def test_any_argument_changes_what_happens(name, option):
    def seen(value, seed):
        settings = SearchSettings(
            step_stop=("\n",), split="line", answers="text", seed=seed, aggregation="last"
        )
        options = {**WITH.get(name, {}), **WITH.get(option, {}), option: value}
        known = options_of(ALGORITHMS[name])
        options = {k: v for k, v in options.items() if k in known}
        policy = ScriptedPolicy(some_end_early, likely=early_likely)
        (found,), _, _ = run(name, policy=policy, settings=settings, **options)
        return [(n.path, n.text) for n in found.root.walk()], found.weights, found.answer

    low, high = SWEEP[option]
    if (name, option) in {("beam", "n"), ("dvts", "n"), ("sal-beam", "n")}:
        low, high = 3, 6
    assert any(seen(low, seed) != seen(high, seed) for seed in range(12))


def test_what_is_set_reaches_the_policy():
    asked = []

    class Asked(ScriptedPolicy):
        takes_ids = False

        def complete(self, prefixes, n, settings, seeds, first=None):
            asked.append((settings, list(seeds)))
            return super().complete(prefixes, n, settings, seeds, first)

    settings = SearchSettings(
        temperature=0.3, top_p=0.7, max_step_tokens=19, max_tokens=33, step_stop=("!", "\n"), seed=5
    )
    run("beam", policy=Asked(three_steps), n=1, width=1, max_steps=1, settings=settings)
    step, whole = asked[0][0], asked[-1][0]
    assert (step.temperature, step.top_p, step.max_new_tokens) == (0.3, 0.7, 19)
    assert step.stop == ("!", "\n")
    assert (whole.temperature, whole.top_p, whole.max_new_tokens) == (0.3, 0.7, 33)
    assert whole.stop == ()
    before = asked[0][1]
    asked.clear()
    other = SearchSettings(step_stop=("\n",), seed=6)
    run("beam", policy=Asked(three_steps), n=1, width=1, settings=other)
    assert asked[0][1] != before


def test_an_error_on_one_beam_leaves_the_others_alive():
    class Failing(ScriptedPolicy):
        takes_ids = False

        def complete(self, prefixes, n, settings, seeds, first=None):
            found = super().complete(prefixes, n, settings, seeds, first)
            return [
                [
                    failed("no") if i == 1 and not p.steps else one
                    for i, one in enumerate(drawn, number)
                ]
                for p, drawn, number in zip(prefixes, found, first, strict=True)
            ]

    (found,), _, _ = run("beam", policy=Failing(three_steps), n=4, width=2)
    assert [child.finish for child in found.root.children] == ["open", "error", "open", "open"]
    assert found.root.children[1].error == "no"
    assert found.answer is None or found.node.is_finished
    assert found.ended == "done"


def test_no_error_text_becomes_a_step():
    class Failing(ScriptedPolicy):
        takes_ids = False

        def complete(self, prefixes, n, settings, seeds, first=None):
            return [[failed("connection lost")] * n for _ in prefixes]

    (found,), _, _ = run("best-of-n", policy=Failing(three_steps), n=3)
    assert found.node is None
    assert "connection lost" not in str(found.records)
    assert {node.error for node in found.root.children} == {"connection lost"}


def test_text_in_any_script_survives():
    text = "質問に答える。\nĐáp số là ٤٢\n答えは 7 👩‍👩‍👧"

    def script(prefix, rng):
        return text[len(prefix.text) :]

    (found,), _, _ = run("particle-filter", script, n=3)
    assert found.node.solution() == text
    assert [r.trajectory.text for r in found.records] == [text] * 3


def test_the_answer_is_found_and_judged():
    (found,), _, _ = run("best-of-n", n=3, settings=SearchSettings(split="line"))
    assert found.answer == "7"
    assert found.correct is True
    assert judge_by_answer(PROBLEM, found.node.solution()) == ("7", True)


def test_finished_particles_are_not_resampled():
    """A particle that has ended is there at the end, once, however bad it is."""

    def script(prefix, rng):
        if not prefix.steps:
            return "bad end" if rng.random() < 0.5 else "go on\nfine end"
        return "fine end"

    def score(problem, steps):
        return 0.01 if steps[-1] == "bad end" else 0.99

    (found,), _, _ = run("particle-filter", script, score, n=8, ess=1.0)
    bad = [node for node in found.candidates if node.text == "bad end"]
    first = [node for node in found.root.children if node.text == "bad end"]
    assert sorted(n.path for n in bad) == sorted(n.path for n in first)
    assert 0 < len(bad) < 8


def test_completions_are_counted():
    """A search that reports 0 tokens is one that lost count."""
    (found,), _, _ = run("sal-beam", n=2, width=2)
    drawn = sum(len(node.text) + (node.finish == "eos") for node in found.root.walk())
    assert found.cost.policy_tokens == drawn > 0
