"""Live curves: what a tracker is told."""

from __future__ import annotations

import pytest

from prmkit.rl.curves import curves
from prmkit.training.settings import WatchSettings


class Recorder:
    """In the place of accelerate's."""

    told: list[object]

    def __init__(self, **settings):
        Recorder.told = [settings]

    def init_trackers(self, name, config):
        Recorder.told.append((name, config))

    def log(self, numbers, step):
        Recorder.told.append((step, numbers))

    def end_training(self):
        Recorder.told.append("end")


def test_a_tracker_is_told_the_numbers_of_each_row_and_that_it_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator", Recorder)
    monkeypatch.setattr(WatchSettings, "curves", lambda self: ("trackio",))
    rows = [
        {"step": 0, "eval_accuracy": 0.25},
        {"step": 1, "accuracy": 0.5, "samples": 8, "alarms": [{"step": 1, "monitor": "kl"}]},
    ]

    def interrupted():
        with curves(WatchSettings(), tmp_path / "run", {"steps": 3, "policy": None}) as draw:
            for row in rows:
                draw(row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Recorder.told == [
        {"log_with": ["trackio"], "project_dir": str(tmp_path / "run"), "cpu": True},
        ("run", {"steps": "3", "policy": "None"}),
        (0, {"eval_accuracy": 0.25}),
        (1, {"accuracy": 0.5, "samples": 8.0, "alarms": 1.0}),
        "end",
    ]


def test_without_a_tracker_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator", None)
    with curves(WatchSettings(report_to="none"), tmp_path, {}) as draw:
        draw({"step": 1})
