"""Turns of episodes as texts: what is read once, and where a text branches."""

from __future__ import annotations

from prmkit.rl.learner import Asked, passes
from prmkit.rl.rollouts import Turn


def test_a_response_is_one_text():
    assert Asked((1, 2), (3, 4)).texts() == ([[1, 2, 3, 4]], [[1, 2]])
    assert Asked((1, 2), ()).texts() == ([[1, 2]], [[]])
    assert Asked((1, 2), (3, 4)).n_tokens == 4


def test_turns_go_on_in_one_text_where_all_of_the_turn_before_is_kept():
    one = Asked((1, 2), (3, 4, 7, 9), (Turn(4, (5, 6), 1), Turn(7, (8,), 1)))
    assert one.texts() == ([[1, 2, 3, 4, 5, 6, 7, 8, 9]], [[1, 2, 5, 7]])
    assert one.n_tokens == 9


def test_a_text_branches_where_a_turn_is_shown_otherwise():
    # Of the first turn's text (1 2 3 4) its prompt and one token are kept.
    one = Asked((1, 2), (3, 4, 7, 8, 9), (Turn(3, (5, 6), 2), Turn(7, (5,), 1)))
    assert one.texts() == ([[1, 2, 3, 4], [1, 2, 3, 5, 6, 7, 8, 5, 9]], [[1, 2], [4, 5, 7]])
    assert one.n_tokens == 4 + 4 + 2
    # A context that is a beginning of what was there already.
    assert Asked((1, 2), (3, 9), (Turn(1, (), 1),)).texts() == ([[1, 2, 3], [1, 9]], [[1], [0]])


def test_passes_count_an_episode_by_the_tokens_that_it_computes():
    one = Asked((1, 2), (3, 4), (Turn(3, (5,) * 6, 1),))
    assert passes([one] * 3, 20) == [[0, 1], [2]]
