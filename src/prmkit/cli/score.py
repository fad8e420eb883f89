"""``prm score``."""

from __future__ import annotations

import json as json_lib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.cli import console
from prmkit.cli.names import about_model, open_scorer
from prmkit.errors import FormatError, InvalidRecord
from prmkit.evaluation.first_error import predicted_first_error
from prmkit.files import atomic_text
from prmkit.formats.files import Skipped, read_records
from prmkit.ledger import Ledger
from prmkit.records import Problem, Record, Scored, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.base import Scorer
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
        out: write the records with their scores to this file (.jsonl, .jsonl.gz).
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
    json: bool = False,
) -> int:
    """Score the steps of solutions, and mark the first suspected error.

    Prints each solution with its steps coloured by score; with --out it writes records instead,
    and an interrupted run goes on where it was when it is given again.

    Args:
        json: print one JSON object per solution.
    """
    settings, how = settings or ScoreSettings(), how or ModelSettings()
    skipped: list[Skipped] = []
    records = _records(settings, skipped)
    scorer = open_scorer(how)
    if how.model == "embedded/prm" and not json:
        console.say("model: embedded/prm, which knows the stories of the embedded world alone")
    n_scored = n_unscored = 0
    kept: list[Record] = []
    with _destination(settings, how, scorer) as (ledger, put):
        for record in _scored(records, scorer, ledger, settings):
            last = record.scores[-1]
            n_unscored += isinstance(last, Unscored)
            n_scored += isinstance(last, StepScores)
            _show(record, last, settings, json)
            put(record)
            if settings.report:
                kept.append(record)
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


class _Put:
    """Writes records as lines, or nothing where no file is wanted."""

    def __init__(self, file: Any):
        self._file = file

    def __call__(self, record: Record) -> None:
        if self._file is not None:
            self._file.write(record.model_dump_json() + "\n")


class _destination:
    """The output file and the ledger beside it; the ledger goes when the file is whole."""

    def __init__(self, settings: ScoreSettings, how: ModelSettings, scorer: Scorer):
        self._out = settings.out
        self._ledger: Ledger | None = None
        self._file: Any = None
        if self._out is not None and not self._out.name.removesuffix(".gz").endswith(".jsonl"):
            raise FormatError("records are written as .jsonl or .jsonl.gz", self._out)
        self._about = about_model(how, scorer) if self._out is not None else {}

    def __enter__(self) -> tuple[Ledger | None, _Put]:
        if self._out is None:
            return None, _Put(None)
        self._place = self._out.with_name(f".{self._out.name}.ledger")
        self._ledger = Ledger(self._place, self._about)
        self._file = atomic_text(self._out)
        return self._ledger, _Put(self._file.__enter__())

    def __exit__(self, *error: Any) -> None:
        if self._ledger is None:
            return
        self._ledger.close()
        self._file.__exit__(*error)
        if error[0] is None:
            for suffix in ("", "-wal", "-shm"):
                self._place.with_name(self._place.name + suffix).unlink(missing_ok=True)


def _scored(
    records: Iterator[Record], scorer: Scorer, ledger: Ledger | None, settings: ScoreSettings
) -> Iterator[Record]:
    """Records with the scorer's scores put after any that they have, in order."""
    done = 0
    with console.bars(quiet=settings.out is None) as progress:
        while batch := list(islice(records, _BATCH)):
            keys = [record.trajectory.key for record in batch]
            known = {key: ledger.get(key) for key in keys} if ledger is not None else {}
            fresh = {k: r.trajectory for k, r in zip(keys, batch, strict=True) if not known.get(k)}
            results = dict(zip(fresh, scorer.score(list(fresh.values())), strict=True))
            if ledger is not None and results:
                ledger.put({key: scored.model_dump_json() for key, scored in results.items()})
            for key, record in zip(keys, batch, strict=True):
                stored = known.get(key)
                scored = results[key] if stored is None else _parse(stored)
                yield record.replace(scores=(*record.scores, scored))
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
