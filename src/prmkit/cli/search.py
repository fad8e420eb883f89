"""``prm search``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, Bars, bars, figures, out, print_json, say
from prmkit.cli.names import distinct_problems, judge, open_policy, open_scorer
from prmkit.cli.reward_model import SearchModel
from prmkit.cli.search_options import budget_given, options_given, say_preset
from prmkit.cli.sinks import named_like, sink
from prmkit.embedded.world import Split, problems
from prmkit.errors import NothingToMeasure
from prmkit.files import write_json
from prmkit.formats.files import read_records
from prmkit.ledger import run_folder
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem
from prmkit.report.search import write_search
from prmkit.search import drive
from prmkit.search.catalogue import PRESETS, UNSCORED, algorithm, with_preset
from prmkit.search.drive import DriveSettings, Found
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.tree import Cost, Node
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.policies.base import Policy
    from prmkit.scorers.base import Scorer
    from prmkit.search.run import Algorithm


@dataclass(frozen=True)
class SearchRun:
    """What is searched, by what, and where it goes.

    Attributes:
        file: problems, in any format that prm convert reads; by default the embedded world's.
        out: the run folder: config.json, records.jsonl (the candidates of each problem), traces,
            metrics.json, report.html.
        world: split of the embedded world, where no file is given: train, test or ood.
        limit: problems at most; 0 for all of a file (20 of the embedded world's).
        algorithm: greedy, best-of-n, majority, adaptive-self-consistency, beam, dvts, mcts,
            particle-filter, particle-gibbs, entropic-particle-filter, early-rejection, adaptive;
            or, as other libraries run them, sal-beam, sal-dvts, its-pf, rebase.
        n: how many: solutions, steps of a level, particles or expansions, as the algorithm has it.
        set_: further options of the algorithm, NAME=VALUE; an unknown name lists those there are.
        budget: of each problem, such as policy_tokens=2000,calls=50: any of policy_tokens,
            scorer_tokens, calls, seconds and dollars.
        prices: dollars for a million tokens of prompts, of drawn ones, and of the scorer's.
        in_flight: problems under way at a time; they share batches.
        overlap: policy and scorer work at the same time; with a server, its requests too.
        resume: go on with what the run folder holds; --no-resume begins anew.
        from_: format of the file; by default what its first rows say.
        replay: instead of a search: a trace, or the run folder of a search, whose candidates are
            chosen from again, with the model, aggregation and choice given.
    """

    file: Path | None = None
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/search")
    world: Split = "test"
    limit: int = 0
    algorithm: str = "beam"
    n: int | None = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    budget: str | None = None
    prices: tuple[float, float, float] | None = None
    in_flight: int = 16
    overlap: bool = False
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True
    from_: str | None = None
    replay: Path | None = None

    def __post_init__(self) -> None:
        at_least(0, limit=self.limit)
        at_least(1, in_flight=self.in_flight)


_FREE = ("out", "resume", "in_flight", "overlap")
"""Settings that an interrupted run may be given otherwise: what is found is the same."""


def search(
    run: Annotated[SearchRun | None, Parameter(name="*")] = None,
    *,
    speaker: Annotated[PolicySettings | None, Parameter(name="*")] = None,
    how: Annotated[SearchModel | None, Parameter(name="*")] = None,
    settings: Annotated[SearchSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Search solutions of problems, guided by step scores, within a budget.

    Interrupted, it goes on where it was when it is given again.

    Args:
        json: print the metrics as JSON.
    """
    run, speaker = run or SearchRun(), speaker or PolicySettings()
    how, settings = how or SearchModel(), settings or SearchSettings()
    if run.replay is not None:
        from prmkit.cli.replaying import replayed

        return replayed(run, how.settings(speaker.device), settings, json)
    items = _problems(run)
    settings, of_preset = with_preset(run.algorithm, _for_world(items, settings))
    say_preset(run.algorithm, of_preset)
    chosen = algorithm(run.algorithm, **options_given(run.n, run.set_))
    limits = budget_given(run.budget, run.prices)
    described = {
        **{k: v for k, v in asdict(run).items() if k not in _FREE},
        **asdict(settings),
        "policy": speaker.policy,
        "tokenizer": speaker.tokenizer,
        "scorer": how.described,
    }
    # Nothing that could have been refused claims the folder.
    policy, _ = open_policy(speaker)
    name = PRESETS[run.algorithm].algorithm if run.algorithm in PRESETS else run.algorithm
    scorer = None if name in UNSCORED else open_scorer(how.settings(speaker.device))
    with run_folder(run.out, described, resume=run.resume), bars(quiet=json) as progress:
        driving = DriveSettings(
            in_flight=run.in_flight,
            overlap=run.overlap,
            threads=speaker.concurrency if run.overlap and speaker.server is not None else 1,
        )
        found = _searched(
            items,
            partial(_search, chosen, policy, scorer, settings, limits, driving),
            run,
            progress,
        )
    metrics = {**metrics_of(found), "algorithm": run.algorithm}
    write_json(run.out / "metrics.json", metrics)
    write_search(
        run.out / "report.html", run.out, judge(), title=f"{run.algorithm} of {policy.name}"
    )
    reasons = [reason for one in found for reason in one.not_drawn]
    if reasons:
        say(
            f"{len(reasons)} pieces could not be drawn ({reasons[0]}); the search went on without "
            "them. Given again, it asks for them again"
        )
    if json:
        print_json({**metrics, "out": str(run.out)})
    else:
        out().print(figures("prm search", list(metrics.items())))
        say(f"report: {run.out / 'report.html'}")
    return INCOMPLETE if metrics["without_a_solution"] else DONE


def _search(
    chosen: Algorithm,
    policy: Policy,
    scorer: Scorer | None,
    settings: SearchSettings,
    limits: Budget,
    driving: DriveSettings,
    items: Sequence[Problem],
    folder: Path,
) -> Iterator[Found]:
    return drive.search(
        items,
        chosen,
        policy,
        scorer,
        settings=settings,
        budget=limits,
        driving=driving,
        judge=judge(),
        traces=folder / "traces",
    )


def _searched(
    items: Sequence[Problem],
    begin: Callable[[Sequence[Problem], Path], Iterator[Found]],
    run: SearchRun,
    progress: Bars,
) -> list[Found]:
    """All problems, with their candidates written as they come."""
    found: list[Found] = []
    tokens, right, judged = 0, 0, 0
    with sink(named_like(run.out, "records", run.file)) as put:
        for one in begin(items, run.out):
            for record in one.records:
                put(record)
            tokens += one.cost.tokens
            judged += one.correct is not None
            right += bool(one.correct)
            # The trees are in the traces.
            found.append(one._replace(root=Node(one.problem), candidates=(), records=()))
            note = f"{tokens} tokens" + (f", {right / judged:.3f} right" if judged else "")
            progress("search", len(found), len(items), note)
    return found


def metrics_of(found: Sequence[Found]) -> dict[str, Any]:
    """Accuracy and cost of some searches; what could not be judged, or drawn, is counted apart."""
    judged = [one for one in found if one.correct is not None]
    without = sum(one.node is None for one in found)
    # Where a reference is there, no answer is a wrong one.
    wrong = sum(one.node is None and one.problem.answer is not None for one in found)
    total = Cost()
    for one in found:
        total = total.plus(one.cost)
    n = len(judged) + wrong
    return {
        "problems": len(found),
        "right": round(sum(bool(one.correct) for one in judged) / n, 4) if n else None,
        "not_judged": len(found) - n,
        "without_a_solution": without,
        "not_drawn": sum(len(one.not_drawn) for one in found),
        "ended_by_budget": sum(one.ended == "budget" for one in found),
        **{k: v for k, v in total._asdict().items() if k not in ("env_steps", "replayed")},
        "seconds": round(sum(one.seconds for one in found), 1),
    }


def _problems(run: SearchRun) -> list[Problem]:
    if run.file is None:
        return list(problems(run.world, run.limit or 20))
    items = distinct_problems(read_records(run.file, run.from_), run.file)
    found = items[: run.limit] if run.limit else items
    if not found:
        raise NothingToMeasure(f"{run.file} holds no problem")
    return found


def _for_world(items: Sequence[Problem], settings: SearchSettings) -> SearchSettings:
    """Solutions of the embedded world are lines."""
    if settings.split is None and all("world" in problem.meta for problem in items):
        return replace(settings, split="line")
    return settings
