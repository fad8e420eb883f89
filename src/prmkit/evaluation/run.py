"""A benchmark and what judges say of its cases, to figures with intervals.

    cases, judgements ──▶ verdicts ──▶ statistics ──▶ figures with intervals
                                           │
                                           └──▶ paired differences between judges

`measure` is pure; `score_cases` runs a scorer and can be stopped and gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.evaluation.benchmarks.best_of_n import grouped, pools_of
from prmkit.evaluation.best_of_n import Draws, Ties
from prmkit.evaluation.calibration import Calibration, calibration
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Protocol,
    check_content,
    digest,
    group_numbers,
)
from prmkit.evaluation.common import labelled_steps, score_figures
from prmkit.evaluation.diagnostics import WayOfAggregating, best_aggregation, diagnose
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Equal, Judgement, Rule, Use
from prmkit.evaluation.pool_table import Answers, PickSettings, Sampling, by_difficulty
from prmkit.evaluation.statistics import Bootstrap, Estimate, Statistic, Sums
from prmkit.ledger import Ledger
from prmkit.records import Scored, StepScores, Unscored
from prmkit.scorers.base import Scorer
from prmkit.settings import at_least

BATCH = 32
"""Cases that are scored together; a shard has whole batches, so scores are the same to the bit."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How judgements become figures; what is left open is the benchmark's own way.

    Attributes:
        threshold: a step with a lower score is wrong; by default 0.5, or 0 for log-ratios.
        equal: what a step is whose score is the threshold itself: right, wrong or neutral.
        use: a judge's own verdicts where it gave both, or its scores.
        redundancy: a step with a higher probability of being redundant is called so.
        tune_on: the split on which a threshold is tuned that is reused on the others.
        aggregate: step scores to one number for a solution.
        sampling: how N samples are taken: expected, first or shuffled.
        answers: equivalent answers are one, or those with the same text.
        ties: who wins among equals: share or first.
        draws: how many subsets are drawn for votes, or shuffles.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of draws and of the bootstrap.
    """

    threshold: float | None = None
    equal: Equal | None = None
    use: Use = "verdicts"
    redundancy: float = 0.15
    tune_on: str | None = None
    aggregate: Aggregation = "min"
    sampling: Sampling = "expected"
    answers: Answers = "equivalent"
    ties: Ties = "share"
    draws: int = 200
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, resamples=self.resamples)
        at_least(1, draws=self.draws)
        if not 0 <= self.redundancy <= 1:
            raise InvalidSetting(f"redundancy is {self.redundancy!r}; a probability from 0 to 1")

    @property
    def protocol(self) -> Protocol:
        """The same as a benchmark takes it."""
        return Protocol(
            rule=Rule(
                threshold=self.threshold,
                equal=self.equal,
                redundancy=self.redundancy,
                use=self.use,
            ),
            tune_on=self.tune_on,
            aggregation=self.aggregate,
            picks=PickSettings(
                sampling=self.sampling,
                answers=self.answers,
                draws=Draws(draws=self.draws, seed=self.seed, ties=self.ties),
            ),
        )


class ModelFigures(NamedTuple):
    """What one judge comes to.

    Attributes:
        figures: by name, the headline first: of the benchmark's protocol, then of the scores.
        facts: numbers that are chosen or counted.
        diagnostics: by name; see `prmkit.evaluation.diagnostics`.
        aggregations: which way to one number is best, where that can be told.
        strata: the main figures by difficulty, where that can be told.
        drift: mean scores of right steps by tenths of the way.
        calibration: bins of the scores of labelled steps, where they are in [0, 1].
        scored: cases that have a judgement.
        unscored: cases that have none.
        reasons: why not, with how often; the commonest first.
    """

    figures: dict[str, Estimate]
    facts: Mapping[str, float | int | str]
    diagnostics: dict[str, Estimate]
    aggregations: list[WayOfAggregating]
    strata: dict[str, dict[str, Estimate]]
    drift: list[tuple[float, float, float, int]]
    calibration: Calibration | None
    scored: int
    unscored: int
    reasons: dict[str, int]


class Evaluation(NamedTuple):
    """A benchmark measured for one or more judges.

    Attributes:
        benchmark: which.
        cases: all of them, in order.
        judges: what each says, one judgement per case.
        models: their figures.
        differences: in what the data differ from the published ones.
        digest: of the cases.
        settings: how judgements became figures.
    """

    benchmark: Benchmark
    cases: list[Case]
    judges: dict[str, list[Judgement]]
    models: dict[str, ModelFigures]
    differences: list[str]
    digest: str
    settings: MeasureSettings

    def metrics(self) -> dict[str, Any]:
        """As in ``metrics.json``."""
        known = self.benchmark
        return {
            "benchmark": known.name,
            "title": known.title,
            "paper": known.paper,
            "data": {
                "hub": known.hub,
                "git": known.git,
                "revision": known.revision,
                "licence": known.licence,
                "cases": len(self.cases),
                "digest": self.digest,
                "differences": self.differences,
            },
            "measure": asdict(self.settings),
            "models": {name: _told(model) for name, model in self.models.items()},
        }


def _told(model: ModelFigures) -> dict[str, Any]:
    def rounded(figures: Mapping[str, Estimate]) -> dict[str, Any]:
        return {name: _rounded(estimate) for name, estimate in figures.items()}

    return {
        "scored": model.scored,
        "unscored": model.unscored,
        "unscored_reasons": model.reasons,
        "figures": rounded(model.figures),
        "facts": {k: round(v, 6) if isinstance(v, float) else v for k, v in model.facts.items()},
        "diagnostics": rounded(model.diagnostics),
        "aggregations": [
            {"how": way.how, **_rounded(way.figure), "to_best": _rounded(way.to_best)}
            for way in model.aggregations
        ],
        "strata": {name: rounded(figures) for name, figures in model.strata.items()},
        "reliability": [
            {
                "from": b.low,
                "to": b.high,
                "mean_score": None if b.mean_score is None else round(b.mean_score, 6),
                "share_right": None if b.share_right is None else round(b.share_right, 6),
                "n": b.n,
            }
            for b in (model.calibration.bins if model.calibration else ())
        ],
        "drift": [
            {"from": a, "to": b, "mean_score": round(score, 6), "n": n}
            for a, b, score, n in model.drift
        ],
    }


def _rounded(estimate: Estimate) -> dict[str, Any]:
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in estimate._asdict().items()
    }


def measure(
    benchmark: Benchmark,
    cases: Sequence[Case],
    judges: Mapping[str, Sequence[Judgement]],
    settings: MeasureSettings | None = None,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure what judges say of a benchmark's cases.

    Args:
        benchmark: which.
        cases: its cases.
        judges: for each judge one judgement per case, in their order.
        settings: see `MeasureSettings`.
        on_progress: told of each judge that is done.

    Raises:
        NothingToMeasure: if there is no judge, or one has judged nothing.
    """
    settings = settings or MeasureSettings()
    check_settings(benchmark, settings)
    if not judges:
        raise NothingToMeasure("there is no judge: neither a model nor a file of scores")
    cases = list(cases)
    groups = group_numbers(cases)
    bootstrap = Bootstrap(int(groups.max(initial=-1)) + 1, settings.resamples, settings.seed)
    models = {}
    for name, judgements in judges.items():
        models[name] = _model(benchmark, cases, name, judgements, groups, bootstrap, settings)
        if on_progress is not None:
            on_progress(1)
    return Evaluation(
        benchmark,
        cases,
        {name: list(given) for name, given in judges.items()},
        models,
        check_content(benchmark, cases),
        digest(cases),
        settings,
    )


OF_PROTOCOLS: dict[str, str] = {
    "threshold": "verdicts",
    "equal": "verdicts",
    "use": "verdicts",
    "redundancy": "redundancy",
    "tune_on": "splits",
    "sampling": "picks",
    "answers": "picks",
    "ties": "picks",
    "draws": "picks",
}
"""Settings that some benchmarks have no use for, with what a benchmark must have to take them."""


def check_settings(benchmark: Benchmark, settings: MeasureSettings) -> None:
    """Refuse settings that a benchmark would ignore.

    Raises:
        InvalidSetting: naming the first of them.
    """
    plain = MeasureSettings()
    for name, needed in OF_PROTOCOLS.items():
        if needed not in benchmark.takes and getattr(settings, name) != getattr(plain, name):
            raise InvalidSetting(
                f"{name} has no meaning for {benchmark.name}, which has no {needed}; leave it out"
            )


def statistics_of(
    benchmark: Benchmark, judged: Judged, protocol: Protocol
) -> tuple[dict[str, Statistic], Mapping[str, float | int | str]]:
    """All figures of one judge, as functions of weights, and the facts beside them."""
    figures, facts = benchmark.figures(judged, protocol)
    return {**figures, **score_figures(judged, protocol)}, facts


def _model(
    benchmark: Benchmark,
    cases: list[Case],
    name: str,
    judgements: Sequence[Judgement],
    groups: Any,
    bootstrap: Bootstrap,
    settings: MeasureSettings,
) -> ModelFigures:
    if len(judgements) != len(cases):
        raise ValueError(f"{len(judgements)} judgements by {name!r} of {len(cases)} cases")
    n_unscored = sum(j.unscored for j in judgements)
    if n_unscored == len(cases):
        raise NothingToMeasure(
            f"{name} scored none of the {len(cases)} cases: {_reasons(judgements)}"
        )
    protocol = settings.protocol
    judged = Judged.of(cases, judgements, groups, protocol, benchmark.equal)
    figures, facts = statistics_of(benchmark, judged, protocol)
    diagnosis = diagnose(judged, protocol)
    return ModelFigures(
        figures={key: bootstrap.estimate(statistic) for key, statistic in figures.items()},
        facts=facts,
        diagnostics={
            key: bootstrap.estimate(statistic) for key, statistic in diagnosis.figures.items()
        },
        aggregations=_aggregations(figures, bootstrap),
        strata=_strata(cases, figures, protocol, bootstrap),
        drift=diagnosis.drift,
        calibration=_calibration(judged),
        scored=len(cases) - n_unscored,
        unscored=n_unscored,
        reasons=_reasons(judgements),
    )


def _reasons(judgements: Sequence[Judgement]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for judgement in judgements:
        if judgement.unscored:
            scores = judgement.scores
            why = scores.reason if isinstance(scores, Unscored) else "nothing was said"
            counts[why] = counts.get(why, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:20])


def _aggregations(figures: dict[str, Statistic], bootstrap: Bootstrap) -> list[WayOfAggregating]:
    best = [n for n in figures if n.startswith("best_of_")]
    if best:
        last = max(int(n.split("/")[0].removeprefix("best_of_")) for n in best)
        return best_aggregation(figures, f"best_of_{last}/", bootstrap)
    return best_aggregation(figures, "solutions/roc_auc/", bootstrap)


def _strata(
    cases: list[Case], figures: dict[str, Statistic], protocol: Protocol, bootstrap: Bootstrap
) -> dict[str, dict[str, Estimate]]:
    """Best-of-N and votes by how often the samples of a problem are right."""
    if "pass_1" not in figures:
        return {}
    last = max(int(n.removeprefix("pass_")) for n in figures if n.startswith("pass_"))
    names = [
        f"best_of_{last}/{protocol.aggregation}",
        f"weighted_vote_{last}/{protocol.aggregation}",
        f"majority_{last}",
        "pass_1",
    ]
    strata: dict[str, dict[str, Estimate]] = {}
    problem_groups = [cases[pool[0]].group for pool in pools_of(cases)]
    numbers = {group: k for k, group in enumerate(dict.fromkeys(problem_groups))}
    for stratum, inside in by_difficulty(grouped(cases, protocol).samples).items():
        keep = np.zeros(len(numbers))
        keep[[numbers[problem_groups[p]] for p in inside]] = 1
        if not keep.any():
            continue
        strata[stratum] = {}
        for name in names:
            whole = figures.get(name)
            if isinstance(whole, Sums):
                part = whole._replace(sums=whole.sums * keep[:, None], n=int(keep.sum()))
                strata[stratum][name] = bootstrap.estimate(part)
    return strata


def _calibration(judged: Judged) -> Calibration | None:
    steps = labelled_steps(judged)
    scores = steps.scores
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return None
    return calibration(scores.tolist(), steps.right.tolist())


class Shard(NamedTuple):
    """One part of several of a benchmark's cases.

    Attributes:
        number: from 0.
        of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``0/4`` to ``3/4``.

        Raises:
            InvalidSetting: if it is something else.
        """
        number, slash, of = text.partition("/")
        digits = number.isascii() and of.isascii() and number.isdecimal() and of.isdecimal()
        if not slash or not digits or int(number) >= int(of):
            raise InvalidSetting(
                f"the shard is {text!r}; write i/n with i from 0 to n - 1, such as 0/4"
            )
        return cls(int(number), int(of))

    def part(self, cases: Sequence[Case]) -> list[Case]:
        """Its cases: every so many batches of them."""
        return [c for i, c in enumerate(cases) if i // BATCH % self.of == self.number]


def score_cases(
    cases: Sequence[Case],
    scorer: Scorer,
    ledger: Ledger,
    *,
    known: Sequence[Ledger] = (),
    on_progress: Callable[[int], None] | None = None,
) -> list[Judgement]:
    """Score cases; each once, whatever interrupts it.

    Args:
        cases: in any number.
        scorer: who judges.
        ledger: where finished cases are noted, and found when it is called again.
        known: ledgers of other parts of the same work, which are read alone.
        on_progress: told how many more are done.
    """
    judgements: list[Judgement] = []
    items = iter(cases)
    while batch := list(islice(items, BATCH)):
        keys = [f"{case.id}:{case.record.trajectory.key}" for case in batch]
        stored = [_stored(key, (ledger, *known)) for key in keys]
        fresh = [i for i, found in enumerate(stored) if found is None]
        results: list[Scored] = list(scorer.score([batch[i].record.trajectory for i in fresh]))
        if fresh:
            ledger.put({keys[i]: s.model_dump_json() for i, s in zip(fresh, results, strict=True)})
        by_place = dict(zip(fresh, results, strict=True))
        judgements += [
            Judgement(by_place[i] if found is None else _parsed(found))
            for i, found in enumerate(stored)
        ]
        if on_progress is not None:
            on_progress(len(batch))
    return judgements


def _stored(key: str, ledgers: Sequence[Ledger]) -> str | None:
    return next((found for ledger in ledgers if (found := ledger.get(key)) is not None), None)


def _parsed(stored: str) -> Scored:
    kind: type[StepScores] | type[Unscored] = (
        Unscored if '"type":"unscored"' in stored[:20] else StepScores
    )
    return kind.model_validate_json(stored)
