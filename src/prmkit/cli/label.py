"""``prm label``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, Bars, bars, figures, out, print_json, say
from prmkit.cli.names import distinct_problems, judge, open_policy
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.files import atomic_text, write_json
from prmkit.formats.files import read_records
from prmkit.labelling.methods import MethodSettings, leaves_open, task
from prmkit.labelling.omega import OmegaSettings
from prmkit.ledger import Ledger, run_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.settings import PolicySettings
from prmkit.records import Record, StepScores, Trajectory
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.labelling import Budget, Progress
    from prmkit.labelling.in_process import Meter
    from prmkit.policies.base import Policy
    from prmkit.policies.openai import Usage


@dataclass(frozen=True)
class LabelSettings:
    """What is labelled, and what it may cost.

    Attributes:
        file: solutions of problems, in any format that prm convert reads. All methods but judge and
            self-consistency need reference answers; omega takes the problems alone.
        out: the run folder: config.json, records.jsonl, metrics.json.
        limit: solutions at most (problems, of omega); 0 for all.
        in_flight: solutions under way at a time; their wishes share batches.
        budget: rollouts at most. Solutions are labelled in order, as far as it goes; those under
            way when it ends are left out, and what they drew is kept.
        budget_tokens: the same, in generated tokens.
        resume: go on with what the run folder holds; --no-resume begins anew.
        from_: format of the file; by default what its first rows say.
        seed: of everything that is drawn.
        prices: of a server: dollars for a million tokens of prompts and for a million generated
            ones; the cost is shown as it grows.
    """

    file: Path
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/label")
    limit: int = 0
    in_flight: int = 64
    budget: int | None = None
    budget_tokens: int | None = None
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True
    from_: str | None = None
    seed: int = 0
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        at_least(1, in_flight=self.in_flight)
        at_least(0, **dict(zip(("input price", "output price"), self.prices or (), strict=False)))
        at_least(0, limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings:
    """Which labels are kept.

    Attributes:
        consensus: labels of the same solutions that somebody else made, a records file; what both
            agree on is kept, by the first wrong step.
        uncertain: label only solutions of which an ensemble is not sure: the file carries the
            scores of two models at least (ActPRM).
        sure: of uncertain: how far from 0 or 1 the ensemble's mean may be: a step is decided at
            this probability, or at 1 minus it.
        spread: of uncertain: how far apart the models may be, as a standard deviation.
        on_disagreement: drop (into dropped.jsonl, with the reason) or mark (kept, with the reason
            in the record's meta).
    """

    consensus: Path | None = None
    uncertain: bool = False
    sure: float = 0.9
    spread: float = 0.01
    on_disagreement: Literal["drop", "mark"] = "drop"

    def __post_init__(self) -> None:
        at_least(0, spread=self.spread)
        if not 0.5 <= self.sure <= 1:
            raise InvalidSetting(f"sure is {self.sure!r}; it must be from 0.5 to 1")
        if not self.uncertain and (self.sure, self.spread) != (0.9, 0.01):
            raise InvalidSetting("sure and spread have no meaning without uncertain")
        if self.consensus is None and not self.uncertain and self.on_disagreement != "drop":
            raise InvalidSetting("on_disagreement has no meaning without consensus or uncertain")


_FREE = ("out", "resume", "in_flight", "budget", "budget_tokens", "prices")
"""Settings that an interrupted run may be given otherwise: no label depends on them."""


class _Job(NamedTuple):
    """All that a run is told."""

    settings: LabelSettings
    speaker: PolicySettings
    method: MethodSettings
    omega: OmegaSettings
    drawing: SamplingSettings
    which: ConsensusSettings


def label(
    settings: Annotated[LabelSettings, Parameter(name="*")],
    *,
    speaker: Annotated[PolicySettings | None, Parameter(name="*")] = None,
    method: Annotated[MethodSettings | None, Parameter(name="*")] = None,
    omega: Annotated[OmegaSettings | None, Parameter(name="*")] = None,
    drawing: Annotated[SamplingSettings | None, Parameter(name="*")] = None,
    which: Annotated[ConsensusSettings | None, Parameter(name="*")] = None,
    k: int | None = None,
    json: bool = False,
) -> int:
    """Label the steps of solutions: by rollouts, by a judge, or by what rollouts agree on.

    A label by rollouts estimates how often this completer still gets the answer from there; that
    is not the same as whether the step is right. Interrupted, it goes on where it was when given
    again.

    Args:
        k: the same as rollouts.
        json: print the metrics as JSON.
    """
    job = _Job(
        settings,
        speaker or PolicySettings(),
        _with_k(method or MethodSettings(), k),
        omega or OmegaSettings(),
        drawing or SamplingSettings(),
        which or ConsensusSettings(),
    )
    _check(job)
    records, sure = _gated(_records(job), job.which)
    others = _others(job, records)
    described = {k: v for k, v in asdict(settings).items() if k not in _FREE}
    parts = (job.method, job.omega, job.drawing, job.which)
    described |= {k: v for part in parts for k, v in asdict(part).items()}
    # Where a model runs may change; which one it is, the ledger sees to.
    described |= {"policy": job.speaker.policy, "tokenizer": job.speaker.tokenizer}
    with run_folder(settings.out, described, resume=settings.resume):
        metrics, told = _run(job, records, sure, others, quiet=json)
        write_json(settings.out / "metrics.json", metrics)
    if json:
        print_json({**metrics, **told, "out": str(settings.out)})
    else:
        out().print(figures("prm label", [*_flat(metrics), *told.items()]))
        say(f"records: {settings.out / 'records.jsonl'}")
    # Searches leave the steps after the first wrong one open; that is no fault.
    missing = metrics["unlabelled_steps"] and not leaves_open(job.method)
    lacking = missing or metrics["failed_rollouts"] or metrics.get("not_labelled")
    return INCOMPLETE if lacking else DONE


def _with_k(method: MethodSettings, k: int | None) -> MethodSettings:
    if k is None:
        return method
    if method.rollouts not in (k, MethodSettings.rollouts):
        raise InvalidSetting(
            f"k is {k} and rollouts {method.rollouts}; they are the same: give one"
        )
    return replace(method, rollouts=k)


def _check(job: _Job) -> None:
    """Refuse what has no meaning together, before any work."""
    if job.method.method == "judge" and job.drawing.temperature == 0 and job.method.votes > 1:
        raise InvalidSetting(
            f"at temperature 0 all {job.method.votes} critiques are the same one; give --votes 1, "
            "or a temperature above 0"
        )
    task(job.method, job.omega)
    _budget(job.settings)
    if job.settings.prices is not None and job.speaker.server is None:
        raise InvalidSetting("prices have no meaning without a server: nobody is paid")
    if job.method.method == "omega" and (job.which.consensus or job.which.uncertain):
        raise InvalidSetting(
            "omega labels steps of its own rollouts, which nobody else has labelled or scored; "
            "leave out --consensus and --uncertain"
        )


def _budget(settings: LabelSettings) -> Budget | None:
    from prmkit.labelling import Budget

    if settings.budget is None and settings.budget_tokens is None:
        return None
    return Budget(settings.budget, settings.budget_tokens)


def _records(job: _Job) -> list[Record]:
    """What is to be labelled."""
    settings = job.settings
    found = read_records(settings.file, settings.from_)
    if job.method.method == "omega":
        problems = distinct_problems(found, settings.file)
        items = [Record(trajectory=Trajectory(problem=problem)) for problem in problems]
        records = items[: settings.limit or None]
    else:
        records = list(islice(found, settings.limit or None))
    if not records:
        raise NothingToMeasure(f"{settings.file} holds no solution")
    return records


def _others(job: _Job, records: list[Record]) -> dict[str, int | None] | None:
    """The labels that are to be agreed with, of some of these solutions at least."""
    from prmkit.labelling import places
    from prmkit.labelling.store import content_key

    consensus = job.which.consensus
    if consensus is None:
        return None
    known = places(read_records(consensus))
    if not any(content_key(record.trajectory) in known for record in records):
        raise NothingToMeasure(
            f"{consensus} labels none of the {len(records)} solutions of {job.settings.file}; it "
            "needs labels of the same problems, steps and separators"
        )
    return known


def _run(
    job: _Job,
    records: list[Record],
    sure: list[Record],
    others: dict[str, int | None] | None,
    *,
    quiet: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Label and write: the metrics, and what this run drew itself."""
    from prmkit.labelling import RolloutStore, drive
    from prmkit.labelling.in_process import Meter
    from prmkit.labelling.store import kept_in

    settings = job.settings
    policy, about = open_policy(job.speaker)
    # Whatever the method, the rollouts of a folder are of one policy, drawn in one way.
    about |= asdict(job.drawing)
    budget = _budget(settings)
    with Ledger(settings.out / "ledger.sqlite", about) as ledger, bars(quiet=quiet) as progress:
        store = RolloutStore(policy, judge(), job.drawing, settings.seed, ledger)
        bill = Bill(policy, settings.prices)
        shown = _Shown(progress, len(records), bill)
        meter = Meter(store, shown.told)
        driven = drive(
            records,
            task(job.method, job.omega),
            store,
            in_flight=settings.in_flight,
            budget=budget,
            on_round=meter.tell,
        )
        labelled = _Labelled(driven, meter, shown)
        metrics: dict[str, Any] = {"solutions": len(records) + len(sure)}
        metrics |= _write(labelled, sure, others, job)
        kept = kept_in(ledger)
    metrics |= {"rollouts": kept.rollouts, "tokens": kept.tokens, "failed_rollouts": kept.failed}
    if budget is not None and budget.ended:
        metrics["not_labelled"] = len(records) - labelled.n_items
        metrics["budget_spent"] = dict(zip(("rollouts", "tokens"), budget.spent, strict=True))
    if job.method.method == "self-consistency":
        metrics["self_consistency"] = labelled.agreement()
    drawn = {"rollouts_this_time": store.drawn, "tokens_this_time": store.tokens}
    return metrics, drawn | bill.told()


def _gated(records: list[Record], which: ConsensusSettings) -> tuple[list[Record], list[Record]]:
    """The records to be labelled, and those of which an ensemble is sure enough."""
    from prmkit.labelling import confident

    if not which.uncertain:
        return records, []
    open_ones: list[Record] = []
    sure: list[Record] = []
    for record in records:
        scores = [one for one in record.scores if isinstance(one, StepScores)]
        if not confident(scores, sure=which.sure, spread=which.spread):
            open_ones.append(record)
            continue
        record = record.replace(meta={**record.meta, "consensus": "sure"})
        (open_ones if which.on_disagreement == "mark" else sure).append(record)
    return open_ones, sure


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


class _Labelled:
    """The labelled records as they come; counts items, and keeps what each problem's vote was."""

    def __init__(self, driven: Iterable[tuple[Record, list[Record]]], meter: Meter, shown: _Shown):
        self._driven, self._meter, self._shown = driven, meter, shown
        self._votes: dict[str, tuple[str | None, Any, Any]] = {}
        self.n_items = 0

    def __iter__(self) -> Iterator[Record]:
        for item, found in self._driven:
            self.n_items += 1
            for record in found:
                vote = record.meta.get("self_consistency")
                if isinstance(vote, dict):
                    problem = item.trajectory.problem
                    self._votes[problem.id] = (problem.answer, vote["answer"], vote["share"])
                self._shown.steps += sum(v is not None for v in _values(record))
                yield record
            self._meter.tell(1)

    def agreement(self) -> dict[str, Any]:
        """How far the rollouts of a problem agree, and whether the majority is right as often."""
        from prmkit.answers import same_answer
        from prmkit.evaluation.calibration import calibration

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


def _write(
    labelled: Iterable[Record],
    sure: list[Record],
    others: dict[str, int | None] | None,
    job: _Job,
) -> dict[str, int]:
    """Write the records, and those that are dropped; how many of what."""
    from prmkit.labelling import Agreed, consensus

    counts = Counter(labelled=0, steps=0, unlabelled_steps=0)
    compared = (
        (Agreed(r, "agree") for r in labelled) if others is None else consensus(labelled, others)
    )
    place = job.settings.out
    drops = job.which.on_disagreement == "drop" and (others is not None or job.which.uncertain)
    with ExitStack() as stack:
        kept = stack.enter_context(atomic_text(place / "records.jsonl"))
        dropped = stack.enter_context(atomic_text(place / "dropped.jsonl")) if drops else kept
        for record in sure:
            dropped.write(record.model_dump_json() + "\n")
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
            file = kept if outcome == "agree" else dropped
            file.write(record.model_dump_json() + "\n")
    return dict(counts)


def _flat(metrics: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Metrics in rows; lists stay in the file."""
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name}: ")
        elif not isinstance(value, list):
            rows.append((before + name, value))
    return rows
