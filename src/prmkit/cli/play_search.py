"""``prm play --search``: each task is played by a search over the policy's actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from prmkit.cli.console import Bars, bars
from prmkit.cli.names import open_policy, open_scorer
from prmkit.cli.search_options import budget_given, options_given, say_preset
from prmkit.cli.sinks import sink
from prmkit.environments.catalogue import answer_of, answers_count
from prmkit.errors import InvalidSetting
from prmkit.records import Problem, Record
from prmkit.search import drive
from prmkit.search.acting import Acting, set_tasks
from prmkit.search.catalogue import PRESETS, UNSCORED, algorithm
from prmkit.search.settings import Budget, Choice, SearchSettings
from prmkit.search.tree import Cost, Node

if TYPE_CHECKING:
    from prmkit.cli.play import PlayRun
    from prmkit.cli.reward_model import RewardModel
    from prmkit.environments.base import MakeEnvironment, Task
    from prmkit.policies.base import Policy, SamplingSettings
    from prmkit.policies.settings import PolicySettings
    from prmkit.scorers.base import Scorer
    from prmkit.search.run import Algorithm


@dataclass(frozen=True, kw_only=True)
class PlaySearch:
    """How actions are searched, instead of playing episodes one beside the other.

    Attributes:
        search: algorithm that chooses actions, a step being a turn: greedy, best-of-n, majority,
            adaptive-self-consistency, beam, dvts, rebase, mcts, particle-filter, particle-gibbs,
            entropic-particle-filter, early-rejection or adaptive. Without a reward model there are
            greedy and, where tasks are solved by answers, majority and adaptive-self-consistency.
        n: with search, how many: episodes, turns of a level, particles or expansions, as the
            algorithm has it.
        set_: further options of the algorithm, NAME=VALUE; an unknown name lists those there are.
        budget: of each task, such as env_steps=60,calls=200: any of env_steps, policy_tokens,
            scorer_tokens, calls, seconds and dollars. Steps that are done again count.
        prices: dollars for a million tokens of prompts, of drawn ones, and of the scorer's.
        choice: of the episode: best, weighted, majority or algorithm; by default the best by score,
            and the majority where nothing is scored.
    """

    search: str | None = None
    n: int | None = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    budget: str | None = None
    prices: tuple[float, float, float] | None = None
    choice: Choice | None = None

    def check(self, run: PlayRun, how: RewardModel) -> None:
        """Refuse what has no meaning together.

        Raises:
            InvalidSetting: if something has not.
        """
        if self.search is None:
            if self != PlaySearch():
                raise InvalidSetting(
                    "n, set, budget, prices and choice have no meaning without an algorithm "
                    "(--search)"
                )
            return
        if run.demonstrate:
            raise InvalidSetting("with demonstrate the planner plays; nothing is searched")
        if run.samples != type(run).samples:
            raise InvalidSetting(
                "samples has no meaning with search: the algorithm says how many (--n)"
            )
        unscored = _name(self.search) in UNSCORED
        if how.model is None and not unscored:
            raise InvalidSetting(
                f"{self.search} needs scores; name a reward model (--model), or search with "
                f"{', '.join(sorted(UNSCORED))}"
            )
        if how.model is not None and unscored:
            raise InvalidSetting(f"{self.search} needs no scores; leave the reward model out")


def _name(search: str) -> str:
    return PRESETS[search].algorithm if search in PRESETS else search


class Searched(NamedTuple):
    """What plays by search, made before the run folder is claimed.

    Attributes:
        algorithm: that chooses.
        policy: who acts.
        scorer: who judges turns.
        settings: of drawing, scoring and choosing.
        budget: of each task.
        acting: where.
    """

    algorithm: Algorithm
    policy: Policy
    scorer: Scorer | None
    settings: SearchSettings
    budget: Budget
    acting: Acting


def opened(
    given: PlaySearch,
    run: PlayRun,
    make: MakeEnvironment,
    kinds: Sequence[str],
    speaker: PolicySettings,
    drawing: SamplingSettings,
    how: RewardModel,
) -> Searched:
    """All that a search needs.

    Raises:
        InvalidSetting: if an option is wrong, or answers are to be voted on and there are none.
    """
    assert given.search is not None
    algorithm_ = algorithm(given.search, **options_given(given.n, given.set_))
    votes = all(answers_count(run.env, kind) for kind in kinds)
    if not votes and (given.choice in ("weighted", "majority") or _votes(given.search)):
        raise InvalidSetting(
            f"tasks of {run.env} ({', '.join(kinds)}) are not solved by answers, so nothing can be "
            "voted on; choose the best by score (--search best-of-n or beam, --choice best)"
        )
    settings = _settings(given.search, given.choice, run, drawing, scored=how.model is not None)
    acting = Acting(
        make=make,
        max_steps=run.max_steps,
        threads=run.threads,
        answer=answer_of if votes else None,
    )
    budget = budget_given(given.budget, given.prices)
    policy, _ = open_policy(speaker)
    scorer = None if how.model is None else open_scorer(how.settings(speaker.device))
    return Searched(algorithm_, policy, scorer, settings, budget, acting)


def _settings(
    name: str, choice: Choice | None, run: PlayRun, drawing: SamplingSettings, *, scored: bool
) -> SearchSettings:
    """How is drawn and chosen; what was not given is the preset's, where the search is one."""
    usual = type(drawing)()
    given = {
        "temperature": drawing.temperature != usual.temperature,
        "max_step_tokens": drawing.max_new_tokens != usual.max_new_tokens,
        "aggregation": run.aggregate != type(run).aggregate,
        "choice": choice is not None,
    }
    # What else a preset sets, such as tokens of a solution, has no meaning in an environment.
    preset = PRESETS[name].settings if name in PRESETS else {}
    of_preset = {field: preset[field] for field in given if field in preset and not given[field]}
    say_preset(name, of_preset)
    settings = SearchSettings(
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        max_step_tokens=drawing.max_new_tokens,
        step_stop=drawing.stop,
        aggregation=run.aggregate,
        choice=choice or ("best" if scored else "weighted"),
        answers="text",
        seed=run.seed,
    )
    return replace(settings, **of_preset)


def _votes(search: str) -> bool:
    return _name(search) in ("majority", "adaptive-self-consistency", "adaptive")


class Chosen(NamedTuple):
    """What counts of a task that was searched.

    Attributes:
        correct: whether the chosen episode solved it; None where that is not known, as it is where
            something failed and no episode was there to choose.
        any_correct: whether some candidate did.
        candidates: episodes that ended.
        cost: paid.
        ended: why the search did.
        not_drawn: turns that failed, and why.
    """

    correct: bool | None
    any_correct: bool
    candidates: int
    cost: Cost
    ended: str
    not_drawn: tuple[str, ...]


def play_by_search(
    searched: Searched, run: PlayRun, tasks: Sequence[Task], *, quiet: bool
) -> tuple[list[Chosen], list[str]]:
    """Play all tasks, and write their episodes; what counts of each, and why some failed."""
    failures: list[str] = []
    found: list[Chosen] = []
    problems = set_tasks(searched.acting.make, tasks, lambda problem, error: failures.append(error))
    with bars(quiet=quiet) as progress, sink(run.out / "records.jsonl") as put:
        for one in _searches(searched, run, problems):
            for record in _episodes(one, searched):
                put(record)
            found.append(_chosen(one))
            _tell(progress, found, len(tasks))
    failures += [one.not_drawn[0] for one in found if one.correct is None and one.not_drawn]
    return found, failures


def _searches(
    searched: Searched, run: PlayRun, problems: Iterator[Problem]
) -> Iterator[drive.Found]:
    return drive.search(
        problems,
        searched.algorithm,
        searched.policy,
        searched.scorer,
        settings=searched.settings,
        budget=searched.budget,
        driving=drive.DriveSettings(in_flight=run.in_flight),
        acting=searched.acting,
        traces=run.out / "traces",
    )


def _chosen(one: drive.Found) -> Chosen:
    # No episode to hand in is a failure of the agent, unless something else failed.
    correct = one.correct if one.node is not None else (None if one.not_drawn else False)
    won = any(record.trajectory.correct is True for record in one.records)
    return Chosen(correct, won, len(one.records), one.cost, one.ended, one.not_drawn)


def _tell(progress: Bars, found: Sequence[Chosen], n: int) -> None:
    steps = sum(one.cost.steps_paid for one in found)
    known = [one.correct for one in found if one.correct is not None]
    note = f"{steps:,} environment steps"
    if known:
        note += f", {sum(known) / len(known):.3f} succeed"
    progress("play", len(found), n, note)


def _episodes(one: drive.Found, searched: Searched) -> Iterator[Record]:
    """The candidates; where no episode ended, the one that went furthest."""
    if one.records:
        yield from one.records
        return
    furthest = max(one.root.walk(), key=lambda node: node.n_steps)
    meta: dict[str, Any] = {"path": list(furthest.path), "ended": one.ended}
    trajectory = furthest.trajectory(searched.policy.name)
    failed = furthest.finish == "length" or not one.not_drawn
    told: dict[str, Any] = {"search": meta}
    if one.not_drawn:
        told["error"] = one.not_drawn[0]
    yield Record(
        trajectory=trajectory.model_copy(update={"correct": False if failed else None}),
        scores=_scores(furthest, searched.scorer),
        meta=told,
    )


def _scores(node: Node, scorer: Scorer | None) -> tuple[Any, ...]:
    return () if scorer is None else (node.scored(scorer.semantics, scorer.name),)


def metrics_of(
    searched: Searched, name: str, found: Sequence[Chosen], failures: Sequence[str]
) -> dict[str, Any]:
    """Success of the chosen episodes, and what they cost."""
    from prmkit.evaluation.episodes import Played, measure_episodes

    total = Cost()
    for one in found:
        total = total.plus(one.cost)
    judged = [one for one in found if one.correct is not None]
    metrics: dict[str, Any] = {
        "algorithm": name,
        "tasks": len(found),
        "episodes": sum(one.candidates for one in found),
        "succeeded": sum(one.correct is True for one in found),
        "tasks_not_judged": len(found) - len(judged),
    }
    for measure, values in (
        ("success", [one.correct for one in judged]),
        ("solved_by_any", [one.any_correct for one in judged]),
    ):
        if judged:
            of_tasks = [[Played(value, 0)] for value in values]
            interval = measure_episodes(of_tasks).success
            metrics[measure] = [round(value, 4) for value in interval]
    n = max(len(found), 1)
    metrics |= {
        "environment_steps": total.steps_paid,
        "replayed": total.replayed,
        "steps_of_a_task": round(total.steps_paid / n, 2),
        "replayed_of_a_task": round(total.replayed / n, 2),
        "completions": total.completions,
        "policy_tokens": total.policy_tokens,
        "scorings": total.scorings,
        "scorer_tokens": total.scorer_tokens,
        "without_an_end": sum(not one.candidates for one in found),
        "ended_by_budget": sum(one.ended == "budget" for one in found),
        "not_drawn": sum(len(one.not_drawn) for one in found),
        "not_played": len(failures),
        "choice": searched.settings.choice,
    }
    return metrics | (
        {} if searched.scorer is None else {"aggregate": searched.settings.aggregation}
    )
