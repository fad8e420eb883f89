"""How ``prm label`` runs: in this process or on Ray, with a bar, a bill and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from prmkit.answers import same_answer
from prmkit.cli.console import Bars, bars
from prmkit.cli.label import Job, Others, Source, budget_of
from prmkit.cli.sinks import named_like, sink
from prmkit.cli.workers import LabelWorker, StartLabelling, anywhere, files_of, threads_here
from prmkit.engines import Batches, Tables, is_table
from prmkit.evaluation.calibration import calibration
from prmkit.labelling import Agreed, Progress, consensus
from prmkit.labelling.in_process import Meter
from prmkit.labelling.store import kept_in
from prmkit.ledger import Ledger
from prmkit.records import Record

if TYPE_CHECKING:
    from prmkit.policies.base import Policy
    from prmkit.policies.openai import Usage
    from prmkit.policies.wire import Capabilities

Ran = tuple[dict[str, Any], dict[str, Any]]
"""The metrics of a run, and what it drew itself."""


class Run(Protocol):
    """Labels what it is given, and writes."""

    def __call__(self, source: Source, others: Others, *, quiet: bool) -> Ran:
        """The metrics, and what this run drew itself."""


def _start(job: Job) -> StartLabelling:
    return StartLabelling(
        speaker=anywhere(job.speaker),
        method=job.method,
        omega=job.omega,
        drawing=job.drawing,
        seed=job.settings.seed,
        in_flight=job.settings.in_flight,
        threads=threads_here(),
    )


def here(job: Job) -> Run:
    """Label in this process; the model is loaded at once."""
    return partial(_here, job, _start(job)())


def _here(job: Job, worker: LabelWorker, source: Source, others: Others, *, quiet: bool) -> Ran:
    """Label from a ledger of rollouts, and write."""
    records = list(source.records)
    # Whatever the method, the rollouts of a folder are of one policy, drawn in one way.
    about = {**worker.about, **asdict(job.drawing)}
    budget = budget_of(job.settings)
    place = job.settings.out / "ledger.sqlite"
    with Ledger(place, about) as ledger, bars(quiet=quiet) as progress:
        store = worker.store(ledger)
        bill = Bill(worker.policy, job.settings.prices)
        shown = _Shown(progress, len(records), bill)
        meter = Meter(store, shown.told)
        driven = worker.label(records, store, budget, meter.tell)
        labelled = Labelled(driven, shown, meter)
        metrics: dict[str, Any] = {"solutions": len(records) + len(source.sure)}
        metrics |= write(labelled, source.sure, others, job)
        kept = kept_in(ledger)
    metrics |= {"rollouts": kept.rollouts, "tokens": kept.tokens}
    can: Capabilities | None = getattr(worker.policy, "capabilities", None)
    if can is not None and not can.seed:
        # What such a server draws cannot be drawn again; what is kept is all there is.
        metrics["repeatable"] = False
    if budget is not None and budget.ended:
        metrics["not_labelled"] = len(records) - labelled.n_items
        metrics["budget_spent"] = dict(zip(("rollouts", "tokens"), budget.spent, strict=True))
    drawn = {"rollouts_this_time": store.drawn, "tokens_this_time": store.tokens}
    return metrics | labelled.told(job), drawn | bill.told()


def on_ray(job: Job) -> Run:
    """Label by actors of Ray, which share no ledger."""
    from prmkit.on_ray import run_on_ray

    return partial(_on_ray, job, run_on_ray)


def _on_ray(
    job: Job, run_on_ray: Callable[..., Any], source: Source, others: Others, *, quiet: bool
) -> Ran:
    start, settings = _start(job), job.settings
    with bars(quiet=quiet) as progress:
        done = run_on_ray(
            _tables(job) or source.records,
            start,
            settings.out / "parts",
            job.engine,
            batch_size=job.engine.batch(settings.in_flight),
            about={"labelling": replace(start, threads=0), "files": files_of(start.speaker)},
            on_progress=lambda now, total: progress("label", now, total),
        )
        labelled = Labelled((record, [record]) for record in done)
        metrics = write(labelled, source.sure, others, job)
    solutions = Batches(settings.out / "parts").n_records + len(source.sure)
    return {"solutions": solutions, **metrics, **labelled.told(job)}, {}


def _tables(job: Job) -> Tables | None:
    """The file, if actors can read it where it is."""
    file, settings = job.settings.file, job.settings
    whole = not settings.limit and not job.which.uncertain and job.method.method != "omega"
    if not whole or settings.from_ not in (None, "prmkit") or not file.is_file():
        return None
    return Tables((file,)) if is_table(file) else None


class Bill:
    """What a server's tokens cost.

    Args:
        policy: counts its prompts' tokens too, where it is on a server.
        prices: dollars for a million tokens of prompts, and for a million generated ones.
    """

    def __init__(self, policy: Policy, prices: tuple[float, float] | None):
        self._policy, self._prices = policy, prices

    @property
    def cost(self) -> float | None:
        """Dollars so far, where there are prices."""
        usage: Usage | None = getattr(self._policy, "usage", None)
        if usage is None or self._prices is None:
            return None
        into, out_of = self._prices
        return (usage.prompt_tokens * into + usage.completion_tokens * out_of) / 1e6

    def told(self) -> dict[str, Any]:
        """What the server counted, and what it cost."""
        usage: Usage | None = getattr(self._policy, "usage", None)
        if usage is None:
            return {}
        told: dict[str, Any] = {"prompt_tokens_this_time": usage.prompt_tokens}
        if usage.cached_tokens:
            told["of_them_cached"] = usage.cached_tokens
        if self.cost is not None:
            told["dollars_this_time"] = round(self.cost, 4)
        return told


class _Shown:
    """Shows how far a run is."""

    def __init__(self, progress: Bars, total: int, bill: Bill):
        self._progress, self._total, self._bill = progress, total, bill
        self._done = self._rollouts = self._tokens = 0
        self.steps = 0

    def told(self, more: Progress) -> None:
        """See `Progress`."""
        self._done += more.trajectories
        self._rollouts += more.rollouts
        self._tokens += more.tokens
        note = f"{self.steps:,} steps, {self._rollouts:,} rollouts, {self._tokens:,} tokens"
        if (cost := self._bill.cost) is not None:
            note += f", ${cost:,.2f}"
        self._progress("label", self._done, self._total, note)


class Labelled:
    """The labelled records as they come, with what of them is told at the end.

    Args:
        driven: what was labelled, with the records that came of it.
        shown: shows how far the run is, where this process does the work.
        meter: tells it.
    """

    def __init__(
        self,
        driven: Iterable[tuple[Record, list[Record]]],
        shown: _Shown | None = None,
        meter: Meter | None = None,
    ):
        self._driven, self._shown, self._meter = driven, shown, meter
        self._votes: dict[str, tuple[str | None, Any, Any]] = {}
        self._failed = 0
        self.n_items = 0

    def __iter__(self) -> Iterator[Record]:
        for _, found in self._driven:
            self.n_items += 1
            for record in found:
                self._note(record)
                yield record
            if self._meter is not None:
                self._meter.tell(1)

    def _note(self, record: Record) -> None:
        problem = record.trajectory.problem
        if isinstance(vote := record.meta.get("self_consistency"), dict):
            self._votes[problem.id] = (problem.answer, vote["answer"], vote["share"])
        if isinstance(failures := record.meta.get("failed_rollouts"), dict):
            n = failures["n"]
            self._failed += n if isinstance(n, int) else 0
        if self._shown is not None:
            self._shown.steps += sum(v is not None for v in _values(record))

    def told(self, job: Job) -> dict[str, Any]:
        """How many rollouts failed, and how far votes agree."""
        told: dict[str, Any] = {"failed_rollouts": self._failed}
        if job.method.method == "self-consistency":
            told["self_consistency"] = self.agreement()
        return told

    def agreement(self) -> dict[str, Any]:
        """How far the rollouts of a problem agree, and whether the majority is right as often."""
        settled = [(a, b, share) for a, b, share in self._votes.values() if share is not None]
        told: dict[str, Any] = {"problems": len(self._votes), "with_a_majority": len(settled)}
        if settled:
            told["mean_share"] = round(fmean(share for _, _, share in settled), 4)
        judged = [
            (share, same_answer(gold, answer) == "equal")
            for gold, answer, share in settled
            if gold is not None and answer is not None
        ]
        if judged:
            found = calibration([share for share, _ in judged], [right for _, right in judged])
            told |= {
                "with_a_reference": len(judged),
                "majority_right": round(fmean(right for _, right in judged), 4),
                "calibration_error": round(found.expected_error, 4),
                "brier": round(found.brier, 4),
                "bins": [
                    {"from": b.low, "n": b.n, "mean_share": b.mean_score, "right": b.share_right}
                    for b in found.bins
                    if b.n
                ],
            }
        return told


def _values(record: Record) -> tuple[float | None, ...]:
    return record.labels.values if record.labels else (None,) * len(record.trajectory.steps)


def write(
    labelled: Iterable[Record],
    sure: list[Record],
    others: Others,
    job: Job,
) -> dict[str, int]:
    """Write the records, and those that are dropped; how many of what."""
    counts = Counter(labelled=0, steps=0, unlabelled_steps=0)
    compared = (
        (Agreed(r, "agree") for r in labelled) if others is None else consensus(labelled, others)
    )
    place = job.settings.out
    drops = job.which.on_disagreement == "drop" and (others is not None or job.which.uncertain)
    with ExitStack() as stack:
        kept = stack.enter_context(sink(named_like(place, "records", job.settings.file)))
        dropped = kept
        if drops:
            dropped = stack.enter_context(sink(named_like(place, "dropped", job.settings.file)))
        for record in sure:
            dropped(record)
        if job.which.uncertain:
            counts["sure"] = len(sure)
        for record, outcome in compared:
            values = _values(record)
            counts["labelled"] += record.labels is not None
            counts["steps"] += len(values)
            counts["unlabelled_steps"] += sum(v is None for v in values)
            if record.labels is None:
                counts["without_labels"] += 1
            if others is not None:
                counts[f"consensus: {outcome}"] += 1
            if outcome != "agree":
                record = record.replace(meta={**record.meta, "consensus": outcome})
            (kept if outcome == "agree" else dropped)(record)
    return dict(counts)
