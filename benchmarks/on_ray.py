"""The engine ray against this process: what it costs, and whether memory stays bounded.

    python benchmarks/on_ray.py [--rows N] [--solutions N] [--out FILE]

`waiting` has workers that only wait, so that the cost of the engine itself shows whatever else the
machine does; `labelling` labels solutions of the embedded policy; `streaming` gives a large Parquet
file to a worker that does next to nothing, each engine in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from prmkit import __version__
from prmkit.cli.workers import StartLabelling, anywhere
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import SAMPLING, judge, split_lines
from prmkit.embedded.world import problems
from prmkit.engines import EngineSettings, MakeWorker, Tables
from prmkit.files import atomic_text, write_json
from prmkit.formats import read_records, write_records
from prmkit.labelling import OmegaSettings
from prmkit.labelling.methods import MethodSettings
from prmkit.on_ray import run_on_ray
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Record, Step, Trajectory

RESULTS = Path(__file__).parent / "results" / "on_ray.json"


@dataclass(frozen=True)
class Start:
    """Starts a worker that waits, and gives records back."""

    seconds: float = 0.0

    def __call__(self) -> Callable[[Sequence[Record]], list[Record]]:
        """The worker."""

        def worker(batch: Sequence[Record]) -> list[Record]:
            time.sleep(self.seconds)
            return list(batch)

        return worker


def solutions(n: int) -> list[Record]:
    """Solutions of the embedded policy to training problems."""
    drawn = sample(
        HFPolicy(WEIGHTS / "policy", device="cpu"),
        list(problems("train", -(-n // 4))),
        4,
        split_lines,
        judge,
        settings=SAMPLING,
    )
    return [Record(trajectory=t) for group in drawn for t in group][:n]


def in_process(given: Sequence[Record], make: MakeWorker, size: int) -> list[str]:
    """What this process makes of records, as JSON."""
    worker = make()
    batches = (given[at : at + size] for at in range(0, len(given), size))
    return [record.model_dump_json() for batch in batches for record in worker(batch)]


def compared(given: Sequence[Record], make: MakeWorker, size: int, folder: Path) -> dict[str, Any]:
    """Seconds of this process, and of one and two actors of a Ray that runs already."""
    begin = time.perf_counter()
    expected = in_process(given, make, size)
    told: dict[str, Any] = {"batches": -(-len(given) // size)}
    told["here_seconds"] = round(time.perf_counter() - begin, 2)
    for actors in (1, 2):
        settings = EngineSettings(engine="ray", actors=actors, cpus_per_actor=0.5)
        first: list[float] = []

        def on_progress(*_: int, first: list[float] = first) -> None:
            first.append(time.perf_counter())

        begin = time.perf_counter()
        done = run_on_ray(
            given,
            make,
            folder / f"{actors}",
            settings,
            batch_size=size,
            about={},
            on_progress=on_progress,
        )
        got = [record.model_dump_json() for record in done]
        told[f"{actors}_actors"] = {
            "seconds": round(time.perf_counter() - begin, 2),
            "seconds_to_first_batch": round(first[0] - begin, 2),
            "identical": got == expected,
        }
    return told


def many(n: int) -> Iterator[Record]:
    """Records of about a thousand characters."""
    for i in range(n):
        problem = Problem(id=f"p{i}", prompt=f"question {i} " + "word " * 60, answer=str(i))
        steps = tuple(Step(text=f"step {k} of {i} " + "text " * 20) for k in range(5))
        yield Record(trajectory=Trajectory(problem=problem, steps=steps, separator="\n"))


def stream(engine: str, source: Path, folder: Path) -> None:
    """Read, work, write; prints seconds and the peak of this process's memory in MiB."""
    begin = time.perf_counter()
    settings = EngineSettings(engine="ray", actors=2, cpus_per_actor=0.5)
    records = read_records(source)
    if engine != "here":
        given = Tables((source,)) if engine == "table" else records
        records = run_on_ray(given, Start(), folder / engine, settings, batch_size=512, about={})
    with atomic_text(folder / f"{engine}.jsonl") as file:
        file.writelines(record.model_dump_json() + "\n" for record in records)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(round(time.perf_counter() - begin, 1), peak)


def streamed(rows: int, folder: Path) -> dict[str, Any]:
    """Time and memory over a file, read in this process, by actors, and through a copy."""
    told: dict[str, Any] = {}
    for n in (rows // 10, rows):
        source = folder / f"{n}.parquet"
        write_records(many(n), source)
        of_n: dict[str, Any] = {"mebibytes": source.stat().st_size >> 20}
        for engine in ("here", "table", "copy"):
            command = [sys.executable, __file__, "--stream", engine, str(source), str(folder)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak = ran.stdout.split()
            of_n[engine] = {"seconds": float(seconds), "driver_peak_mebibytes": int(peak)}
        whole = (folder / "here.jsonl").read_bytes()
        for engine in ("table", "copy"):
            of_n[engine]["identical"] = (folder / f"{engine}.jsonl").read_bytes() == whole
            for left in (folder / engine).glob("*"):
                subprocess.run(["rm", "-rf", str(left)], check=True)
        told[f"{n}_rows"] = of_n
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--solutions", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--stream", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    if given.stream:
        stream(given.stream[0], Path(given.stream[1]), Path(given.stream[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {"streaming": streamed(given.rows, folder)}
        begin = time.perf_counter()
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        results["start_seconds"] = round(time.perf_counter() - begin, 2)
        waiting = list(many(given.solutions))
        results["waiting"] = compared(waiting, Start(0.25), 5, folder / "waiting")
        start = StartLabelling(
            speaker=anywhere(PolicySettings(device="cpu")), method=MethodSettings(rollouts=4),
            omega=OmegaSettings(), drawing=SAMPLING, seed=0, in_flight=16, threads=1,
        )  # fmt: skip
        results["labelling"] = compared(solutions(given.solutions), start, 20, folder / "labelling")
        ray.shutdown()
    results["about"] = {
        "prmkit": __version__,
        "ray": ray.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    write_json(given.out, results)


if __name__ == "__main__":
    main()
