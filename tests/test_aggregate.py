import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.aggregate import AGGREGATIONS, aggregate_scores, softmin
from prmkit.errors import InvalidRecord, NothingToMeasure, UnknownName
from prmkit.records import StepScores

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def scores(*values: float, semantics: str = "correctness") -> StepScores:
    return StepScores(values=values, semantics=semantics, model="m")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("min", 0.25),
        ("product", 0.1),
        ("mean", 0.55),
        ("sum", 1.65),
        ("last", 0.5),
        ("max", 0.9),
        # Softmax of -(.9, .25, .5)/.1 by hand: weights e^-6.5, 1, e^-2.5.
        (
            "softmin",
            (0.9 * math.exp(-6.5) + 0.25 + 0.5 * math.exp(-2.5))
            / (math.exp(-6.5) + 1 + math.exp(-2.5)),
        ),
    ],
)
def test_by_hand(how, expected):
    values = (0.9, 0.25, 0.5) if how != "product" else (0.8, 0.25, 0.5)
    assert aggregate_scores(scores(*values), how) == pytest.approx(expected, abs=1e-12)


@given(PROBABILITIES)
def test_orders(values):
    of = {how: aggregate_scores(scores(*values), how) for how in AGGREGATIONS}
    slack = 1e-9
    assert of["product"] <= of["min"] + slack
    assert of["min"] <= of["softmin"] + slack
    assert of["softmin"] <= of["mean"] + slack
    assert of["mean"] <= of["max"] + slack
    assert of["min"] <= of["last"] <= of["max"]


@given(st.floats(0, 1))
def test_one_step_is_its_own_aggregate(value):
    for how in AGGREGATIONS:
        assert aggregate_scores(scores(value), how) == value


def test_softmin_holds_far_from_zero():
    assert softmin([-5000.0, 3000.0]) == pytest.approx(-5000.0)


@pytest.mark.parametrize("semantics", ["advantage", "log_ratio"])
def test_product_of_numbers_that_may_be_negative_is_refused(semantics):
    with pytest.raises(InvalidRecord, match="use sum, mean, min or last"):
        aggregate_scores(scores(-1.0, -2.0, semantics=semantics), "product")


def test_product_of_values_outside_is_refused():
    with pytest.raises(InvalidRecord, match="one is -0.5"):
        aggregate_scores(scores(0.5, -0.5, semantics="value"), "product")


def test_no_step_and_no_such_way():
    with pytest.raises(NothingToMeasure, match="no step"):
        aggregate_scores(scores(), "min")
    with pytest.raises(UnknownName, match="Did you mean 'product'"):
        aggregate_scores(scores(0.5), "prod")
