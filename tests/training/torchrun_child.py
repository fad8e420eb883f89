"""What a process of a test under torchrun does: trains, and the first one notes what was learnt."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch

# Warnings are errors here as in the other tests; but torch's own start warns of itself.
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module=r"(torch|accelerate)\b.*")

from test_training import coloured_records  # noqa: E402

from prmkit.training.adapters import AdapterSettings  # noqa: E402
from prmkit.training.batches import BatchSettings  # noqa: E402
from prmkit.training.settings import MachineSettings  # noqa: E402
from prmkit.training.trainer import TrainSettings, train  # noqa: E402


def watched(seen: list[float]):
    """Note the length of all gradients of each optimiser step."""
    import transformers

    clip = transformers.Trainer._clip_grad_norm

    def noting(self, model):
        norm = clip(self, model)
        seen.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        return norm

    transformers.Trainer._clip_grad_norm = noting


def main(told: dict) -> None:
    torch.set_num_threads(1)
    norms: list[float] = []
    watched(norms)

    def stop(done, total, logs):
        if done == told.get("stop"):
            raise KeyboardInterrupt

    try:
        result = train(
            coloured_records(told["n"], 4),
            TrainSettings(**told["settings"] | {"out": Path(told["settings"]["out"])}),
            batches=BatchSettings(**told["batches"]),
            machine=MachineSettings(**told.get("machine", {})),
            adapters=AdapterSettings(**told.get("adapters", {})),
            on_progress=stop,
        )
    except KeyboardInterrupt:
        os._exit(7)
    if os.environ.get("RANK", "0") == "0":
        with Path(told["notes"]).open("w") as file:
            json.dump({"losses": result.losses, "norms": norms}, file)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
