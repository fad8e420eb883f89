"""``prm label``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, figures, out, print_json, say
from prmkit.cli.episodes import AgentSettings
from prmkit.cli.names import distinct_problems
from prmkit.cli.reward_model import RewardModel
from prmkit.cli.sinks import named_like
from prmkit.engines import EngineSettings
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.files import write_json
from prmkit.formats.files import read_records
from prmkit.labelling.methods import RECORDED, MethodSettings, leaves_open, task
from prmkit.labelling.omega import OmegaSettings
from prmkit.ledger import run_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.settings import PolicySettings
from prmkit.records import Record, StepScores, Trajectory
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.cli.labelling import Run
    from prmkit.labelling import Budget


@dataclass(frozen=True)
class LabelSettings:
    """What is labelled, and what it may cost.

    Attributes:
        file: solutions of problems, in any format that prm convert reads. All methods but judge and
            self-consistency need reference answers; omega takes the problems alone. Or episodes of
            agents, as prm play writes them.
        out: the run folder: config.json, records.jsonl (records.parquet of a Parquet file),
            metrics.json.
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


Others = dict[str, int | None] | None
"""Another labeller's first wrong steps, by content."""

_FREE = ("out", "resume", "in_flight", "budget", "budget_tokens", "prices", "keep_critiques")
"""Settings that an interrupted run may be given otherwise: no label depends on them."""


class Job(NamedTuple):
    """All that a run is told."""

    settings: LabelSettings
    speaker: PolicySettings
    method: MethodSettings
    omega: OmegaSettings
    drawing: SamplingSettings
    which: ConsensusSettings
    engine: EngineSettings
    agents: AgentSettings
    scorer: RewardModel

    @property
    def is_of_agents(self) -> bool:
        """Whether turns of episodes are labelled in their environment, or by their outcomes."""
        return self.agents.env is not None or self.method.method in RECORDED


def label(
    settings: Annotated[LabelSettings, Parameter(name="*")],
    *,
    speaker: Annotated[PolicySettings | None, Parameter(name="*")] = None,
    method: Annotated[MethodSettings | None, Parameter(name="*")] = None,
    omega: Annotated[OmegaSettings | None, Parameter(name="*")] = None,
    drawing: Annotated[SamplingSettings | None, Parameter(name="*")] = None,
    which: Annotated[ConsensusSettings | None, Parameter(name="*")] = None,
    engine: Annotated[EngineSettings | None, Parameter(name="*")] = None,
    agents: Annotated[AgentSettings | None, Parameter(name="*")] = None,
    scorer: Annotated[RewardModel | None, Parameter(name="*")] = None,
    k: int | None = None,
    json: bool = False,
) -> int:
    """Label the steps of solutions, or the turns of agents.

    By rollouts, by a judge, by what rollouts agree on, or by the outcomes of recorded episodes.

    A label by rollouts estimates how often this completer still gets the answer from there; that
    is not the same as whether the step is right. Interrupted, it goes on where it was when given
    again.

    Args:
        k: the same as rollouts.
        json: print the metrics as JSON.
    """
    job = Job(
        settings,
        speaker or PolicySettings(),
        _with_k(method or MethodSettings(), k),
        omega or OmegaSettings(),
        drawing or SamplingSettings(),
        which or ConsensusSettings(),
        engine or EngineSettings(),
        agents or AgentSettings(),
        scorer or RewardModel(),
    )
    _check(job)
    source = source_of(job)
    others = _others(job)
    described = {k: v for k, v in asdict(settings).items() if k not in _FREE}
    parts = (job.method, job.omega, job.drawing, job.which)
    described |= {k: v for part in parts for k, v in asdict(part).items() if k not in _FREE}
    # Where a model runs may change; which one it is, the ledger sees to.
    described |= {"policy": job.speaker.policy, "tokenizer": job.speaker.tokenizer}
    if job.is_of_agents:
        described |= job.agents.described | job.scorer.described
    # A model that is not there is told before there is a folder.
    run = _run_of(job, source)
    with run_folder(settings.out, described, resume=settings.resume):
        metrics, told = run(source, others, quiet=json)
        write_json(settings.out / "metrics.json", metrics)
    if json:
        print_json({**metrics, **told, "out": str(settings.out)})
    else:
        out().print(figures("prm label", [*_flat(metrics), *told.items()]))
        say(f"records: {named_like(settings.out, 'records', settings.file)}")
    # Searches leave the steps after the first wrong one open; that is no fault.
    missing = metrics["unlabelled_steps"] and not leaves_open(job.method)
    lacks = ("without_labels", "failed_rollouts", "not_labelled")
    return INCOMPLETE if missing or any(map(metrics.get, lacks)) else DONE


def _run_of(job: Job, source: Source) -> Run:
    """Who does the work."""
    from prmkit.cli.label_episodes import in_environment, of_recorded
    from prmkit.cli.labelling import here, on_ray

    if job.agents.env is not None:
        return in_environment(job, source)
    if job.is_of_agents:
        return of_recorded(job)
    return on_ray(job) if job.engine.engine == "ray" else here(job)


def _with_k(method: MethodSettings, k: int | None) -> MethodSettings:
    if k is None:
        return method
    if method.rollouts not in (k, MethodSettings.rollouts):
        raise InvalidSetting(
            f"k is {k} and rollouts {method.rollouts}; they are the same: give one"
        )
    return replace(method, rollouts=k)


def _check(job: Job) -> None:
    """Refuse what has no meaning together, before any work."""
    job.scorer.check()
    if job.method.method == "judge" and job.drawing.temperature == 0 and job.method.votes > 1:
        raise InvalidSetting(
            f"at temperature 0 all {job.method.votes} critiques are the same one; give --votes 1, "
            "or a temperature above 0"
        )
    budget_of(job.settings)
    if job.is_of_agents:
        from prmkit.cli.label_episodes import check

        check(job)
        return
    if job.agents != AgentSettings() or job.scorer != RewardModel():
        raise InvalidSetting(
            "max_steps, threads and games have no meaning without --env; gamma, lam and a reward "
            f"model have none for the method {job.method.method}"
        )
    task(job.method, job.omega)
    if job.engine.engine == "ray" and (job.settings.prices or budget_of(job.settings)):
        raise InvalidSetting(
            "on Ray nobody keeps the books: leave out prices and budgets, or limit the solutions "
            "with --limit"
        )
    if job.settings.prices is not None and job.speaker.server is None:
        raise InvalidSetting("prices have no meaning without a server: nobody is paid")
    if job.method.method == "omega" and (job.which.consensus or job.which.uncertain):
        raise InvalidSetting(
            "omega labels steps of its own rollouts, which nobody else has labelled or scored; "
            "leave out --consensus and --uncertain"
        )


def budget_of(settings: LabelSettings) -> Budget | None:
    """What a run may spend, where that is said."""
    from prmkit.labelling import Budget

    if settings.budget is None and settings.budget_tokens is None:
        return None
    return Budget(settings.budget, settings.budget_tokens)


class Source(NamedTuple):
    """What is to be labelled, and what is not.

    Attributes:
        records: to be labelled; read as they are needed, on Ray.
        sure: those of which an ensemble is sure enough.
    """

    records: Iterable[Record]
    sure: list[Record]


def source_of(job: Job) -> Source:
    """What is to be labelled."""
    if job.engine.engine == "ray" and not job.which.uncertain:
        return Source(_items(job), [])
    records = list(_items(job))
    if not records:
        raise NothingToMeasure(f"{job.settings.file} holds no solution")
    return _gated(records, job.which)


def _items(job: Job) -> Iterator[Record]:
    """Solutions, or of omega problems, one at a time."""
    settings = job.settings
    found = read_records(settings.file, settings.from_)
    if job.method.method == "omega":
        problems = distinct_problems(found, settings.file)
        found = (Record(trajectory=Trajectory(problem=problem)) for problem in problems)
    return islice(found, settings.limit or None)


def _gated(records: list[Record], which: ConsensusSettings) -> Source:
    """Records to be labelled, and those of which an ensemble is sure enough."""
    from prmkit.labelling import confident

    if not which.uncertain:
        return Source(records, [])
    open_ones: list[Record] = []
    sure: list[Record] = []
    for record in records:
        scores = [one for one in record.scores if isinstance(one, StepScores)]
        if not confident(scores, sure=which.sure, spread=which.spread):
            open_ones.append(record)
            continue
        record = record.replace(meta={**record.meta, "consensus": "sure"})
        (open_ones if which.on_disagreement == "mark" else sure).append(record)
    return Source(open_ones, sure)


def _others(job: Job) -> Others:
    """The labels that are to be agreed with, of some of these solutions at least."""
    from prmkit.labelling import places
    from prmkit.labelling.store import content_key

    consensus = job.which.consensus
    if consensus is None:
        return None
    known = places(read_records(consensus))
    n = 0
    for record in _items(job):
        if content_key(record.trajectory) in known:
            return known
        n += 1
    raise NothingToMeasure(
        f"{consensus} labels none of the {n} solutions of {job.settings.file}; it needs labels of "
        "the same problems, steps and separators"
    )


def _flat(metrics: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Metrics in rows; lists stay in the file."""
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name}: ")
        elif not isinstance(value, list):
            rows.append((before + name, value))
    return rows
