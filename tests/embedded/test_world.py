"""The embedded world: its problems make sense, and its judge finds the first wrong step."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from prmkit.embedded.judge import judge
from prmkit.embedded.phrases import NAMES
from prmkit.embedded.solutions import NO_MISTAKES, write_solution
from prmkit.embedded.world import World, compute, make_problem, problems, sentence_meanings
from prmkit.errors import UnknownName
from prmkit.records import Problem
from worlds import hand_made


@pytest.mark.parametrize(
    ("steps", "verdicts"),
    [
        (["12 + 5 = 17", "17 * 2 = 34", "The answer is 34."], ["right"] * 3),
        (["5 + 12 = 17", "2 * 17 = 34"], ["right"] * 2),
        (["12 + 5 = 17", "17 + 17 = 34"], ["right"] * 2),
        (["12 + 5 = 17, 17 × 2 = 34"], ["right"]),
        (["(12 + 5) * 2 = 34. The answer is 34"], ["right"]),
        (["Let me think.", "12 + 5 = 17"], ["right"] * 2),
        (["12 + 5 = 18"], ["arithmetic"]),
        (["12 - 5 = 7"], ["operation"]),
        (["12 + 9 = 21"], ["quantity"]),
        (["12 + 5 = 17", "17 / 2 = 8"], ["right", "arithmetic"]),
        (["12 + 5 * 2 = 22"], ["quantity"]),
        (["12 + 5 = 17 * 2 = 34"], ["arithmetic"]),
        (["12 + 5 = 17", "So there are 23 apples"], ["right", "quantity"]),
        (["The answer is 34."], ["unsupported"]),
        (["12 + 5 = 17", "17 * 2 = 34", "The answer is 17."], ["right", "right", "quantity"]),
        (["17 * 2 = 34"], ["quantity"]),
        ([""], ["right"]),
        (["\x00 日本 ∑ = = ((("], ["right"]),
        (["12 / 0 = 0"], ["arithmetic"]),
    ],
)
def test_verdicts_worked_by_hand(steps, verdicts):
    assert list(judge(hand_made(), steps).verdicts) == verdicts


def test_first_error_and_answer():
    judgement = judge(hand_made(), ["12 + 5 = 17", "17 - 2 = 15", "The answer is 15."])
    assert judgement.verdicts[:2] == ("right", "operation")
    assert judgement.first_error == 1
    assert judgement.answer == "15"
    assert not judgement.correct


@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_stories_are_solvable_and_their_solutions_right(split):
    for problem in problems(split, 300):
        world = World.of(problem)
        for relation in world.relations:
            a, b = world.operands(relation)
            # Arithmetic done here again, not by the module.
            expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[relation.op]
            assert expected == relation.value
            assert 0 < relation.value <= 60
        found = judge(problem, write_solution(problem, random.Random(problem.id)))
        assert found.first_error is None
        assert found.correct


@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_every_name_is_known_or_new(split):
    """Of two names in a sentence the one is new: else nobody could tell who acts on whom."""
    for problem in problems(split, 300):
        known: set[str] = set()
        for sentence, _ in sentence_meanings(problem)[:-1]:
            names = [name for name in NAMES if re.search(rf"\b{name}\b", sentence)]
            assert len([name for name in names if name in known]) <= 1, problem.text
            known |= set(names)


def test_splits_have_the_lengths_they_promise():
    def lengths(split):
        return {len(World.of(p).relations) for p in problems(split, 400)}

    assert lengths("train") == lengths("test") == set(range(2, 9))
    assert lengths("ood") == {9, 10}


def test_splits_share_no_question():
    train = {p.text for p in problems("train", 3000)}
    test = {p.text for p in problems("test", 1000)}
    assert not train & test
    assert len(test) == 1000


def test_a_mistake_is_found_where_it_was_made():
    """One changed step of a right solution: the judge names that step, whatever comes after."""
    rng = random.Random(5)
    for problem in problems("train", 300):
        steps = write_solution(problem, rng)
        at = rng.randrange(len(steps) - 1)
        left, right = steps[at].split(" = ")
        result, rest = right.split(" ", 1)
        steps[at] = f"{left} = {int(result) + 1} {rest}"
        judgement = judge(problem, steps)
        assert judgement.first_error == at
        assert judgement.verdicts[at] == "arithmetic"


def test_mistakes_come_at_the_rates_asked_for():
    rates = replace(NO_MISTAKES, slip=0.3, hard_slip=0.3)
    rng = random.Random(1)
    n_first = wrong = 0
    for problem in problems("train", 1500):
        first = judge(problem, write_solution(problem, rng, rates)).verdicts[0]
        n_first += 1
        wrong += first != "right"
        assert first in ("right", "arithmetic")
    # 1500 draws of 0.3: three standard errors are 0.035.
    assert abs(wrong / n_first - 0.3) < 0.036


def test_same_problem_every_time_and_other_seeds_differ():
    assert make_problem("test", 7) == make_problem("test", 7)
    assert make_problem("test", 7) != make_problem("test", 7, seed=1)


def test_bad_input_is_named():
    with pytest.raises(UnknownName, match="Did you mean 'train'"):
        make_problem("trian", 0)
    with pytest.raises(UnknownName, match="world"):
        judge(Problem(id="x", prompt="1 + 1?"), ["2"])


def test_compute_knows_inexact_divisions():
    assert compute(6, "/", 4) is None
    assert compute(6, "/", 0) is None
    assert compute(6, "/", 3) == 2
