"""Agreement of annotators, against examples that others worked."""

from __future__ import annotations

import numpy as np
import pytest

from prmkit.evaluation.agreement import cohens_kappa
from prmkit.evaluation.annotators import _Some, annotator_agreement, krippendorffs_alpha
from prmkit.evaluation.statistics import Bootstrap, mean

_ = None
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": the data of its sections A, B, C.
BINARY = [(0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)]
NAMES = [(1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1), (2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4)]
MISSING = [
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
]


def alpha(raters, level):
    units = [[v for v in unit if v is not None] for unit in zip(*raters, strict=True)]
    groups = np.arange(len(units)) % 3
    return Bootstrap(3, 0).value(krippendorffs_alpha(units, groups, 3, level))


@pytest.mark.parametrize(
    ("raters", "level", "published"),
    [
        (BINARY, "nominal", 0.095),
        (NAMES, "nominal", 0.692),
        (MISSING, "nominal", 0.743),
        (MISSING, "ordinal", 0.815),
    ],
)
def test_krippendorffs_own_examples(raters, level, published):
    assert alpha(raters, level) == pytest.approx(published, abs=5e-4)


def test_alpha_of_what_never_differs_is_not_defined():
    assert alpha([(1, 1), (1, 1)], "nominal") is None
    assert alpha([(1, _), (_, 1)], "ordinal") is None


def kappa(table):
    """Of a square table of counts, the first rater's rating by row."""
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    a, b = np.array(cells, dtype=np.int64).T
    return Bootstrap(1, 0).value(cohens_kappa(a, b, np.zeros(len(a), dtype=np.int64), 1))


def test_textbook_kappas():
    # Two readers of 50 grant proposals; then two pairs who agree on 60 of 100 (Wikipedia).
    assert kappa([[20, 5], [10, 15]]) == pytest.approx(0.4, abs=5e-5)
    assert kappa([[45, 15], [25, 15]]) == pytest.approx(0.1304, abs=5e-5)
    assert kappa([[25, 35], [5, 35]]) == pytest.approx(0.2593, abs=5e-5)


def test_kappa_of_a_resample_without_items_is_not_defined():
    a, b, groups = np.array([1, 0, 1]), np.array([1, 0, 0]), np.array([1, 1, 1])
    statistic = cohens_kappa(a, b, groups, 2)
    assert np.isnan(statistic(np.array([[2.0, 0.0]])))[0]
    assert statistic(np.array([[0.0, 2.0]]))[0] == pytest.approx(0.4)


SOLUTIONS = [
    {"a": (1, 1, 1, -1), "b": (1, 0, 1, -1)},
    {"a": (1, -1, _, _), "b": (1, -1, 0, 1), "c": (1, 1, -1, _)},
    {"a": (1, -1), "c": (-1, -1)},
    {"a": (1, 1), "b": (_, 1)},
    {"a": (1, 1, 1)},
    {"a": (1, _), "d": (_, 1)},
]
PROBLEMS = ["p", "q", "p", "r", "s", "t"]


def test_pairs_worked_by_hand():
    found = annotator_agreement(SOLUTIONS, PROBLEMS, resamples=0)
    assert set(found.pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    ab = found.pairs["a", "b"]
    # Steps: 1 1, 1 0, 1 1, -1 -1; 1 1, -1 -1; 1 1.
    assert (ab["steps/same"].n, ab["steps/same"].value) == (7, pytest.approx(6 / 7))
    # By chance: 5 * 4 of 1, 0 * 1 of 0, 2 * 2 of -1, of 49.
    assert ab["steps/kappa"].value == pytest.approx((6 / 7 - 24 / 49) / (1 - 24 / 49))
    assert ab["steps/kappa_wrong"].value == 1
    # The fourth solution has a step before any error that b did not rate.
    assert (ab["first_error/same"].n, ab["first_error/same"].value) == (2, 1)
    ac = found.pairs["a", "c"]
    # 1 1, -1 1; 1 -1, -1 -1; first errors at 1 and 2, 1 and 0.
    assert ac["steps/same"].value == 0.5
    assert ac["steps/kappa"].value == pytest.approx(0)
    assert ac["first_error/same"].value == 0
    assert found.annotators["c"] == {
        "solutions": 2, "steps": 5, "wrong": 3, "neutral": 0, "right": 2,
    }  # fmt: skip
    assert found.annotators["d"]["solutions"] == 1


def test_pooled_figures_worked_by_hand():
    found = annotator_agreement(SOLUTIONS, PROBLEMS, resamples=0)
    pooled = found.pooled
    # b and c: 1 1, -1 1, 0 -1.
    assert pooled["steps/same"].value == pytest.approx((6 + 2 + 1) / (7 + 4 + 3))
    chance = 24 / 7 + 8 / 4 + (1 * 2 + 1 * 1) / 3
    assert pooled["steps/kappa"].value == pytest.approx((9 - chance) / (14 - chance))
    assert (pooled["first_error/same"].n, pooled["first_error/same"].value) == (5, 0.4)
    assert -1 < pooled["steps/alpha_nominal"].value < 1
    two = annotator_agreement(SOLUTIONS[:1], ["p"], resamples=0)
    (alone,) = two.pairs.values()
    assert all(two.pooled[name] == estimate for name, estimate in alone.items())


def test_problems_are_drawn_whole():
    # Two problems: in one all the same, in the other none; so a resample is 0, a half or 1.
    solutions = [{"a": (1, 1), "b": (1, 1)}, {"a": (1, 1), "b": (0, 0)}]
    found = annotator_agreement(solutions, ["p", "q"], resamples=400, seed=3)
    same = found.pairs["a", "b"]["steps/same"]
    assert (same.value, same.low, same.high) == (0.5, 0, 1)
    together = annotator_agreement(solutions, ["p", "p"], resamples=400).pairs["a", "b"]
    assert together["steps/same"][:3] == (0.5, 0.5, 0.5)


def test_a_pair_is_weighted_by_its_own_problems():
    # One pair always agrees, in one problem; another never, in another.
    solutions = [{"a": (1, 1), "b": (1, 1)}, {"c": (1, 1), "d": (0, 0)}]
    found = annotator_agreement(solutions, ["p", "q"], resamples=400)
    assert found.pooled["steps/same"][:3] == (0.5, 0, 1)
    statistic = _Some(np.array([1]), mean([1, 0], np.array([0, 0]), 1))
    values = statistic(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert (np.isnan(values[0]), values[1]) == (True, 0.5)


def test_without_common_steps_there_is_nothing_to_measure():
    found = annotator_agreement(SOLUTIONS[4:], PROBLEMS[4:])
    assert (found.pairs, found.pooled) == ({}, {})
    assert found.metrics()["annotators"]["a"]["steps"] == 4
    assert annotator_agreement([], []).annotators == {}


def test_names_do_not_matter():
    renamed = [{{"a": "z"}.get(k, k): v for k, v in s.items()} for s in SOLUTIONS]
    old = annotator_agreement(SOLUTIONS, PROBLEMS, resamples=50)
    new = annotator_agreement(renamed, PROBLEMS, resamples=50)
    for name, estimate in old.pooled.items():
        assert new.pooled[name].value == pytest.approx(estimate.value)
