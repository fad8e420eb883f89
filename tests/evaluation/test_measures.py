import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prmkit.errors import NothingToMeasure
from prmkit.evaluation import (
    calibration,
    paired_bootstrap,
    predicted_first_error,
    processbench_f1,
    roc_auc,
    within_group_auc,
)
from prmkit.records import StepScores, Unscored


def scored(*values: float) -> StepScores:
    return StepScores(values=values, semantics="correctness", model="m")


def test_first_error_is_the_first_below():
    assert predicted_first_error([0.9, 0.5, 0.4, 0.1]) == 2
    assert predicted_first_error([0.9, 0.5]) is None
    assert predicted_first_error([0.9, 0.5], threshold=0.6) == 1
    assert predicted_first_error([]) is None


def test_processbench_f1_by_hand():
    solutions = [
        (scored(0.9, 0.1, 0.9), 1),  # found
        (scored(0.9, 0.9, 0.1), 1),  # too late
        (scored(0.9, 0.9, 0.9), 0),  # missed
        (scored(0.9, 0.9), None),  # right, and called right
        (scored(0.9, 0.2), None),  # right, and called wrong
        (Unscored(reason="too long"), 0),
    ]
    result = processbench_f1(*zip(*solutions, strict=True))
    assert result.accuracy_wrong == pytest.approx(1 / 3)
    assert result.accuracy_right == 0.5
    assert result.f1 == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert (result.n_wrong, result.n_right, result.n_unscored) == (3, 2, 1)


def test_processbench_f1_at_the_edges():
    always_right = processbench_f1([scored(1.0), scored(1.0)], [0, None])
    assert (always_right.accuracy_wrong, always_right.accuracy_right) == (0, 1)
    assert always_right.f1 == 0
    no_wrong = processbench_f1([scored(1.0)], [None])
    assert (no_wrong.accuracy_wrong, no_wrong.f1) == (None, 0)
    with pytest.raises(NothingToMeasure, match="none of the 1 solutions"):
        processbench_f1([Unscored(reason="x")], [None])


LABELLED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.5001, 1.0]), st.booleans(), st.integers(0, 2)),
    min_size=2,
    max_size=25,
)


def pairs(items):
    """1 for each pair in which the right one is above, 0.5 for a tie: the plain way."""
    return [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, right, _), (b, other, _) in itertools.product(items, items)
        if right and not other
    ]


@given(LABELLED)
def test_roc_auc_counts_pairs(items):
    expected = pairs(items)
    assume(expected)
    assert roc_auc([s for s, _, _ in items], [r for _, r, _ in items]) == pytest.approx(
        sum(expected) / len(expected)
    )


@given(LABELLED)
def test_within_group_auc_counts_pairs_of_a_group(items):
    inside = [pairs([i for i in items if i[2] == group]) for group in range(3)]
    flat = [value for group in inside for value in group]
    assume(flat)
    result = within_group_auc(*zip(*items, strict=True))
    assert result.auc == pytest.approx(sum(flat) / len(flat))
    assert result.n_pairs == len(flat)
    assert result.n_groups == sum(map(bool, inside))


def test_knowing_which_problem_is_hard_is_worth_nothing_within():
    scores = [0.9, 0.9, 0.9, 0.1, 0.1, 0.1]
    labels = [True, True, False, True, False, False]
    assert roc_auc(scores, labels) > 0.6
    assert within_group_auc(scores, labels, "aaabbb").auc == 0.5


def test_auc_refusals():
    with pytest.raises(NothingToMeasure, match="alike"):
        roc_auc([0.1, 0.2], [True, True])
    with pytest.raises(NothingToMeasure, match="none of the 2 groups"):
        within_group_auc([0.1, 0.2], [True, False], ["a", "b"])
    with pytest.raises(ValueError, match="score 1 is not a finite number"):
        roc_auc([0.1, float("nan")], [True, False])


def test_calibration_by_hand():
    result = calibration([0.05, 0.15, 0.95, 1.0], [False, True, True, True], n_bins=10)
    assert result.brier == pytest.approx((0.05**2 + 0.85**2 + 0.05**2 + 0) / 4)
    # Bins: [.05 vs 0], [.15 vs 1], [.975 vs 1] with 1, 1 and 2 scores.
    assert result.expected_error == pytest.approx((0.05 + 0.85 + 2 * 0.025) / 4)
    assert [b.n for b in result.bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert result.bins[2].mean_score is None
    with pytest.raises(ValueError, match="score 0 is 1.5"):
        calibration([1.5], [True])
    with pytest.raises(NothingToMeasure, match="no score"):
        calibration([], [])


def test_bootstrap_interval_of_a_mean():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1.0, 1.0, 400), rng.normal(0.5, 1.0, 400)
    result = paired_bootstrap(a, b)
    gaps = a - b
    error = gaps.std(ddof=1) / 20
    assert result.mean == pytest.approx(gaps.mean())
    # Of a mean of 400 items the normal interval is right to a few percent.
    assert result.low == pytest.approx(gaps.mean() - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(gaps.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_keeps_pairs_together():
    difficulty = np.random.default_rng(2).random(50)
    result = paired_bootstrap(difficulty + 0.1, difficulty)
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    with pytest.raises(NothingToMeasure):
        paired_bootstrap([], [])
