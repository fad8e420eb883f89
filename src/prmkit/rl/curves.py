"""Live curves of a run, by what the user has: trackio, Weights & Biases or TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from prmkit.training.settings import WatchSettings


class Log(Protocol):
    """Takes a row."""

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Draw the numbers of a row of metrics.jsonl."""


@contextmanager
def curves(watch: WatchSettings, out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Draw rows as they come.

    Args:
        watch: where to.
        out: the run folder, whose name is the project's.
        settings: of the run, to be seen beside the curves.

    Raises:
        InvalidSetting: if what was asked for is not installed.
    """
    names = watch.curves()
    if not names:
        yield lambda row: None
        return
    from accelerate import Accelerator

    accelerator = Accelerator(log_with=list(names), project_dir=str(out), cpu=True)
    flat = {name: str(value) for name, value in settings.items()}
    accelerator.init_trackers(out.name, config=flat)
    try:
        yield lambda row: accelerator.log(_numbers(row), step=int(row["step"]))
    finally:
        accelerator.end_training()


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    found = {k: float(v) for k, v in row.items() if isinstance(v, int | float) and k != "step"}
    alarms = row.get("alarms")
    return found if alarms is None else {**found, "alarms": float(len(alarms))}
