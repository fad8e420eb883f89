"""``prm train --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from prmkit.cli.console import DONE, figures, out, print_json, safe
from prmkit.records import Record
from prmkit.training.rehearsal import Rehearsal, rehearsal
from prmkit.training.trainer import HeldOut, Parts, TrainSettings, processes


def rehearse(
    records: Sequence[Record],
    settings: TrainSettings,
    parts: Parts,
    held_out: HeldOut | None = None,
    learner: Sequence[Record] = (),
    *,
    as_json: bool,
) -> int:
    """Tell what would be trained; the exit code."""
    world, first = processes()
    told = rehearsal(records, settings, parts, held_out, learner, world=world)
    if not first:
        return DONE
    if as_json:
        print_json(told.told())
        return DONE
    out().print(figures("prm train --dry-run", _rows(told, settings, parts, world)))
    for number, example in enumerate(told.examples, 1):
        out().print(Text(f"\nexample {number}: each place that is read has its label", "bold"))
        out().print(Text(safe(example)))
    return DONE


def _rows(
    told: Rehearsal, settings: TrainSettings, parts: Parts, world: int
) -> list[tuple[str, Any]]:
    saved = 1 - told.tokens_computed / max(told.tokens_expanded, 1)
    gib = {name: f"{size / 2**30:.2f} GiB" for name, size in told.memory._asdict().items()}
    return [
        ("solutions", told.solutions),
        *((f"label {name}", n) for name, n in told.labels.items()),
        *((f"tokens, {name}", n) for name, n in told.tokens.items()),
        ("limit of tokens", told.limit or "none"),
        *((name.replace("_", " "), n) for name, n in told.dropped.items()),
        ("optimiser steps", told.steps),
        ("passes of a process", told.passes),
        ("processes", world),
        ("tokens saved by sharing", f"{saved:.1%}"),
        ("parameters", f"{told.parameters:,}"),
        ("of them trained", f"{told.trained:,}"),
        *((f"memory of {name}, about", shown) for name, shown in gib.items()),
        ("memory, about", f"{told.memory.total / 2**30:.2f} GiB"),
        ("output", str(settings.out)),
        ("parallel", parts.machine.parallel),
    ]
