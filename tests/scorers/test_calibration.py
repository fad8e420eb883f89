"""Maps to probabilities, against numbers worked by hand and against a plain search."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.errors import CheckpointError, InvalidRecord, NothingToMeasure
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.calibration import (
    CalibratedScorer,
    Isotonic,
    Platt,
    Temperature,
    fit,
    load,
    log_odds,
    save,
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_temperature_by_hand():
    """Scores of 0.9 that are right three times of four: logit(0.9) / T = logit(0.75), T = 2."""
    found = fit([0.9] * 4 + [0.1] * 4, [1, 1, 1, 0, 0, 0, 0, 1], "temperature", "correctness")
    assert found.temperature == pytest.approx(2.0, abs=1e-6)
    assert found(0.9) == pytest.approx(0.75, abs=1e-6)
    assert found(0.5) == 0.5


def test_platt_by_hand():
    """Two values of a score, each with a known share: the line through both log-odds."""
    found = fit([1.5] * 5 + [-2.0] * 5, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1], "platt", "log_ratio")
    assert not found.odds
    assert found(1.5) == pytest.approx(0.8, abs=1e-5)
    assert found(-2.0) == pytest.approx(0.2, abs=1e-5)
    assert found.slope == pytest.approx(2 * math.log(4) / 3.5, abs=1e-4)


def test_platt_of_probabilities_is_over_their_log_odds():
    found = fit([0.9] * 4 + [0.2] * 4, [1, 1, 1, 0, 0, 0, 0, 1], "platt", "correctness")
    assert found.odds
    assert (found(0.9), found(0.2)) == pytest.approx((0.75, 0.25), abs=1e-5)


def test_isotonic_by_hand():
    """0.2 -> 0, 0.4 -> 1, 0.6 -> 0, 0.8 -> 1: the middle two fall, so they are one pool of 1/2."""
    found = fit([0.8, 0.2, 0.6, 0.4], [1, 0, 0, 1], "isotonic", "correctness")
    assert found == Isotonic(starts=(0.2, 0.4, 0.8), values=(0.0, 0.5, 1.0))
    assert [found(x) for x in (0.0, 0.2, 0.5, 0.79, 0.8, 9.0)] == [0, 0, 0.5, 0.5, 1, 1]


def brute_isotonic(scores, labels):
    """The max-min formula: the best non-decreasing fit at each distinct score."""
    xs = sorted(set(scores))
    groups = [[y for s, y in zip(scores, labels, strict=True) if s == x] for x in xs]

    def mean(i, j):
        pool = [y for group in groups[i : j + 1] for y in group]
        return sum(pool) / len(pool)

    n = len(xs)
    return [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=25))
def test_isotonic_against_the_max_min_formula(pairs):
    scores, labels = [s / 6 for s, _ in pairs], [y for _, y in pairs]
    if len(set(labels)) < 2:
        return
    found = fit(scores, labels, "isotonic", "correctness")
    expected = brute_isotonic(scores, labels)
    assert [found(x) for x in sorted(set(scores))] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.02, 0.98), st.booleans()), min_size=4, max_size=30),
    st.floats(-1.5, 1.5),
)
def test_no_other_temperature_is_better(pairs, nudge):
    scores, labels = [s for s, _ in pairs], [y for _, y in pairs]
    if len(set(labels)) < 2:
        return
    found = fit(scores, labels, "temperature", "correctness")

    def loss(slope):
        return sum(
            math.log1p(math.exp(-slope * log_odds(s) * (1 if y else -1)))
            for s, y in zip(scores, labels, strict=True)
        ) / len(scores)

    slope = 1 / found.temperature
    if slope > 2e-4:
        assert loss(slope) <= loss(slope + nudge) + 1e-5


def test_perfect_scores_do_not_break_a_fit():
    for method in ("temperature", "platt", "isotonic"):
        found = fit([0.0, 0.1, 0.9, 1.0], [0, 0, 1, 1], method, "correctness")
        assert found(1.0) > 0.9
        assert found(0.0) < 0.1


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(NothingToMeasure, match="all of the 2 are alike"):
        fit([0.1, 0.2], [1, 1], "platt", "correctness")
    with pytest.raises(InvalidRecord, match="use platt or isotonic"):
        fit([-3.0, 4.0], [0, 1], "temperature", "log_ratio")
    with pytest.raises(ValueError, match="one label per score"):
        fit([0.1], [1, 0], "platt", "correctness")


@pytest.mark.parametrize(
    "calibrator",
    [
        Temperature(temperature=1.5),
        Platt(slope=2.0, intercept=-0.5, odds=True),
        Isotonic(starts=(0.1, 0.5), values=(0.2, 0.9)),
    ],
)
def test_it_is_kept_beside_the_model(calibrator, tmp_path):
    assert load(tmp_path) is None
    save(tmp_path, calibrator)
    assert load(tmp_path) == calibrator
    (tmp_path / "calibration.json").write_text('{"method": "platt"}')
    with pytest.raises(CheckpointError, match="is no calibration"):
        load(tmp_path)


class Two:
    name, semantics = "two", "log_ratio"

    def score(self, trajectories):
        return [
            StepScores(values=(-2.0, 3.0), semantics="log_ratio", model="two")
            if t.steps
            else Unscored(reason="nothing there")
            for t in trajectories
        ]


def test_a_calibrated_scorer_gives_probabilities():
    problem = Problem(id="p", prompt="q")
    steps = (Step(text="a"), Step(text="b"))
    scorer = CalibratedScorer(Two(), Platt(slope=1.0, intercept=0.5, odds=False))
    found, not_scored = scorer.score(
        [Trajectory(problem=problem, steps=steps), Trajectory(problem=problem)]
    )
    assert found.values == pytest.approx((sigmoid(-1.5), sigmoid(3.5)))
    assert (found.semantics, scorer.semantics) == ("correctness", "correctness")
    assert not_scored == Unscored(reason="nothing there")


def test_scores_that_speak_for_the_wrong_steps_become_the_base_rate():
    """A map may not fall: the best one that never does is a constant."""
    scores = [-3.0, -2.0, -1.0, 1.0, 2.0]
    labels = [True, True, True, False, True]
    fitted = fit(scores, labels, "platt", "log_ratio")
    assert [fitted(score) for score in (-5.0, 0.0, 5.0)] == pytest.approx([0.8] * 3)


def test_whether_scores_are_probabilities_is_asked_of_their_meaning():
    """Advantages that happen to lie between 0 and 1 are none."""
    scores, labels = [0.0, 0.1, 0.2, 0.6, 0.7], [False, True, False, True, True]
    assert not fit(scores, labels, "platt", "advantage").odds
    assert fit(scores, labels, "platt", "correctness").odds
    below = fit(scores, labels, "platt", "advantage")
    assert below(-0.9) < below(-0.1) < below(0.0)


@pytest.mark.parametrize(
    "stored",
    [
        {"method": "isotonic", "starts": [0.0], "values": [7.0]},
        {"method": "isotonic", "starts": [0.0, 1.0], "values": [0.5]},
        {"method": "isotonic", "starts": [0.0, 1.0], "values": [0.5, 0.4]},
        {"method": "isotonic", "starts": [1.0, 0.0], "values": [0.5, 0.6]},
        {"method": "temperature", "temperature": -1},
    ],
)
def test_a_damaged_calibration_is_refused(stored, tmp_path):
    (tmp_path / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="is no calibration"):
        load(tmp_path)
