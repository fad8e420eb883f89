"""Monitors of a policy under training, on runs whose truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from prmkit.errors import InvalidSetting, RunFolderError, UnknownName
from prmkit.rl.monitors import (
    MonitorSettings,
    Watch,
    _beyond_noise,
    _Block,
    _block,
    _promised,
)

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


def test_a_rise_that_begins_later_is_seen_against_what_was_before_it():
    # Against the first rows the score has not risen, and in a window it rises by .01.
    score = [0.5] * 5 + [0.3] * 100 + [0.3 + i / 500 for i in range(100)]
    rows = [{"samples": 400, "accuracy": 0.5, "prm": prm, "prm_slope": 1.0} for prm in score]
    told = alarms(rows, baseline=5, window=5)
    assert [alarm.monitor for alarm in told] == ["divergence"]
    # As much as in the test above, at .002 a row.
    rise = 2 * 3 * math.sqrt(0.25 / 400 * 2 / 5)
    assert told[0].step == pytest.approx(105 + 500 * rise + 2, abs=3)


# The formulas, by hand.


def test_a_block_by_hand():
    # Neighbours differ by .2: 3 · .04 / (2 · 3) = .02. The share .6 of 6 samples: .24 / 6 = .04.
    rows = [
        [0.5, 0.1, 1.0, 6.0], [0.7, 0.5, None, 6.0], [0.5, 0.1, 2.0, 6.0], [0.7, 0.5, 9.0, 6.0],
    ]  # fmt: skip
    found = _block(rows)
    # Of slopes the median, whose variance is π/2 that of a mean: (1 + 49) / (2 · 2) of one.
    expected = (4, 0.6, 0.04, 0.3, 0.08, 2.0, math.pi / 2 * 12.5 / 3)
    assert found == pytest.approx(expected)
    many = [[*row[:3], 24.0] for row in rows]
    assert _block(many).accuracy_variance == pytest.approx(0.02)
    assert _block([[0.5, 0.5, None, 0.0]] * 2) == pytest.approx((2, 0.5, 0, 0.5, 0, 0, 0))


def test_a_promise_by_hand():
    before = _Block(2, 0.5, 0.02, 0.5, 0.03, 2.0, 0.25)
    now = _Block(4, 0.51, 0.05, 0.9, 0.06, 7.0, 9.0)
    settings = MonitorSettings(z=1.0, promise=0.5)
    # Pooled over 2 and 4 rows, times 1/2 + 1/4: accuracy (.04 + .2)/6 · 3/4 = .03, score .0375.
    # Half of 2 · .4 was to be gained, and .01 was; the slope's part of the noise is (.2)² · .25.
    found = _promised(before, now, settings)
    assert found.severity == pytest.approx(0.39 / math.sqrt(0.03 + 0.0375 + 0.01))
    assert (found.value, found.baseline, found.reference) == (0.51, 0.5, before)
    assert "+0.800 of accuracy" in found.message
    # A rise that may be noise is none.
    little = now._replace(prm=0.55, accuracy=0.1)
    assert _promised(before, little, settings).severity == pytest.approx(0.05 / math.sqrt(0.0375))
    # Where the score goes against accuracy, it promises nothing; less of it is no gain.
    against, less = before._replace(slope=-2.0), now._replace(accuracy=0.4)
    assert _promised(against, less, settings).severity == pytest.approx(
        0.1 / math.sqrt(0.03 + 0.01)
    )


def test_a_drift_in_units_of_noise_by_hand():
    # Of one value 12 / (2 · 3) = 2, and 16 / 2 = 8; pooled (4 · 2 + 2 · 8) / 6 = 4.
    first, last = [0.0, 2.0, 0.0, 2.0], [5.0, 9.0]
    expected = 6 / (4 / 3 * 3 * math.sqrt(4 * (1 / 4 + 1 / 2)))
    assert _beyond_noise(first, last, 3.0) == pytest.approx(expected)
    assert _beyond_noise([2.0] * 4, [2.0] * 2, 3.0) == 0


# A figure before, what it may come to by the settings below, and what is too much.
SET = {
    "auc": 0.25, "last_lowest": 0.35, "drift": 3.0, "repetition": 0.15, "truncated": 0.25,
    "unscored": 0.4, "entropy": 0.3, "kl": 0.8,
}  # fmt: skip
LIMITS = [
    # A quarter of the lead of .4.
    ("prm_auc", 0.9, 0.81, 0.79),
    ("last_lowest", 0.3, 0.64, 0.66),
    ("steps", 6.0, 17.9, 18.1),
    ("steps", 6.0, 2.01, 1.99),
    ("length", 120.0, 359.0, 361.0),
    ("length", 120.0, 41.0, 39.0),
    ("repetition", 0.05, 0.19, 0.21),
    ("truncated", 0.05, 0.29, 0.31),
    ("unscored", 0.05, 0.44, 0.46),
    # 30 % of it is to be kept.
    ("entropy", 0.6, 0.181, 0.179),
    ("kl", 0.0, 0.79, 0.81),
]


@pytest.mark.parametrize(("monitor", "before", "little", "much"), LIMITS)
def test_each_limit_is_where_it_is_set_and_above_noise(monitor, before, little, much):
    def told(after, noise=0.0):
        values = [before] * 10 + [after] * 10
        rows = [{monitor: x + noise * (-1) ** i} for i, x in enumerate(values)]
        return [a.monitor for a in alarms(rows, baseline=10, window=10, **SET)]

    assert told(little) == []
    assert told(much) == [monitor]
    # Neighbours that differ by as much: a mean of 10 is off by .45 of that, and 4 times is noise.
    if monitor != "kl":
        assert told(much, (much - before) / 2) == []


def test_now_is_compared_with_rows_that_are_no_part_of_it():
    score = [0.9] * 5 + [0.3] * 5 + [0.7] * 10
    rows = [{"samples": 10**6, "accuracy": 0.5, "prm": prm, "prm_slope": 1.0} for prm in score]
    # The last five rows against the five before them.
    assert [alarm.step for alarm in alarms(rows, baseline=5, window=5)] == [14]


def test_an_alarm_remembers_what_it_compared_with():
    # The rise to .7 is farther back than is looked; as long as no accuracy comes of it, it is on.
    score = [0.9] * 5 + [0.3] * 30 + [0.7] * 120 + [0.8] * 30
    rows = [{"samples": 10**6, "accuracy": 0.5, "prm": prm, "prm_slope": 1.0} for prm in score]
    assert len(alarms(rows, baseline=5, window=5)) == 1
    for row in rows[60:]:
        row["accuracy"] = 0.9
    assert len(alarms(rows, baseline=5, window=5)) == 2


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
    # Calm is well below the limit of .1, and not just below it.
    for level, n in ((0.065, 2), (0.075, 1)):
        assert len(alarms([*rows, *[{"repetition": level}] * 60, *[high] * 60])) == n
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
