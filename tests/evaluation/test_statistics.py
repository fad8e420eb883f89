"""Figures of weighted groups, against plain functions and against data that are repeated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import NothingToMeasure
from prmkit.evaluation import calibration, pr_auc, roc_auc
from prmkit.evaluation.calibration import calibration_sums
from prmkit.evaluation.statistics import Bootstrap, Ranking, Sums, mean, ratio


@st.composite
def ranked(draw):
    n = draw(st.integers(2, 12))

    def column(of):
        return draw(st.lists(of, min_size=n, max_size=n))

    scores = column(st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0]))
    labels, groups = column(st.booleans()), column(st.integers(0, 3))
    weights = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    return scores, labels, groups, weights


def repeated(scores, labels, groups, weights):
    """The items as they would be if each group were there so many times."""
    keep = [i for i, g in enumerate(groups) for _ in range(weights[g])]
    return [scores[i] for i in keep], [labels[i] for i in keep]


@given(ranked())
def test_rankings_of_weighted_groups_are_those_of_repeated_ones(drawn):
    scores, labels, groups, weights = drawn
    arrays = (np.array(scores), np.array(labels), np.array(groups))
    for curve, plain in (("roc", roc_auc), ("pr", pr_auc)):
        found = Ranking(*arrays, curve)(np.array([weights], dtype=float))[0]
        try:
            assert found == pytest.approx(plain(*repeated(*drawn)))
        except NothingToMeasure:
            assert np.isnan(found)


@given(st.integers(0, 2**32))
def test_both_ways_to_an_auc_agree(seed):
    rng = np.random.default_rng(seed)
    n = 2500
    scores = rng.integers(0, 40, n) / 40
    labels, groups = rng.random(n) < rng.choice([0.1, 0.9]), rng.integers(0, 5, n)
    weights = rng.integers(0, 3, (4, 5)).astype(float)
    fast, slow = Ranking(scores, labels, groups), Ranking(scores, labels, groups)
    assert fast._pairs is not None
    slow._pairs = None
    assert fast(weights) == pytest.approx(slow(weights), nan_ok=True)


def test_average_precision_by_hand():
    # Sorted: right, wrong, right, wrong. Precision at the right ones: 1 and 2/3.
    assert pr_auc([0.9, 0.8, 0.7, 0.1], [True, False, True, False]) == pytest.approx(5 / 6)
    # One place of equal scores: precision 1/2 for both right ones.
    assert pr_auc([0.5] * 4, [True, False, True, False]) == pytest.approx(0.5)
    with pytest.raises(NothingToMeasure, match="none of 2"):
        pr_auc([0.1, 0.2], [False, False])


@given(ranked())
def test_calibration_of_groups_is_that_of_the_items(drawn):
    scores, labels, groups, weights = drawn
    sums, expected, brier = calibration_sums(
        np.array(scores), np.array(labels), np.array(groups), 4
    )
    weighted = np.array([weights], dtype=float) @ sums
    items = repeated(*drawn)
    if not items[0]:
        assert np.isnan(expected(weighted)[0])
        return
    plain = calibration(*items)
    assert expected(weighted)[0] == pytest.approx(plain.expected_error)
    assert brier(weighted)[0] == pytest.approx(plain.brier)


def test_intervals_of_a_mean_are_those_of_the_central_limit():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)
    found = Bootstrap(400, 4000).estimate(mean(values, np.arange(400), 400))
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found.n == 400


def test_groups_that_agree_inside_have_wider_intervals():
    values = np.repeat([0.0, 1.0], 50)
    alone = Bootstrap(100).estimate(mean(values, np.arange(100), 100))
    together = Bootstrap(10).estimate(mean(values, np.arange(100) // 10, 10))
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_paired_differences_and_their_test():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 5, 200)
    groups = np.arange(200)
    a, b = mean(hard + 0.5 + rng.normal(0, 0.5, 200), groups, 200), mean(hard, groups, 200)
    bootstrap = Bootstrap(200, 2000)
    gap, p = bootstrap.difference(a, b)
    # What is hard for both falls out: alone, each interval is ten times wider.
    assert gap.low > 0.3
    assert gap.high < 0.7
    assert bootstrap.estimate(a).high - bootstrap.estimate(a).low > 1
    assert p == pytest.approx(2 / 2001)
    same, p = bootstrap.difference(b, b)
    assert same[:3] == (0, 0, 0)
    assert p == 1


def test_what_is_not_defined_is_none():
    nothing = Sums(np.zeros((3, 2)), ratio, 0)
    assert Bootstrap(3).estimate(nothing) == (None, None, None, 0)
    assert Bootstrap(3).difference(nothing, nothing) == ((None, None, None, 0), None)
    once = mean([1.0], np.array([0]), 3)
    # In the resamples without the first group there is no mean: they do not count.
    assert Bootstrap(3).estimate(once) == (1.0, 1.0, 1.0, 1)
    assert Bootstrap(3, resamples=0).estimate(once) == (1.0, None, None, 1)
    with pytest.raises(NothingToMeasure, match="no case"):
        Bootstrap(0)
