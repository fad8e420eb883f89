"""What a process of a test under torchrun does: learns, and the first one notes gradients."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from test_loop import PROBLEMS, Counts, likes_short, plan

from prmkit.errors import PrmkitError
from prmkit.policies.sampling import Outcome
from prmkit.rl.learner import Learner
from prmkit.rl.loop import train_policy
from prmkit.rl.voice_settings import VoiceSettings


def main(told: dict) -> None:
    """Learn as told; the gradients of each step go to a file, by the first process."""
    first = os.environ.get("RANK", "0") == "0"
    gradients: list[dict[str, torch.Tensor]] = []
    step = Learner.step

    def noting(learner):
        clip = torch.nn.utils.clip_grad_norm_

        def clipped(parameters, norm):
            named = learner.model.named_parameters()
            gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
            return clip(parameters, norm)

        torch.nn.utils.clip_grad_norm_ = clipped
        try:
            return step(learner)
        finally:
            torch.nn.utils.clip_grad_norm_ = clip

    def judge(problem, text):
        if told.get("fails") == problem.id:
            raise PrmkitError("this verifier is out of order")
        return likes_short(problem, text) if told.get("scored") else Outcome(None, "e" in text[:9])

    def stop(row):
        if row["step"] == told.get("stop"):
            os._exit(7)

    Learner.step = noting
    try:
        train_policy(
            PROBLEMS,
            replace(
                plan(told["out"], **told["changes"]), voice=VoiceSettings(**told.get("voice", {}))
            ),
            judge,
            scorer=Counts() if told.get("scored") else None,
            held_out=PROBLEMS[: told.get("held_out", 0)],
            on_row=stop,
        )
    finally:
        Learner.step = step
    if first:
        torch.save(gradients, Path(told["out"]) / "gradients.pt")


if __name__ == "__main__":
    # Warnings are errors here as in the other tests; but torch's own start warns of itself.
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"(torch|accelerate)\b.*")
    main(json.loads(sys.argv[1]))
