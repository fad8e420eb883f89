"""The final choice, by hand."""

from __future__ import annotations

import pytest

from prmkit.records import Problem
from prmkit.search.choice import choose
from prmkit.search.requests import Pool
from prmkit.search.tree import Node

PROBLEM = Problem(id="p", prompt="?")


def pool(*solutions, weights=None, chosen=None):
    root = Node(PROBLEM)
    nodes = []
    for i, (answer, value, *finish) in enumerate(solutions):
        node = Node(PROBLEM, root, i, text=str(answer), steps=(str(answer),), finish="eos")
        node.scores = None if value is None else (value,)
        if finish:
            node.finish = finish[0]
        nodes.append(node)
    return Pool(tuple(nodes), weights, None if chosen is None else nodes[chosen])


def pick(given, how, semantics="correctness"):
    def answers(nodes):
        known = {}
        return [
            None if node.text == "None" else known.setdefault(node.text, len(known))
            for node in nodes
        ]

    return choose(
        given,
        how,
        lambda node: float("-inf") if node.scores is None else node.scores[-1],
        answers,
        semantics,
    )


SOLUTIONS = (("a", 0.4), ("b", 0.7), ("a", 0.5), ("c", 0.1), ("a", 0.3))


@pytest.mark.parametrize(
    ("how", "path", "share"),
    [("weighted", 2, 1.2 / 2.0), ("majority", 2, 3 / 5), ("best", 1, 0.7 / 2.0)],
)
def test_ways_to_choose(how, path, share):
    chosen = pick(pool(*SOLUTIONS), how)
    assert chosen.node.number == path
    assert chosen.share == pytest.approx(share)


def test_an_algorithms_weights_are_the_votes():
    chosen = pick(pool(*SOLUTIONS, weights=(0.1, 0.1, 0.1, 0.6, 0.1)), "weighted")
    assert chosen.node.text == "c"
    assert chosen.share == pytest.approx(0.6)


def test_the_algorithms_own_choice():
    assert pick(pool(*SOLUTIONS, chosen=4), "algorithm").node.number == 4
    assert pick(pool(*SOLUTIONS), "algorithm").node.number == 2


def test_log_ratios_vote_by_their_exponentials():
    given = pool(("a", -1.0), ("b", -0.2), ("a", -1.2))
    # e^-0.8 + e^-1 = 0.82 against 1.
    assert pick(given, "weighted", "log_ratio").node.text == "b"
    assert pick(given, "majority", "log_ratio").node.text == "a"


def test_no_whole_solution_no_choice():
    chosen = pick(pool(("a", 0.9, "length"), ("b", 0.8, "open"), ("c", 0.7, "aborted")), "best")
    assert chosen == (None, (), (), None)


def test_what_was_cut_has_no_vote():
    given = pool(("a", 0.9, "length"), ("a", 0.9, "length"), ("b", 0.2))
    assert pick(given, "weighted").node.text == "b"


def test_without_an_answer_no_vote():
    given = pool((None, 0.9), (None, 0.9), ("b", 0.2))
    assert pick(given, "majority").node.text == "b"
    assert pick(given, "best").node.text == "None"
    assert pick(pool((None, 0.1), (None, 0.9)), "weighted").node.number == 1


def test_without_scores_the_majority():
    given = pool(("a", None), ("b", None), ("b", None))
    assert pick(given, "weighted").node.number == 1
    assert pick(given, "weighted").weights == (1.0, 1.0, 1.0)


def test_unscored_ones_weigh_nothing_beside_scored_ones():
    assert pick(pool(("a", None), ("a", None), ("b", 0.1)), "weighted").node.text == "b"


def test_votes_without_weight_count_alike():
    assert pick(pool(("a", 0.0), ("b", 0.0), ("b", 0.0)), "weighted").node.text == "b"


def test_the_first_of_equal_ones():
    assert pick(pool(("a", 0.5), ("b", 0.5)), "weighted").node.text == "a"
    assert pick(pool(("b", 0.5), ("a", 0.5)), "best").node.text == "b"
