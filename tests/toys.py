"""Easy things to learn, for tests of training."""

from __future__ import annotations

import random

from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.training.trainer import TrainSettings

THINGS = {1: "apples", 0: "pens", -1: "cups"}


def toy_records(n, *, seed=0, kind="hard", steps=2, outcome=False):
    """Steps with "apples" are right and steps with "pens" wrong (of ratings: neutral).

    Solutions of eight problems, so that many share a beginning and go on differently. With
    `outcome` they have no labels; a solution is right if its last step is.
    """
    rng = random.Random(seed)
    marks = [1, 0, -1] if kind == "human" else [1, 0]
    records = []
    for i in range(n):
        values = [rng.choice(marks) for _ in range(rng.randint(1, steps))]
        told = tuple(Step(text=f"Mia has 3 {THINGS[v]}.\n") for v in values)
        trajectory = Trajectory(
            problem=Problem(id=str(i % 8), prompt=f"Mia {i % 8}?"),
            steps=told,
            correct=bool(values[-1]) if outcome else None,
        )
        labels = None if outcome else StepLabels(values=tuple(values), kind=kind)
        records.append(Record(trajectory=trajectory, labels=labels))
    return records


def toy_settings(base, out, **changes):
    """Settings with which a tiny model learns them in seconds."""
    return TrainSettings(
        **{
            "base": str(base), "out": out, "epochs": 6, "learning_rate": 3e-3,
            "save_every": 1000, **changes,
        }
    )  # fmt: skip
