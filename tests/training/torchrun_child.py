"""What a process of a test under torchrun does: trains, and the first one notes what was learnt."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import transformers
from test_training import coloured_records

from prmkit.cli.train import judged
from prmkit.training.adapters import AdapterSettings
from prmkit.training.batches import BatchSettings
from prmkit.training.settings import MachineSettings, WatchSettings
from prmkit.training.trainer import HeldOut, TrainSettings, train


def main(told: dict) -> None:
    """Train as told, and note losses, lengths of all gradients, and figures."""
    norms: list[float] = []
    clip = transformers.Trainer._clip_grad_norm

    def noting(self, model):
        norm = clip(self, model)
        norms.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        return norm

    def stop(done, total, logs):
        if done == told.get("stop"):
            os._exit(7)

    held_out = None
    if "watch" in told:
        held_out = HeldOut(coloured_records(10, 9), judged)
    transformers.Trainer._clip_grad_norm = noting
    try:
        result = train(
            coloured_records(told["n"], 4),
            TrainSettings(**told["settings"] | {"out": Path(told["settings"]["out"])}),
            batches=BatchSettings(**told["batches"]),
            machine=MachineSettings(**told.get("machine", {})),
            adapters=AdapterSettings(**told.get("adapters", {})),
            watch=WatchSettings(**told.get("watch", {})),
            held_out=held_out,
            on_progress=stop,
        )
    finally:
        transformers.Trainer._clip_grad_norm = clip
    if os.environ.get("RANK", "0") == "0":
        notes = {"losses": result.losses, "norms": norms, "figures": result.figures}
        Path(told["notes"]).write_text(json.dumps(notes))


if __name__ == "__main__":
    # Warnings are errors here as in the other tests; but torch's own start warns of itself.
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"(torch|accelerate)\b.*")
    main(json.loads(sys.argv[1]))
