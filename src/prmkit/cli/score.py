"""``prm score``."""

from __future__ import annotations

import json as json_lib
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.cli import console
from prmkit.cli.names import about_model, open_scorer
from prmkit.cli.sinks import sink
from prmkit.cli.workers import ScoreWorker, StartScoring, scoring_depends_on
from prmkit.engines import EngineSettings, Tables, is_table
from prmkit.errors import FormatError, InvalidRecord, InvalidSetting
from prmkit.evaluation.first_error import predicted_first_error
from prmkit.formats.files import Skipped, read_records
from prmkit.ledger import Ledger
from prmkit.records import Problem, Record, Scored, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.settings import ModelSettings
from prmkit.splitting import splitter

_BATCH = 64


@dataclass(frozen=True)
class ScoreSettings:
    """How solutions are scored.

    Attributes:
        file: solutions in any format that prm convert reads; - reads standard input: such rows,
            or plain text whose first paragraph is the problem and whose rest are the steps.
        problem: a problem, instead of a file; with --step.
        step: one step of its solution; give it once per step.
        aggregate: step scores to one number for the solution.
        threshold: the first step with a lower score is suspected to be wrong.
        out: write the records with their scores to this file (.jsonl, .jsonl.gz, .parquet).
        report: write a report with the solutions to this HTML file.
        from_: format of the file; by default what its first rows say.
        view: of PRM800K: path or completions.
        split: how text becomes steps (blank_line, line, number, sentence, thought, marker:TEXT).
        skip_bad: leave out rows that cannot be read, and list them.
    """

    file: Path | None = None
    _: KW_ONLY
    problem: str | None = None
    step: Annotated[tuple[str, ...], Parameter(name="--step")] = ()
    aggregate: Aggregation = "min"
    threshold: float = 0.5
    out: Annotated[Path | None, Parameter(alias="-o")] = None
    report: Path | None = None
    from_: str | None = None
    view: str | None = None
    split: str | None = None
    skip_bad: bool = False


def score(
    settings: Annotated[ScoreSettings | None, Parameter(name="*")] = None,
    *,
    how: Annotated[ModelSettings | None, Parameter(name="*")] = None,
    engine: Annotated[EngineSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Score the steps of solutions, and mark the first suspected error.

    Prints each solution with its steps coloured by score; with --out it writes records instead,
    and an interrupted run goes on where it was when it is given again.

    Args:
        json: print one JSON object per solution.
    """
    settings, how = settings or ScoreSettings(), how or ModelSettings()
    engine = engine or EngineSettings()
    _checked_out(settings.out)
    if engine.engine == "ray" and settings.out is None:
        raise InvalidSetting("--engine ray needs --out, beside which finished batches are kept")
    skipped: list[Skipped] = []
    records = _records(settings, skipped)
    if how.model == "embedded/prm" and not json:
        console.say("model: embedded/prm, which knows the stories of the embedded world alone")
    n_scored = n_unscored = 0
    kept: list[Record] = []
    scored = (
        _on_ray(records, settings, how, engine)
        if engine.engine == "ray"
        else _here(records, settings, how)
    )
    with closing(scored), sink(settings.out) as put:
        for record in scored:
            last = record.scores[-1]
            n_unscored += isinstance(last, Unscored)
            n_scored += isinstance(last, StepScores)
            _show(record, last, settings, json)
            put(record)
            if settings.report:
                kept.append(record)
    if settings.out is not None:
        _forget(settings)
    if settings.report:
        _report(kept, settings, how)
    if not json:
        console.tell_skipped(skipped, settings.file)
        wrote = f", written to {settings.out}" if settings.out else ""
        console.say(f"scored: {n_scored}, not scored: {n_unscored}{wrote}")
    return console.INCOMPLETE if n_unscored or skipped else console.DONE


def _records(settings: ScoreSettings, skipped: list[Skipped]) -> Iterator[Record]:
    """The solutions to score, from wherever they come."""
    given = [settings.file is not None, settings.problem is not None]
    if sum(given) != 1:
        raise InvalidRecord(
            "give either a file of solutions (or - for standard input), or --problem with --step"
        )
    on_bad = skipped.append if settings.skip_bad else None
    if settings.problem is not None:
        if not settings.step:
            raise InvalidRecord("--problem needs the steps of its solution: --step TEXT, repeated")
        yield _typed(settings.problem, settings.step)
    elif str(settings.file) == console.STANDARD_INPUT:
        yield from _standard_input(settings, on_bad)
    else:
        assert settings.file is not None
        yield from read_records(
            settings.file, settings.from_, view=settings.view, split=settings.split, on_bad=on_bad
        )


def _typed(problem: str, steps: Iterable[str]) -> Record:
    trajectory = Trajectory(
        problem=Problem(id="problem", prompt=problem),
        steps=tuple(Step(text=step) for step in steps),
        separator="\n",
    )
    return Record(trajectory=trajectory)


def _standard_input(settings: ScoreSettings, on_bad: Any) -> Iterator[Record]:
    """Rows of JSON, or plain text: a paragraph with the problem, then the steps."""
    content = sys.stdin.read()
    if content.lstrip()[:1] in ("{", "["):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            yield from read_records(
                file.name, settings.from_, view=settings.view, split=settings.split, on_bad=on_bad
            )
        return
    problem, _, solution = content.strip().partition("\n\n")
    if not solution.strip():
        raise FormatError(
            "expected rows of JSON, or text: the problem, a blank line, then one step per line",
            "standard input",
        )
    yield _typed(problem, (s.strip("\n") for s in splitter(settings.split or "line")(solution)))


def _checked_out(path: Path | None) -> None:
    if path is None:
        return
    plain = path.name.removesuffix(".gz")
    if not (plain.endswith(".jsonl") or path.suffix == ".parquet"):
        raise FormatError("records are written as .jsonl, .jsonl.gz or .parquet", path)


def _here(
    records: Iterator[Record], settings: ScoreSettings, how: ModelSettings
) -> Generator[Record, None, None]:
    """The records with their scores, scored in this process.

    With --out, what is scored is noted in a ledger beside it, which goes when all are.
    """
    scorer = open_scorer(how)
    if settings.out is None:
        yield from _scored(records, ScoreWorker(scorer, _BATCH), None)
        return
    place = settings.out.with_name(f".{settings.out.name}.ledger")
    with Ledger(place, about_model(how, scorer)) as ledger:
        yield from _scored(records, ScoreWorker(scorer, _BATCH), ledger)


def _forget(settings: ScoreSettings) -> None:
    """Remove what an interrupted run would need."""
    assert settings.out is not None
    for suffix in ("", "-wal", "-shm"):
        place = settings.out.with_name(f".{settings.out.name}.ledger{suffix}")
        place.unlink(missing_ok=True)
    shutil.rmtree(_parts(settings.out), ignore_errors=True)


def _parts(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _on_ray(
    records: Iterator[Record], settings: ScoreSettings, how: ModelSettings, engine: EngineSettings
) -> Generator[Record, None, None]:
    """The same by actors of Ray."""
    from prmkit.on_ray import run_on_ray

    assert settings.out is not None
    with console.bars() as progress:
        yield from run_on_ray(
            _tables(settings) or records,
            StartScoring.of(how, _BATCH),
            _parts(settings.out),
            engine,
            batch_size=engine.batch(_BATCH, whole=True),
            about=scoring_depends_on(how),
            on_progress=lambda done, total: progress("score", done, total),
        )


def _tables(settings: ScoreSettings) -> Tables | None:
    """The file, if actors can read it where it is."""
    file = settings.file
    plain = settings.view is None and settings.split is None and not settings.skip_bad
    if file is None or not plain or settings.from_ not in (None, "prmkit"):
        return None
    return Tables((file,)) if file.is_file() and is_table(file) else None


def _scored(
    records: Iterator[Record], worker: ScoreWorker, ledger: Ledger | None
) -> Iterator[Record]:
    """Records with the worker's scores put after any that they have, in order."""
    done = 0
    with console.bars(quiet=ledger is None) as progress:
        while batch := list(islice(records, _BATCH)):
            # By place and content: a batch is known as a whole or not at all, so that what is
            # scored together is the same whenever a run was interrupted.
            keys = [f"{done + i}:{r.trajectory.key}" for i, r in enumerate(batch)]
            known = [None if ledger is None else ledger.get(key) for key in keys]
            if all(stored is not None for stored in known):
                scored = [
                    record.replace(scores=(*record.scores, _parse(stored)))
                    for record, stored in zip(batch, known, strict=True)
                    if stored is not None
                ]
            else:
                scored = worker(batch)
                if ledger is not None:
                    fresh = (record.scores[-1].model_dump_json() for record in scored)
                    ledger.put(dict(zip(keys, fresh, strict=True)))
            yield from scored
            done += len(batch)
            progress("score", done, None)


def _parse(stored: str) -> Scored:
    kind: type[StepScores] | type[Unscored] = (
        Unscored if json_lib.loads(stored)["type"] == "unscored" else StepScores
    )
    return kind.model_validate_json(stored)


def _show(record: Record, scored: Scored, settings: ScoreSettings, as_json: bool) -> None:
    found, overall = None, None
    if isinstance(scored, StepScores) and scored.values:
        found = predicted_first_error(scored.values, settings.threshold)
        overall = aggregate_scores(scored, settings.aggregate)
    if as_json:
        console.print_json(
            {
                "id": record.trajectory.problem.id,
                "scores": list(scored.values) if isinstance(scored, StepScores) else None,
                settings.aggregate: overall,
                "first_suspected": found,
                "unscored": scored.reason if isinstance(scored, Unscored) else None,
                "model": scored.model,
            }
        )
    elif settings.out is None:
        console.out().print(console.scored_solution(record, scored, found, overall))


def _report(records: list[Record], settings: ScoreSettings, how: ModelSettings) -> None:
    from prmkit.report import Report, write_report

    assert settings.report is not None
    pools: dict[str, list[Record]] = {}
    for record in records:
        pools.setdefault(record.trajectory.problem.id, []).append(record)
    write_report(
        Report(
            title=f"Steps scored by {how.model}",
            pools=list(pools.values()),
            which=-1,
            threshold=settings.threshold,
            aggregation=settings.aggregate,
            settings={
                "file": settings.file,
                "model": how.model,
                "aggregate": settings.aggregate,
                "threshold": settings.threshold,
            },
        ),
        settings.report,
    )
    console.err().print(Text(f"report: {settings.report}"))
