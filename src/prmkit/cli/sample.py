"""``prm sample``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import KW_ONLY, asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prmkit.cli.console import DONE, Bars, bars, figures, out, print_json, say
from prmkit.cli.names import distinct_problems
from prmkit.cli.sinks import named_like, sink
from prmkit.cli.workers import StartSampling, anywhere, files_of, threads_here
from prmkit.embedded.world import Split, problems
from prmkit.engines import EngineSettings
from prmkit.errors import NothingToMeasure
from prmkit.evaluation.best_of_n import majority_at_n, pass_at_n
from prmkit.files import write_json
from prmkit.formats.files import read_records
from prmkit.ledger import Ledger, claim_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Outcome
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Record, Trajectory
from prmkit.settings import at_least

_TOGETHER = 16


@dataclass(frozen=True)
class SampleSettings:
    """How solutions are sampled.

    Attributes:
        file: problems, in any format that prm convert reads; by default the embedded world's.
        out: the run folder: config.json, records.jsonl (records.parquet of a Parquet file),
            metrics.json.
        world: split of the embedded world, where no file is given: train, test or ood.
        limit: problems at most.
        samples: solutions of each problem.
        split: how text becomes steps (blank_line, line, number, sentence, thought, marker:TEXT).
        from_: format of the file; by default what its first rows say.
        seed: of everything that is drawn.
    """

    file: Path | None = None
    _: KW_ONLY
    out: Path = Path("runs/sample")
    world: Split = "test"
    limit: int = 100
    samples: int = 16
    split: str = "line"
    from_: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, limit=self.limit, samples=self.samples)


def sample(
    settings: Annotated[SampleSettings | None, Parameter(name="*")] = None,
    *,
    speaker: Annotated[PolicySettings | None, Parameter(name="*")] = None,
    drawing: Annotated[SamplingSettings | None, Parameter(name="*")] = None,
    engine: Annotated[EngineSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Sample solutions of problems from a language model, and judge their answers.

    Interrupted, it goes on where it was when it is given again.

    Args:
        json: print the metrics as JSON.
    """
    settings, engine = settings or SampleSettings(), engine or EngineSettings()
    speaker, drawing = speaker or PolicySettings(), drawing or SamplingSettings()
    items = _problems(settings)
    start = StartSampling(
        speaker=anywhere(speaker),
        samples=settings.samples,
        split=settings.split,
        drawing=drawing,
        seed=settings.seed,
        threads=threads_here(),
    )
    described = {k: v for k, v in asdict(settings).items() if k != "out"} | asdict(drawing)
    described |= {"policy": speaker.policy, "tokenizer": speaker.tokenizer}
    claim_folder(settings.out, described)
    groups: list[tuple[Outcome, ...]] = []
    with (
        bars(quiet=json) as progress,
        closing(_drawn(items, start, settings.out, engine, progress)) as drawn,
        sink(named_like(settings.out, "records", settings.file)) as put,
    ):
        for group in drawn:
            groups.append(tuple(Outcome(t.answer, t.correct) for t in group))
            for trajectory in group:
                put(Record(trajectory=trajectory))
    metrics = _metrics(groups, settings.samples)
    write_json(settings.out / "metrics.json", metrics)
    if json:
        print_json({**metrics, "out": str(settings.out)})
    else:
        out().print(figures("prm sample", list(metrics.items())))
        say(f"records: {named_like(settings.out, 'records', settings.file)}")
    return DONE


def _drawn(
    items: list[Problem], start: StartSampling, folder: Path, engine: EngineSettings, progress: Bars
) -> Generator[tuple[Trajectory, ...], None, None]:
    """The solutions of each problem, in order."""
    if engine.engine == "ray":
        yield from _on_ray(items, start, folder, engine, progress)
        return
    done, worker = 0, start()

    def told(more: int) -> None:
        nonlocal done
        done += more
        progress("sample", done, len(items))

    with Ledger(folder / "ledger.sqlite", worker.about) as ledger:
        yield from worker.solve(items, ledger, told)


def _on_ray(
    items: list[Problem], start: StartSampling, folder: Path, engine: EngineSettings, progress: Bars
) -> Generator[tuple[Trajectory, ...], None, None]:
    """The same by actors of Ray."""
    from prmkit.on_ray import run_on_ray

    drawn = run_on_ray(
        (Record(trajectory=Trajectory(problem=problem)) for problem in items),
        start,
        folder / "parts",
        engine,
        batch_size=engine.batch(_TOGETHER),
        about={"sampling": start, "files": files_of(start.speaker)},
        on_progress=lambda done, total: progress("sample", done, total),
    )
    while group := tuple(record.trajectory for record in islice(drawn, start.samples)):
        yield group


def _problems(settings: SampleSettings) -> list[Problem]:
    if settings.file is None:
        return list(problems(settings.world, settings.limit))
    records = read_records(settings.file, settings.from_)
    found = list(islice(distinct_problems(records, settings.file), settings.limit))
    if not found:
        raise NothingToMeasure(f"{settings.file} holds no problem")
    return found


def _metrics(groups: list[tuple[Outcome, ...]], n: int) -> dict[str, Any]:
    """Shares of problems; those with a solution that could not be judged are counted apart."""
    from prmkit.answers import Checker

    judged = [g for g in groups if all(t.correct is not None for t in g)]
    metrics: dict[str, Any] = {"problems": len(groups), "not_judged": len(groups) - len(judged)}
    if not judged:
        return metrics
    with Checker() as checker:
        votes = [
            majority_at_n(checker.group([t.answer for t in g]), [bool(t.correct) for t in g], n)
            for g in judged
        ]
    for k in sorted({1, n}):
        shares = [pass_at_n([bool(t.correct) for t in g], k) for g in judged]
        metrics[f"pass@{k}"] = round(sum(shares) / len(shares), 4)
    metrics[f"majority@{n}"] = round(sum(votes) / len(votes), 4)
    return metrics
