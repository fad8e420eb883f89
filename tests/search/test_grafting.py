"""Nodes that nobody drew."""

from __future__ import annotations

import pytest

from prmkit.errors import SearchError
from prmkit.records import Problem
from prmkit.search.grafting import cut_off, joined
from prmkit.search.tree import Node

PROBLEM = Problem(id="p", prompt="?")


def node(parent, number, text, *steps, finish="open", ids=True):
    known = tuple(map(ord, text)) if ids else None
    return Node(PROBLEM, parent, number, text=text, steps=steps, finish=finish, ids=known)


@pytest.fixture
def tree():
    """A way with a blank piece on it, and another node."""
    root = Node(PROBLEM)
    a = node(root, 0, "a\n", "a\n")
    blank = node(a, 0, "\n")
    blank.lead = "\n"
    b = node(blank, 0, "b\n", "\nb\n")
    end = node(b, 0, "", finish="eos")
    other = node(root, 1, "other\n", "other\n")
    return root, [a, b, end], other


def test_copies_say_and_hold_the_same(tree):
    _, (a, b, end), other = tree
    made = joined(other, [b, end], 3)
    assert [copy.path for copy in made] == [(1, 3), (1, 3, 0)]
    assert [copy.of for copy in made] == [b, end]
    assert made[1].solution() == "other\n\nb\n"
    assert [copy.steps for copy in made] == [("\nb\n",), ()]
    assert [copy.text for copy in made] == ["\nb\n", ""]
    assert [copy.ids for copy in made] == [tuple(map(ord, "\nb\n")), ()]
    assert [copy.finish for copy in made] == ["open", "eos"]
    assert [copy.n_children for copy in made] == [1, 0]
    assert made[1].trajectory().text == "other\n\nb\n"
    assert made[1].is_finished
    assert not made[1].is_drawn_solution
    assert end.is_drawn_solution
    # A copy of copies is the same again.
    again = joined(a, made, 1)
    assert again[1].solution() == "a\n\nb\n"
    assert [copy.ids for copy in again] == [copy.ids for copy in made]


def test_tokens_are_known_where_all_are():
    root = Node(PROBLEM)
    blank = node(root, 0, "\n", ids=False)
    blank.lead = "\n"
    step = node(blank, 0, "b\n", "\nb\n")
    (copy,) = joined(node(root, 1, "a\n", "a\n"), [step], 0)
    assert copy.ids is None
    assert copy.text == "\nb\n"


def test_nothing_follows_an_end(tree):
    _, way, _ = tree
    with pytest.raises(SearchError, match="goes on from .*, which is eos"):
        joined(way[-1], way[:1], 0)


def test_a_place_inside_of_a_node():
    root = Node(PROBLEM)
    whole = node(root, 0, "a\nb\nc", "a\n", "b\n", "c", finish="eos")
    place = cut_off(whole, 2, 4)
    assert (place.path, place.steps, place.text) == ((4,), ("a\n", "b\n"), "a\nb\n")
    assert place.is_open
    for n_steps in (0, 3):
        with pytest.raises(SearchError, match="3 steps of its own"):
            cut_off(whole, n_steps, 5)
