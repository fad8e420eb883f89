"""Monitors of a policy under training, on runs whose truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from prmkit.errors import InvalidSetting, RunFolderError, UnknownName
from prmkit.rl.monitors import MonitorSettings, Watch

# Runs whose truth is known: a policy of some skill, on 8 problems with 8 samples of each, and a
# PRM whose scores rise with correctness, with easiness, and with what pleases it (style).


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run(seed, skill, style, steps=200, problems=8, group=8):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=(steps, problems, 1))
    chance = sigmoid(skill[:, None, None] - hard)
    right = (rng.uniform(size=(steps, problems, group)) < chance).astype(float)
    noise = rng.normal(size=right.shape)
    score = sigmoid(1.2 * (right - 0.5) - 0.5 * hard + style[:, None, None] + noise)
    away = score - score.mean(axis=2, keepdims=True)
    slope = (away * right).sum(axis=(1, 2)) / (away**2).sum(axis=(1, 2))
    pair = right[..., :, None] > right[..., None, :]
    above = score[..., :, None] > score[..., None, :]
    # Not a number where all are right, or all wrong; such a figure is left out.
    with np.errstate(invalid="ignore"):
        auc = (pair & above).sum(axis=(1, 2, 3)) / pair.sum(axis=(1, 2, 3))
    return [
        {
            "samples": problems * group,
            "accuracy": right[i].mean(),
            "prm": score[i].mean(),
            "prm_slope": slope[i],
            "prm_auc": auc[i],
        }
        for i in range(steps)
    ]


def alarms(rows, **settings):
    watch = Watch(MonitorSettings(**settings))
    return [alarm for step, row in enumerate(rows) for alarm in watch.seen(step, row)]


T = np.arange(200.0)
HARD = np.random.default_rng(0).normal(size=4000)


def true_accuracy(skill):
    return np.array([sigmoid(s - HARD).mean() for s in skill])


@pytest.mark.parametrize(
    ("skill", "style"),
    [
        # Style is bought from the first step; skill is lost from step 100.
        (-np.maximum(T - 100, 0) / 40, 3 * np.minimum(T / 100, 1.5)),
        # Both at once, and fast.
        (-np.maximum(T - 60, 0) / 20, np.clip(T - 30, 0, 60) / 10),
        # After 100 steps of honest learning.
        (np.minimum(T, 100) / 70 - np.maximum(T - 140, 0) / 30, np.maximum(T - 100, 0) * 3 / 40),
    ],
    ids=["slow", "fast", "late"],
)
def test_a_fooled_judge_is_told_before_accuracy_has_fallen(skill, style):
    truth = true_accuracy(skill)
    # What would be lost without an alarm is much more than 5 points.
    assert truth.max() - truth[-1] > 0.2
    for seed in range(10):
        told = [a for a in alarms(run(seed, skill, style)) if a.monitor == "divergence"]
        assert told, seed
        assert truth[: told[0].step + 1].max() - truth[told[0].step] < 0.05
        assert "verifiable rewards" in told[0].message


def test_healthy_runs_raise_no_alarm():
    for seed in range(50):
        assert alarms(run(seed, -0.5 + T / 80, 0 * T)) == []


def test_a_run_that_learns_nothing_or_all_at_once_raises_no_alarm():
    for seed in range(10):
        assert alarms(run(seed, 0 * T, 0 * T)) == []
        assert alarms(run(seed, 3.5 * (1 - np.exp(-T / 30)) - 1, 0 * T)) == []


def test_accuracy_that_falls_with_a_risen_score_is_told_without_a_slope():
    rows = [
        {k: v for k, v in row.items() if k in ("samples", "accuracy", "prm")}
        for row in run(1, -np.maximum(T - 50, 0) / 40, T / 50)
    ]
    told = alarms(rows)
    assert [alarm.monitor for alarm in told] == ["divergence"]
    # As long as it does not fall, nothing was promised.
    assert all(alarm.step > 50 for alarm in told)
    assert alarms([{**row, "accuracy": 0.5} for row in rows]) == []


def test_the_promise_is_what_the_slope_says():
    """A rise of .2 with a slope of 1 promises .2; half of it is asked for."""

    def rows(gain, slope=1.0):
        before = [{"samples": 10**6, "accuracy": 0.5, "prm": 0.5, "prm_slope": slope}] * 20
        after = {"samples": 10**6, "accuracy": 0.5 + gain, "prm": 0.7, "prm_slope": slope}
        return before + [after] * 60

    assert alarms(rows(0.11)) == []
    assert [a.monitor for a in alarms(rows(0.09))] == ["divergence"]
    assert alarms(rows(0.09, slope=0.5)) == []
    assert alarms(rows(0.09), promise=0.4) == []
    # Of few samples, the same may be noise; of those whose truth is known, too.
    assert alarms([{**row, "samples": 40} for row in rows(0.09)]) == []
    assert alarms([{**row, "known": 40 / 10**6} for row in rows(0.09)]) == []


def test_a_slope_that_is_not_known_well_promises_nothing():
    before = [
        {"samples": 10**6, "accuracy": 0.5, "prm": 0.5, "prm_slope": 1.0 + 2 * (-1) ** i}
        for i in range(20)
    ]
    assert alarms([*before, *[{"samples": 10**6, "accuracy": 0.5, "prm": 0.7}] * 60]) == []


def test_what_goes_slowly_is_seen_against_the_first_rows():
    # 16 windows of 5 rows back the score is .04 lower: not enough to tell from 400 samples.
    rows = [
        {"samples": 400, "accuracy": 0.5, "prm": 0.4 + i / 2000, "prm_slope": 1.0}
        for i in range(400)
    ]
    told = alarms(rows, baseline=5, window=5)
    assert [alarm.monitor for alarm in told] == ["divergence"]
    # Missing is half of the rise; noise is the root of .25 / 400 · (1/5 + 1/5), times 3.
    rise = 2 * 3 * math.sqrt(0.25 / 400 * 2 / 5)
    assert told[0].step == pytest.approx(2000 * rise + 4, abs=3)


def test_noise_is_no_drift():
    # A rise of .3; neighbours differ by .4, so that a mean of 10 is off by .09.
    rows = [{"repetition": 0.4 * (i % 2)} for i in range(10)]
    rows += [{"repetition": 0.3 + 0.4 * (i % 2)} for i in range(10)]
    assert alarms(rows, baseline=10, window=10) == []
    assert len(alarms(rows, baseline=10, window=10, z=1.5)) == 1


def test_a_policy_far_from_its_reference_is_told_without_first_rows():
    assert [alarm.step for alarm in alarms([{"kl": 1.0}] * 60)] == [19]


def test_a_slow_divergence_is_one_alarm():
    slowly = np.arange(2000.0)
    rows = run(0, -np.maximum(slowly - 1000, 0) / 400, 3 * slowly / 1000, steps=2000)
    assert [a.monitor for a in alarms(rows) if a.monitor == "divergence"] == ["divergence"]


# Each monitor by what it is there for, and by nothing else.

FIRST = {
    "samples": 256,
    "known": 1.0,
    "accuracy": 0.5,
    "prm": 0.6,
    "prm_auc": 0.8,
    "prm_slope": 1.0,
    "last_lowest": 0.3,
    "steps": 6.0,
    "length": 120.0,
    "repetition": 0.05,
    "truncated": 0.02,
    "unscored": 0.01,
    "kl": 0.01,
    "entropy": 0.6,
    "clipped": 0.1,
    "grad_norm": 1.0,
    "loss": 0.5,
}


def shifted(seed, to, n_rows=120, at=60):
    """Noisy figures, some of which move to other values between `at` and 20 steps later."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(n_rows):
        share = min(max((step - at) / 20, 0), 1)
        row = {k: v + share * (to.get(k, v) - v) for k, v in FIRST.items()}
        rows.append({k: v * (1 + 0.04 * rng.normal()) for k, v in row.items()})
    return rows


@pytest.mark.parametrize(
    ("monitor", "to", "advice"),
    [
        ("divergence", {"prm": 0.95}, "verifiable rewards"),
        ("prm_auc", {"prm_auc": 0.55}, "Train the PRM on what the policy writes now"),
        ("last_lowest", {"last_lowest": 0.7}, "outcome"),
        ("steps", {"steps": 20.0}, "min-form"),
        ("steps", {"steps": 1.5}, "baseline by tokens"),
        ("length", {"length": 400.0}, "Normalise"),
        ("length", {"length": 20.0}, "stop early"),
        ("repetition", {"repetition": 0.4}, "min-form"),
        ("truncated", {"truncated": 0.3}, "limit"),
        ("unscored", {"unscored": 0.3}, "reasons"),
        ("entropy", {"entropy": 0.05}, "temperature"),
        ("kl", {"kl": 1.0}, "KL term"),
    ],
)
def test_each_monitor_by_its_own_failure_and_only_by_it(monitor, to, advice):
    told = alarms(shifted(0, to))
    assert [alarm.monitor for alarm in told] == [monitor]
    assert told[0].step > 60
    assert advice in told[0].message
    assert alarms(shifted(0, to), off=(monitor,)) == []


def test_the_other_way_round_is_no_alarm():
    better = {"last_lowest": 0.01, "repetition": 0.0, "truncated": 0.0, "unscored": 0.0}
    assert alarms(shifted(0, {**better, "prm_auc": 0.99, "entropy": 2.0, "kl": 0.0})) == []
    assert alarms(shifted(0, {"accuracy": 0.9, "prm": 0.9})) == []
    # Both fall: bad, and no question of the judge.
    assert alarms(shifted(0, {"accuracy": 0.3, "prm": 0.3})) == []


def test_an_alarm_is_raised_once_and_again_after_it_was_over():
    high, low = {"repetition": 0.5}, {"repetition": 0.0}
    rows = [low] * 20 + [high] * 100
    told = alarms(rows)
    # The first rows, then a window that is full.
    assert [(alarm.step, alarm.value, alarm.baseline) for alarm in told] == [(39, 0.5, 0.0)]
    # Over when the cause was calm for as long as a window, and not before.
    assert len(alarms([*rows, *[low] * 20, *[high] * 60])) == 1
    assert len(alarms([*rows, *[low] * 60, *[high] * 60])) == 2
    # Around the limit it is one alarm, not many.
    near = ([0.11] * 30 + [0.09] * 30) * 3
    assert len(alarms([low] * 20 + [{"repetition": x} for x in near])) == 1


def test_what_is_no_finite_number_is_left_out():
    odd = [math.nan, math.inf, None, "0.5", [1]]
    rows = [{"repetition": 0.0, "kl": x, "entropy": x} for x in odd for _ in range(60)]
    assert alarms(rows) == []
    assert alarms([{}] * 50) == []


def test_resume_is_exact():
    rows = run(3, -np.maximum(T - 60, 0) / 20, np.clip(T - 30, 0, 60) / 10)
    for i, row in enumerate(rows):
        row["repetition"] = 0.5 * (i // 50 % 2)
    whole, told = Watch(), []
    for step, row in enumerate(rows):
        told += whole.seen(step, row)
    assert {a.monitor for a in told} >= {"divergence", "repetition"}
    resumed, again = Watch(), []
    for step, row in enumerate(rows):
        # Taken up anew at each step, through a file.
        other = Watch()
        other.load(json.loads(json.dumps(resumed.state())))
        resumed = other
        again += resumed.seen(step, row)
    assert again == told
    assert resumed.state() == whole.state()


def test_what_is_remembered_does_not_grow():
    watch = Watch(MonitorSettings(baseline=3, window=3))
    rng = np.random.default_rng(0)
    sizes = []
    for step in range(400):
        watch.seen(step, {**FIRST, "accuracy": round(rng.uniform(), 2)})
        sizes.append(sum(len(v) for v in watch.state().values() if isinstance(v, list)))
    assert max(sizes[200:]) == max(sizes[100:200]) < 40


def test_steps_rise():
    watch = Watch()
    watch.seen(4, {})
    with pytest.raises(ValueError, match="step 4 comes after step 4"):
        watch.seen(4, {})


def test_a_state_of_other_settings_is_refused():
    state = Watch(MonitorSettings(z=4.0)).state()
    with pytest.raises(RunFolderError, match=r"'z': 4\.0"):
        Watch().load(state)
    with pytest.raises(RunFolderError, match="no state of monitors"):
        Watch().load({"step": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"baseline": 2},
        {"window": 0},
        {"z": 0},
        {"z": math.nan},
        {"promise": -0.1},
        {"drift": 1.0},
        {"auc": 1.0},
        {"repetition": 0.0},
        {"entropy": 1.5},
        {"kl": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidSetting, match=next(iter(wrong))):
        MonitorSettings(**wrong)


def test_an_unknown_monitor_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'repetition'"):
        MonitorSettings(off=("repetitions",))
