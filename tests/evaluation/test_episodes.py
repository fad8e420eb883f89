"""Episodes chosen by score, against numbers by hand."""

from __future__ import annotations

import pytest

from prmkit.errors import NothingToMeasure
from prmkit.evaluation.episodes import Played, measure_episodes, suspected_mistake
from prmkit.records import StepScores

GROUPS = [
    # The right one of two is chosen.
    [Played(False, 4, 0.1, "a"), Played(True, 2, 0.9, "b")],
    # The wrong one is.
    [Played(True, 6, 0.2, "a"), Played(False, 8, 0.3, "b")],
    # Not scored is never chosen before scored.
    [Played(True, 10, 0.0, "a"), Played(False, 6, None, "b")],
    [Played(False, 2, 0.5, "b"), Played(False, 2, 0.5, "b")],
]


def test_figures_by_hand():
    found = measure_episodes(GROUPS, votes=True)
    assert found.n_tasks == 4
    assert found.success.mean == 3 / 8
    one, two = found.at
    assert (one.n, two.n) == (1, 2)
    assert (one.environment_steps, two.environment_steps) == (5, 10)
    assert one.best.mean == one.majority.mean == one.solved_by_any.mean == 3 / 8
    assert two.best.mean == 2 / 4
    assert two.solved_by_any.mean == 3 / 4
    # A tie of two answers is right half the time.
    assert two.majority.mean == 3 / 8
    assert found.over_single.mean == pytest.approx((0.5 - 0.5 + 0.5 + 0) / 4)
    assert found.over_majority.mean == pytest.approx(1 / 8)
    for interval in (found.success, two.best, found.over_single):
        assert interval.low <= interval.mean <= interval.high
        assert interval.low < interval.high


def test_what_is_not_known_is_left_out():
    unknown = [Played(None, 3, 0.9), Played(True, 3, 0.1)]
    assert measure_episodes([*GROUPS, unknown]) == measure_episodes(GROUPS)
    plain = measure_episodes([[one._replace(score=None) for one in g] for g in GROUPS])
    assert plain.over_single is None
    assert plain.at[-1].best is None
    assert set(plain.metrics()) == {"success", "at"}
    assert "best" not in plain.metrics()["at"][0]
    for nothing in ([], [unknown], [*GROUPS, [Played(True, 1)]]):
        with pytest.raises(NothingToMeasure):
            measure_episodes(nothing)


@pytest.mark.parametrize(
    ("values", "semantics", "expected"),
    [
        ((0.5, 0.8, 0.3, 0.4, 0.1), "value", (2, -0.5)),
        ((0.9, 0.5, 0.1), "correctness", (1, -0.4)),
        ((0.2, 0.2, 0.7), "value", None),
        ((0.1,), "value", None),
        ((), "value", None),
        # Where scores are changes, the lowest one below zero; the first turn, too.
        ((-0.4, 0.3, -0.2), "advantage", (0, -0.4)),
        ((0.4, 0.3), "advantage", None),
    ],
)
def test_a_mistake_is_suspected_at_the_largest_fall(values, semantics, expected):
    found = suspected_mistake(StepScores(values=values, semantics=semantics, model="m"))
    assert found == (None if expected is None else (expected[0], pytest.approx(expected[1])))
