"""Workers that tests give to engines; a module, so that other processes can import it."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prmkit.cli.workers import LabelWorker, StartLabelling
from prmkit.errors import FormatError
from prmkit.labelling import OmegaSettings
from prmkit.labelling.methods import MethodSettings
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Record, Step, Trajectory


def records(n: int, of_a_problem: int = 3) -> list[Record]:
    """Solutions of arithmetic, some with a wrong step; every few solve the same problem."""
    made = []
    for i in range(n):
        k = i // of_a_problem
        problem = Problem(id=f"p{k}", prompt=f"{k} + 2 + 3 = ?", answer=str(k + 5), meta={"é": [k]})
        wrong = i % of_a_problem
        steps = (f"{k} + 2 = {k + 2 + (wrong == 1)}\n", f"that is {k + 5 + (wrong > 0)}\n")
        made.append(
            Record(
                trajectory=Trajectory(problem=problem, steps=tuple(Step(text=s) for s in steps)),
                meta={"row": i},
            )
        )
    return made


def _script(prefix: Trajectory, chance: Any) -> str:
    """Goes on from what the last step says; slips in one of four cases."""
    numbers = re.findall(r"\d+", prefix.text) or re.findall(r"\d+", prefix.problem.text)
    last = int(numbers[-1])
    total = last if "that is" in prefix.text else last + 3
    return f"The answer is {total + (chance.random() < 0.25)}"


@dataclass(frozen=True)
class StartMarking:
    """Starts a worker that leaves a mark for every batch that it computes."""

    marks: Path
    seconds: float = 0.0

    def __call__(self) -> Marking:
        return Marking(self)


class Marking:
    """Labels by a scripted policy; a mark says which batch, and where it was computed."""

    def __init__(self, how: StartMarking):
        self._how = how
        self._worker = LabelWorker(
            ScriptedPolicy(_script),
            {},
            StartLabelling(
                speaker=PolicySettings(),
                omega=OmegaSettings(),
                method=MethodSettings(kind="soft", rollouts=4),
                drawing=SamplingSettings(),
                seed=3,
                in_flight=4,
                threads=1,
            ),
        )

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        done = self._worker(batch)
        # Fewer come out than go in, and more: a batch is what it is.
        more = [done[0].replace(meta={"again": True})] if len(batch) % 2 else []
        time.sleep(self._how.seconds)
        mark = f"{batch[0].meta['row']}-{node()}-{uuid.uuid4().hex[:6]}"
        (self._how.marks / mark).touch()
        return [*done, *more]


def node() -> str:
    """The node of Ray that this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"


@dataclass(frozen=True)
class StartTelling:
    """Starts a worker that tells where it is: the node, and the GPUs that it may use."""

    def __call__(self) -> Callable[[Sequence[Record]], list[Record]]:
        def worker(batch: Sequence[Record]) -> list[Record]:
            time.sleep(0.2)
            where = [node(), os.environ.get("CUDA_VISIBLE_DEVICES", "not set")]
            return [record.replace(meta={"where": where}) for record in batch]

        return worker


@dataclass(frozen=True)
class StartFailing:
    """Starts a worker that does not do its work on one record: how, and on which."""

    how: str
    row: int

    def __call__(self) -> Failing:
        if self.how == "start":
            raise FormatError("no such model", "model", 3)
        return Failing(self)


class Failing:
    def __init__(self, how: StartFailing):
        self._how = how

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        if any(record.meta["row"] == self._how.row for record in batch):
            if self._how.how == "refuses":
                raise FormatError("this row is no good", "data.jsonl", self._how.row)
            if self._how.how == "bug":
                raise ZeroDivisionError("a bug")
            if self._how.how == "dies":
                os._exit(1)
        return list(batch)
