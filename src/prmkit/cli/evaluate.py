"""``prm evaluate``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from prmkit import __version__
from prmkit.cli import console
from prmkit.cli.judging import Judging, JudgingHere, counting, judging
from prmkit.embedded.benchmark import BENCHMARKS as EMBEDDED
from prmkit.engines import EngineSettings
from prmkit.errors import (
    FormatError,
    InvalidSetting,
    NothingToMeasure,
    PrmkitError,
    UnknownName,
)
from prmkit.evaluation import hub
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    constant_scores,
    group_numbers,
    known_split,
)
from prmkit.evaluation.contamination import contamination
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.results import hub_results, write_run, write_scores
from prmkit.evaluation.robustness import robustness
from prmkit.evaluation.run import (
    Evaluation,
    MeasureSettings,
    Shard,
    check_settings,
    measure,
)
from prmkit.evaluation.score_files import clean_name, in_order, read_scores, stored_scores
from prmkit.evaluation.statistics import Bootstrap
from prmkit.evaluation.tables import interval
from prmkit.files import atomic_text
from prmkit.formats.files import read_records
from prmkit.ledger import claim_folder
from prmkit.scorers.settings import ModelSettings
from prmkit.settings import at_least

ALL = {**BENCHMARKS, **EMBEDDED}
_SHOWN = 24


@dataclass(frozen=True)
class EvaluateSettings:
    """What is measured, and where the result goes.

    Attributes:
        benchmark: its name; without one they are listed.
        data: a file or folder with its data as published; by default fetched from the Hugging Face
            hub or GitHub, at a pinned commit.
        scores: a file or folder with scores or verdicts, instead of running a model; give it
            once per file.
        out: the run folder; by default runs/evaluate-BENCHMARK.
        name: of the model in tables; by default its own.
        limit: so many problems alone, the first ones.
        shard: one part of several, such as 0/4: scores its cases; the same command without it
            measures when all parts are done.
        robustness: score the solutions again with steps merged, split, reordered, padded, and
            tell how often the verdict changes.
        training: problems that the model was trained on, in any format that prm convert reads;
            the figures are given again without those of the benchmark among them.
        revision: another commit of the data than the pinned one.
        hub_results: also write the figures in the hub's form of evaluation results.
    """

    benchmark: str | None = None
    _: KW_ONLY
    data: Path | None = None
    scores: tuple[Path, ...] = ()
    out: Annotated[Path | None, Parameter(alias="-o")] = None
    name: str | None = None
    limit: int | None = None
    shard: str | None = None
    robustness: bool = False
    training: Path | None = None
    revision: str | None = None
    hub_results: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None:
            at_least(1, limit=self.limit)
        if self.shard is not None:
            Shard.parse(self.shard)
        if self.shard is not None and self.scores:
            raise InvalidSetting("--shard is for running a model; --scores are read as a whole")
        if self.shard is not None and self.robustness:
            raise InvalidSetting("--robustness comes with the command without --shard")
        if self.robustness and self.scores:
            raise InvalidSetting("--robustness scores anew: it needs --model, not --scores")


def evaluate(
    settings: Annotated[EvaluateSettings | None, Parameter(name="*")] = None,
    *,
    measured: Annotated[MeasureSettings | None, Parameter(name="*")] = None,
    how: Annotated[ModelSettings | None, Parameter(name="*")] = None,
    engine: Annotated[EngineSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Measure a model, or scores that are there, on a benchmark.

    Writes scores, metrics.json, a Markdown and a LaTeX table beside published rows, and a report.
    Interrupted, it goes on where it was when it is given again.

    Args:
        json: print metrics.json.
    """
    settings, measured = settings or EvaluateSettings(), measured or MeasureSettings()
    if settings.benchmark is None:
        if settings != EvaluateSettings() or how is not None:
            raise InvalidSetting("name the benchmark; prm evaluate alone lists them")
        return _list(json)
    benchmark = _named(settings.benchmark)
    out = settings.out or Path("runs") / f"evaluate-{benchmark.name}"
    if how is None and not settings.scores and benchmark.name in EMBEDDED:
        how = ModelSettings()
    training = _checked(benchmark, settings, measured)
    described = _described(settings, measured, how)
    engine = engine or EngineSettings()
    _check_engine(engine, settings, how)
    if settings.scores and how is not None:
        raise InvalidSetting("give either --model, or --scores that are there already")
    if how is not None and how.model == "embedded/prm" and benchmark.name not in EMBEDDED:
        console.say("model: embedded/prm, which knows the stories of the embedded world alone")
    every, data = _cases(benchmark, settings, out, described)
    cases = _limited(every, settings.limit)
    if measured.tune_on is not None:
        known_split(cases, measured.tune_on)
    judges = _given_judges(benchmark, every, cases, settings) if how is None else {}
    if how is not None:
        _readable(cases)
    model = None if how is None else judging(how, engine, out)
    # Nothing that could have been refused claims the folder.
    claim_folder(out, described)
    if settings.shard is not None:
        assert how is not None
        assert isinstance(model, JudgingHere)
        return _score_shard(cases, settings, how, model, out, json)
    with console.bars(quiet=json) as progress:
        if how is not None and model is not None:
            given = model.cases(cases, progress)
            judges = {clean_name(settings.name or _short(how, model)): given}
        result = measure(
            benchmark,
            cases,
            judges,
            measured,
            on_progress=counting(progress, "measure", len(judges)),
        )
        if settings.robustness:
            assert model is not None
            result = _with_robustness(result, model, measured, progress)
    more = _more(result, training, measured, data)
    _write(out, result, measured, {**described, "data": data}, more, settings.hub_results)
    if json:
        console.print_json({**result.metrics(), **more})
    else:
        _tell(result, out, more)
    return console.INCOMPLETE if any(m.unscored for m in result.models.values()) else console.DONE


def _check_engine(
    engine: EngineSettings, settings: EvaluateSettings, how: ModelSettings | None
) -> None:
    if engine.engine == "local":
        return
    if how is None:
        raise InvalidSetting("--engine ray is for running a model: give --model")
    if settings.shard is not None:
        raise InvalidSetting(
            "--shard is for processes that know nothing of each other; with --engine ray, give "
            "more --actors"
        )


def _named(name: str) -> Benchmark:
    if name not in ALL:
        raise UnknownName("benchmark", name, ALL)
    return ALL[name]


def _list(as_json: bool) -> int:
    """Tell which benchmarks there are."""
    if as_json:
        for known in ALL.values():
            console.print_json(
                {
                    "name": known.name,
                    "title": known.title,
                    "about": known.about,
                    "paper": known.paper,
                    "hub": known.hub,
                    "git": known.git,
                    "revision": known.revision,
                    "licence": known.licence,
                    "published_rows": len(known.published),
                }
            )
        return console.DONE
    rows = [(known.name, f"{known.title}: {known.about}") for known in ALL.values()]
    console.out().print(console.figures("benchmarks", rows))
    return console.DONE


def _checked(
    benchmark: Benchmark, settings: EvaluateSettings, measured: MeasureSettings
) -> list[str] | None:
    """Refuse what cannot be done before any work; the training problems, where they are given."""
    check_settings(benchmark, measured)
    is_fetched = settings.data is None and (benchmark.hub or benchmark.git) is not None
    if settings.revision is not None and not is_fetched:
        raise InvalidSetting("--revision is of data that are fetched; these come from elsewhere")
    if settings.hub_results and benchmark.hub is None:
        raise InvalidSetting(
            f"{benchmark.title} has no data set on the Hugging Face hub, which --hub-results names"
        )
    if settings.training is None:
        return None
    texts = dict.fromkeys(r.trajectory.problem.text for r in read_records(settings.training))
    return list(texts)


def _described(
    settings: EvaluateSettings, measured: MeasureSettings, how: ModelSettings | None
) -> dict[str, Any]:
    """The settings that the files of a run depend on."""
    told = {**asdict(settings), "measure": asdict(measured)}
    for key in ("out", "shard"):
        del told[key]
    told["model"] = None if how is None else asdict(how)
    return told


def _cases(
    benchmark: Benchmark, settings: EvaluateSettings, out: Path, described: Mapping[str, Any]
) -> tuple[list[Case], dict[str, Any]]:
    """All cases, and where they are from."""
    source: dict[str, Any] = {"path": None, "revision": None}
    if settings.data is not None:
        cases, source["path"] = benchmark.read(settings.data), str(settings.data)
    elif benchmark.make is not None:
        cases = benchmark.make(settings.limit)
    else:
        if (benchmark.hub or benchmark.git) is None:
            raise InvalidSetting(f"{benchmark.title} has no public data: give files with --data")
        # The data are put into the folder itself; what cannot be fetched leaves none behind.
        is_new = not out.exists()
        claim_folder(out, described)
        try:
            folder = hub.fetch(benchmark, out / "data", settings.revision)
        except PrmkitError:
            if is_new:
                shutil.rmtree(out)
            raise
        cases, source["revision"] = benchmark.read(folder), hub.fetched_revision(folder)
    return cases, source


def _limited(cases: list[Case], limit: int | None) -> list[Case]:
    """The cases of the first problems."""
    if limit is None:
        return cases
    groups = group_numbers(cases)
    return [case for case, group in zip(cases, groups, strict=True) if group < limit]


def _given_judges(
    benchmark: Benchmark, every: Sequence[Case], cases: Sequence[Case], settings: EvaluateSettings
) -> dict[str, list[Judgement]]:
    """What judges say of the cases, by files of scores or by the data themselves."""
    judges: dict[str, list[Judgement]] = {}
    for path in settings.scores:
        # Files may hold more cases than are measured.
        for model, given in in_order(read_scores(path, benchmark, every), cases).items():
            if model in judges:
                raise FormatError(f"the judge {model!r} is in two of the files", path)
            judges[model] = given
    if settings.scores:
        return _renamed(judges, settings.name)
    needing = [k for k in ("shard", "robustness") if getattr(settings, k)]
    if needing:
        raise InvalidSetting(f"--{needing[0]} is for running a model: give --model")
    stored = in_order(stored_scores(cases), cases)
    if not stored and "picks" in benchmark.takes:
        # Votes and pass@N need no judge; picking among equals is by chance.
        stored = {"chance (equal scores)": [constant_scores(case, 0.5) for case in cases]}
    if not stored:
        raise InvalidSetting(
            "there is no judge: give a model (--model), or a file of scores (--scores)"
        )
    return _renamed(stored, settings.name)


def _renamed(judges: dict[str, list[Judgement]], name: str | None) -> dict[str, list[Judgement]]:
    if name is None:
        return judges
    if len(judges) > 1:
        raise InvalidSetting(f"--name is for one judge, and there are {len(judges)}")
    return {clean_name(name): next(iter(judges.values()))}


def _short(how: ModelSettings, model: Judging) -> str:
    """A model's name as tables show it: without folders of this machine."""
    return how.model if not Path(how.model).exists() else Path(model.name).name


def _readable(cases: Sequence[Case]) -> None:
    bare = next((c for c in cases if c.record.meta.get("labels_only") is True), None)
    if bare is not None:
        raise FormatError(
            f"{bare.id!r} has labels alone and no text that a model could read; only --scores "
            "can be measured on these files"
        )


def _score_shard(
    cases: Sequence[Case],
    settings: EvaluateSettings,
    how: ModelSettings,
    model: JudgingHere,
    out: Path,
    as_json: bool,
) -> int:
    """Score one part of the cases and say how to go on."""
    assert settings.shard is not None
    shard = Shard.parse(settings.shard)
    part = shard.part(cases)
    with console.bars(as_json) as progress:
        given = model.part(shard, part, progress)
    name = f"scores-{shard.number}-of-{shard.of}.jsonl"
    write_scores(out / name, part, {clean_name(settings.name or _short(how, model)): given})
    done = sum((out / f"scores-{k}-of-{shard.of}.jsonl").is_file() for k in range(shard.of))
    if as_json:
        console.print_json(
            {"shard": settings.shard, "cases": len(part), "file": str(out / name), "done": done}
        )
    else:
        console.say(
            f"shard {settings.shard}: {len(part)} cases scored, written to {out / name}; "
            f"{done} of {shard.of} shards are done. Then give the same command without --shard"
        )
    return console.INCOMPLETE if any(j.unscored for j in given) else console.DONE


def _with_robustness(
    result: Evaluation, model: Judging, measured: MeasureSettings, progress: console.Bars
) -> Evaluation:
    name = next(iter(result.models))
    groups = group_numbers(result.cases)
    figures = robustness(
        result.cases,
        result.judges[name],
        lambda change, cases: model.again(change, cases, progress),
        measured.protocol,
        Bootstrap(int(groups.max()) + 1, measured.resamples, measured.seed),
        equal=result.benchmark.equal,
        seed=measured.seed,
    )
    told = result.models[name]
    told = told._replace(diagnostics={**told.diagnostics, **figures})
    return result._replace(models={**result.models, name: told})


def _more(
    result: Evaluation, training: list[str] | None, measured: MeasureSettings, data: Any
) -> dict[str, Any]:
    """What else goes into metrics.json: where the data are from, and contamination."""
    more: dict[str, Any] = {"source": data}
    if training is not None:
        more["contamination"] = _contamination(result, training, measured)
    return more


def _contamination(
    result: Evaluation, texts: list[str], measured: MeasureSettings
) -> dict[str, Any]:
    problems = list(dict.fromkeys(c.record.trajectory.problem.text for c in result.cases))
    seen = {problems[o.problem]: o for o in contamination(problems, texts)}
    keep = [i for i, c in enumerate(result.cases) if c.record.trajectory.problem.text not in seen]
    told: dict[str, Any] = {
        "training_problems": len(texts),
        "problems": len(problems),
        "problems_seen": len(seen),
        "problems_seen_exactly": sum(o.exact for o in seen.values()),
        "cases_seen": len(result.cases) - len(keep),
        "examples": [text[:120] for text in list(seen)[:10]],
    }
    if seen:
        cases = [result.cases[i] for i in keep]
        told["without_them"] = {}
        for model, given in result.judges.items():
            judges = {model: [given[i] for i in keep]}
            try:
                clean = measure(result.benchmark, cases, judges, measured).metrics()["models"]
                told["without_them"][model] = clean[model]["figures"]
            except (NothingToMeasure, InvalidSetting) as error:
                told["without_them"][model] = {"not_measured": str(error)}
    return told


def _write(
    out: Path,
    result: Evaluation,
    measured: MeasureSettings,
    described: Mapping[str, Any],
    more: Mapping[str, Any],
    with_hub_results: bool,
) -> None:
    from prmkit.report import write_evaluation

    write_run(out, result, more)
    write_evaluation(
        result,
        out / "report.html",
        protocol=measured.protocol,
        settings=_flat(described),
        notices=_notices(more),
    )
    if with_hub_results:
        revision = more["source"]["revision"]
        taken: set[str] = set()
        for model, text in hub_results(result, revision, f"prmkit {__version__}").items():
            safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in model)
            name = next(n for k in count(1) if (n := safe + f"-{k}" * (k > 1)) not in taken)
            taken.add(name)
            with atomic_text(out / "eval_results" / f"{name}.yaml") as file:
                file.write(text)


def _flat(described: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in described.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}: {inner}": one for inner, one in value.items()}
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    return flat


def _notices(more: Mapping[str, Any]) -> list[str]:
    found = more.get("contamination")
    if not found or not found["problems_seen"]:
        return []
    return [
        f"{found['problems_seen']} of {found['problems']} problems are among those that the model "
        "was trained on; metrics.json has the figures without them"
    ]


def _tell(result: Evaluation, out: Path, more: Mapping[str, Any]) -> None:
    known = result.benchmark
    for difference in result.differences:
        console.say(f"the data differ from the published ones: {difference}")
    for notice in _notices(more):
        console.say(notice)
    for name, model in result.models.items():
        shown = known.shown(list(model.figures))[:_SHOWN]
        rows: list[tuple[str, Any]] = [
            (key, interval(model.figures[key], known.scale, known.digits))
            for key in shown
            if key in model.figures
        ]
        rows += [("cases scored", model.scored), ("cases not scored", model.unscored)]
        console.out().print(console.figures(f"{known.title}: {console.safe(name)}", rows))
        for why, n in list(model.reasons.items())[:3]:
            console.say(f"not scored ({n}): {why}")
    console.err().print(Text(f"report: {out / 'report.html'}"))
