"""``prm train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, bars, figures, out, print_json, say
from prmkit.cli.names import model_folder
from prmkit.formats.files import read_records
from prmkit.formats.labels import LabelPolicy
from prmkit.training.batches import BatchSettings
from prmkit.training.implicit import ImplicitSettings
from prmkit.training.trainer import TrainSettings
from prmkit.training.trainer import train as run


def train(
    data: Path,
    /,
    settings: Annotated[TrainSettings, Parameter(name="*")],
    *,
    batches: Annotated[BatchSettings | None, Parameter(name="*")] = None,
    implicit: Annotated[ImplicitSettings | None, Parameter(name="*")] = None,
    policy: Annotated[LabelPolicy | None, Parameter(name="*")] = None,
    from_: str | None = None,
    json: bool = False,
) -> int:
    """Train a model that scores steps, on labelled ones.

    Interrupted, it goes on from its last checkpoint when it is given again.

    Args:
        data: labelled solutions, in any format that prm convert reads.
        from_: format of the data; by default what its first rows say.
        json: print what was done as JSON.
    """
    policy = policy or LabelPolicy()
    records = [
        r if r.labels is None else r.replace(labels=policy.apply(r.labels))
        for r in read_records(data, from_)
    ]
    settings = replace(settings, base=str(model_folder(settings.base)))
    loss = ""

    def told(done: int, total: int, logs: Mapping[str, float]) -> None:
        nonlocal loss
        loss = f"loss {logs['loss']:.3f}" if "loss" in logs else loss
        progress("train", done, total, loss)

    with bars(quiet=json) as progress:
        result = run(records, settings, batches=batches, implicit=implicit, on_progress=told)
    dropped = result.dropped
    if json:
        print_json(
            {
                "out": str(result.out),
                "examples": result.n_examples,
                "labels": result.n_labels,
                "unlabelled": dropped.unlabelled,
                "too_long": dropped.too_long,
                "cut": dropped.cut,
                "cut_labels": dropped.cut_labels,
                "disagree": dropped.disagree,
                "unreadable": dropped.unreadable,
                "losses": result.losses,
            }
        )
    else:
        rows: list[tuple[str, float]] = [
            ("solutions", result.n_examples),
            ("labelled steps", result.n_labels),
            ("left out: no label", dropped.unlabelled),
            ("left out: too long", dropped.too_long),
            ("without their last steps", dropped.cut),
        ]
        if settings.kind == "generative":
            rows += [
                ("critiques that disagree", dropped.disagree),
                ("critiques without a verdict", dropped.unreadable),
            ]
        if result.losses:
            rows.append(("last loss", result.losses[-1][1]))
        out().print(figures("prm train", rows))
        say(f"model: {result.out}")
    return INCOMPLETE if dropped else DONE
