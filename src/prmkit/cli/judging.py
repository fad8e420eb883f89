"""A model's judgements of a benchmark's cases, from this process or from Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from prmkit.cli.console import Bars
from prmkit.cli.names import about_model, open_scorer
from prmkit.cli.workers import StartScoring, scoring_depends_on
from prmkit.engines import EngineSettings
from prmkit.evaluation.cases import Case
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import BATCH, Shard, score_cases
from prmkit.ledger import Ledger
from prmkit.records import Record, StepScores
from prmkit.scorers.settings import ModelSettings


class Judging(Protocol):
    """Gives judgements; each case is scored once, whatever interrupts it."""

    @property
    def name(self) -> str:
        """The model, as it calls itself; known when it has judged."""

    def cases(self, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """What it says of the cases."""

    def again(self, change: str, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """What it says of them after a change."""


def judging(how: ModelSettings, engine: EngineSettings, out: Path) -> Judging:
    """A model that judges in this process or on Ray."""
    return JudgingOnRay(how, engine, out) if engine.engine == "ray" else JudgingHere(how, out)


def counting(progress: Bars, stage: str, total: int) -> Callable[[int], None]:
    """Turns how many more are done into a bar of how many are."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    return count


class JudgingHere:
    """A model in this process.

    Args:
        how: the model.
        out: the run folder.
    """

    def __init__(self, how: ModelSettings, out: Path):
        self._how, self._out = how, out
        self._scorer = open_scorer(how)

    @property
    def name(self) -> str:
        """See `Judging`."""
        return self._scorer.name

    def cases(self, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """See `Judging`; what other processes have in this run folder is taken from there."""
        told = counting(progress, "score", len(cases))
        with self._ledgers(None) as (own, others):
            return score_cases(cases, self._scorer, own, known=others, on_progress=told)

    def part(self, shard: Shard, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """The same of one part of the cases, for a process that has all parts."""
        told = counting(progress, "score", len(cases))
        with self._ledgers(shard) as (own, _):
            return score_cases(cases, self._scorer, own, on_progress=told)

    def again(self, change: str, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """See `Judging`."""
        renamed = [case._replace(id=f"{change}:{case.id}") for case in cases]
        about = about_model(self._how, self._scorer)
        with Ledger(self._out / "robustness.sqlite", about) as ledger:
            told = counting(progress, change, len(cases))
            return score_cases(renamed, self._scorer, ledger, on_progress=told)

    @contextmanager
    def _ledgers(self, shard: Shard | None) -> Iterator[tuple[Ledger, list[Ledger]]]:
        """The ledger of this process, and those of others on the same work."""
        about = about_model(self._how, self._scorer)
        part = "all" if shard is None else f"{shard.number}-of-{shard.of}"
        own = self._out / "ledgers" / f"{part}.sqlite"
        others = sorted(f for f in own.parent.glob("*.sqlite") if f != own) if shard is None else []
        opened = [Ledger(path, about) for path in (own, *others)]
        try:
            yield opened[0], opened[1:]
        finally:
            for ledger in opened:
                ledger.close()


class JudgingOnRay:
    """A model held by actors of Ray; this process does not load it.

    Args:
        how: the model.
        engine: where the actors are.
        out: the run folder.
    """

    def __init__(self, how: ModelSettings, engine: EngineSettings, out: Path):
        # Before the run folder is claimed: Ray may not be installed.
        from prmkit.on_ray import run_on_ray

        self._run, self._engine, self._out = run_on_ray, engine, out
        self._size = engine.batch(BATCH, whole=True)
        self._about = scoring_depends_on(how)
        self._start = StartScoring.of(how, BATCH)
        self._name: str | None = None

    @property
    def name(self) -> str:
        """See `Judging`."""
        return self._name or Path(self._start.how.model).name

    def cases(self, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """See `Judging`."""
        return self._scored("score", self._out / "parts" / "cases", cases, progress)

    def again(self, change: str, cases: Sequence[Case], progress: Bars) -> list[Judgement]:
        """See `Judging`."""
        return self._scored(change, self._out / "parts" / change, cases, progress)

    def _scored(
        self, stage: str, folder: Path, cases: Sequence[Case], progress: Bars
    ) -> list[Judgement]:
        scored = self._run(
            (Record(trajectory=case.record.trajectory) for case in cases),
            self._start,
            folder,
            self._engine,
            batch_size=self._size,
            about=self._about,
            on_progress=lambda done, total: progress(stage, done, total),
        )
        given = [record.scores[-1] for record in scored]
        for scores in given:
            if isinstance(scores, StepScores):
                self._name = scores.model
                break
        return [Judgement(scores) for scores in given]
