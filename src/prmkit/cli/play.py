"""``prm play``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import KW_ONLY, asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.cli.console import DONE, INCOMPLETE, bars, figures, out, print_json, say
from prmkit.cli.episodes import GAMES, TurnScorer, chosen, in_chunks, planner
from prmkit.cli.names import open_policy
from prmkit.cli.play_search import PlaySearch, Searched, metrics_of, opened, play_by_search
from prmkit.cli.reward_model import RewardModel
from prmkit.cli.sinks import Put, sink
from prmkit.environments.base import Planner, Task, demonstrate
from prmkit.environments.catalogue import answer_of, answers_count
from prmkit.environments.playing import Episode, EpisodeSettings
from prmkit.environments.rollout import rollout, unbegun
from prmkit.errors import EnvironmentFailed, InvalidSetting
from prmkit.files import write_json
from prmkit.formats.files import read_records
from prmkit.ledger import Ledger, run_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.settings import PolicySettings
from prmkit.records import Record, Scored, StepScores, Trajectory
from prmkit.report.episodes import write_episodes
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.environments.base import MakeEnvironment
    from prmkit.evaluation.episodes import Played
    from prmkit.policies.base import Policy


@dataclass(frozen=True)
class PlayRun:
    """What is played, how often, and where it goes.

    Attributes:
        env: crafting, tools, babyai, babyai-words or textworld; or agentgym:KIND=URL,
            openenv=URL, gymnasium:ID (docs/agents.md).
        out: the run folder: config.json, records.jsonl (the episodes, turns with what they were
            answered), metrics.json, report.html.
        task: a kind of the environment's tasks, by name; give it once per kind. An unknown name
            lists those there are; by default the first.
        seeds: of each kind: how many, such as 20 (0 to 19), or which, such as 100-119.
        limit: tasks at most; 0 for all.
        samples: episodes of each task; with search, see --n.
        max_steps: turns of an episode; one that has not ended by then has failed at its task.
        demonstrate: the environment's own planner plays, instead of a policy: one episode a task,
            whose turns are actions alone.
        aggregate: scores of turns to one number of an episode, by which the best is chosen.
        in_flight: episodes under way at a time; they share calls of the policy.
        threads: environments that do something at once.
        games: folder in which TextWorld's games are kept.
        seed: of everything that is drawn.
        resume: go on with what the run folder holds; --no-resume begins anew.
    """

    env: str
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/play")
    task: Annotated[tuple[str, ...], Parameter(name="--task")] = ()
    seeds: str = "10"
    limit: int = 0
    samples: int = 4
    max_steps: int = 20
    demonstrate: bool = False
    aggregate: Aggregation = "last"
    in_flight: int = 32
    threads: int = 1
    games: Path = GAMES
    seed: int = 0
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True

    def __post_init__(self) -> None:
        at_least(0, limit=self.limit)
        at_least(1, samples=self.samples)
        EpisodeSettings(max_steps=self.max_steps, in_flight=self.in_flight, threads=self.threads)


_FREE = ("out", "resume", "in_flight", "threads", "games")
"""Settings that an interrupted run may be given otherwise: no episode depends on them."""


class _Player(NamedTuple):
    """Who plays.

    Attributes:
        name: of who.
        about: what the episodes depend on.
        policy: None where the planner plays.
        planner: None where a policy plays.
    """

    name: str
    about: dict[str, Any]
    policy: Policy | None = None
    planner: Planner | None = None


def play(
    run: Annotated[PlayRun, Parameter(name="*")],
    *,
    speaker: Annotated[PolicySettings | None, Parameter(name="*")] = None,
    drawing: Annotated[SamplingSettings | None, Parameter(name="*")] = None,
    how: Annotated[RewardModel | None, Parameter(name="*")] = None,
    searching: Annotated[PlaySearch | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Play episodes of an environment, by a policy or by the environment's own planner.

    With a reward model each turn is scored, and the metrics say what choosing the best scored
    episode is worth at equal environment steps. With --search each task is played by a search that
    chooses actions by these scores. Interrupted, it goes on where it was when it is
    given again.

    Args:
        json: print the metrics as JSON.
    """
    speaker, drawing = speaker or PolicySettings(), drawing or SamplingSettings()
    how, searching = how or RewardModel(), searching or PlaySearch()
    searching.check(run, how)
    _check(run, speaker, drawing, how)
    make, kinds = chosen(run.env, run.games, run.task)
    tasks = [Task(seed, kind) for kind in kinds for seed in seeds_of(run.seeds)]
    tasks = tasks[: run.limit or None]
    described = {**{k: v for k, v in asdict(run).items() if k not in _FREE}, "task": kinds}
    described |= {**asdict(drawing), "policy": speaker.policy, "tokenizer": speaker.tokenizer}
    described["scorer"] = how.described
    if searching.search is not None:
        del described["samples"]
        told = asdict(searching)
        described["set"] = list(told.pop("set_"))
        described |= told
        # Nothing that could have been refused claims the folder.
        searched = opened(searching, run, make, kinds, speaker, drawing, how)
        return _play_by_search(run, searching.search, searched, tasks, described, json)
    player = _player(run, make, speaker, drawing)
    scorer = None if how.model is None else TurnScorer(how.settings(speaker.device), run.out)
    with run_folder(run.out, described, resume=run.resume), ExitStack() as stack:
        if player.planner is not None:
            stack.callback(player.planner.close)
        if scorer is not None:
            stack.enter_context(scorer)
        found = stack.enter_context(
            closing(_Found(run, tasks, make, player, drawing, scorer, quiet=json))
        )
        groups, failures = found.written(run.out / "records.jsonl")
        metrics = _metrics(run, kinds, groups, scored=scorer is not None)
        metrics["not_played"] = len(failures)
        _write(run, f"{run.env}, played by {player.name}", metrics, described)
    _tell(run, metrics, failures, json)
    return INCOMPLETE if failures else DONE


def _write(run: PlayRun, title: str, metrics: dict[str, Any], described: dict[str, Any]) -> None:
    """The figures and the page of episodes that are written."""
    write_json(run.out / "metrics.json", metrics)
    write_episodes(
        run.out / "report.html",
        read_records(run.out / "records.jsonl"),
        title=title,
        metrics=metrics,
        # That of a preset, where there is one.
        aggregation=metrics.get("aggregate", run.aggregate),
        settings=described,
    )


def _play_by_search(
    run: PlayRun,
    name: str,
    searched: Searched,
    tasks: Sequence[Task],
    described: dict[str, Any],
    json: bool,
) -> int:
    with run_folder(run.out, described, resume=run.resume):
        found, failures = play_by_search(searched, run, tasks, quiet=json)
        metrics = metrics_of(searched, name, found, failures)
        _write(run, f"{run.env}, {searched.policy.name} by {name}", metrics, described)
    _tell(run, metrics, failures, json)
    return INCOMPLETE if failures or metrics["not_drawn"] else DONE


def _check(
    run: PlayRun, speaker: PolicySettings, drawing: SamplingSettings, how: RewardModel
) -> None:
    """Refuse what has no meaning together, before any work."""
    how.check()
    if how.model is None and run.aggregate != PlayRun.aggregate:
        raise InvalidSetting("aggregate has no meaning without a reward model (--model)")
    if not run.demonstrate:
        return
    if speaker != PolicySettings() or drawing != SamplingSettings():
        raise InvalidSetting("with demonstrate no policy plays; leave out its options")
    for name in ("samples", "max_steps", "in_flight", "threads", "seed"):
        if getattr(run, name) != getattr(PlayRun, name):
            raise InvalidSetting(
                f"{name} has no meaning with demonstrate: the planner plays each task once, to "
                "its end, and always in the same way"
            )


def seeds_of(text: str) -> range:
    """The seeds that are meant: ``20`` is 0 to 19, ``100-119`` are these twenty.

    Raises:
        InvalidSetting: if it is neither.
    """
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last) + 1) if dash else range(int(first))
    except ValueError:
        found = range(0)
    if not found:
        raise InvalidSetting(
            f"seeds is {text!r}; give how many, such as 20, or from which to which, such as 100-119"
        )
    return found


def _player(
    run: PlayRun, make: MakeEnvironment, speaker: PolicySettings, drawing: SamplingSettings
) -> _Player:
    told = {"env": run.env, "max_steps": run.max_steps, "seed": run.seed}
    if run.demonstrate:
        return _Player("its planner", {**told, "planner": True}, None, planner(make, run.env))
    policy, about = open_policy(speaker)
    return _Player(policy.name, {**told, **about, **asdict(drawing)}, policy)


class _Found:
    """The episodes of all tasks, as they come: written, counted, and shown."""

    def __init__(
        self,
        run: PlayRun,
        tasks: Sequence[Task],
        make: MakeEnvironment,
        player: _Player,
        drawing: SamplingSettings,
        scorer: TurnScorer | None,
        *,
        quiet: bool,
    ):
        self._run, self._tasks, self._make, self._player = run, tasks, make, player
        self._drawing, self._scorer, self._quiet = drawing, scorer, quiet
        # A planner does the same each time.
        self._n = 1 if run.demonstrate else run.samples
        self._done = self._steps = self._known = self._won = 0
        self._stack = ExitStack()

    def close(self) -> None:
        """Stop what is under way."""
        self._stack.close()

    def written(self, file: Path) -> tuple[list[list[Played]], list[str]]:
        """Play all, and write the episodes; what counts of each task's, and why some failed."""
        groups: list[list[Played]] = []
        ledger = self._stack.enter_context(
            Ledger(self._run.out / "ledger.sqlite", self._player.about)
        )
        self._progress = self._stack.enter_context(bars(quiet=self._quiet))
        episodes = self._stack.enter_context(closing(self._episodes(ledger)))
        failures: list[str] = []
        with sink(file) as put:
            for chunk in in_chunks(map(self._seen, episodes), self._n):
                groups += self._put(chunk, put)
                failures += [one.error for one in chain(*chunk) if one.error is not None]
        return groups, failures

    def _episodes(self, ledger: Ledger) -> Generator[tuple[Episode, ...], None, None]:
        if self._player.planner is not None:
            for task in self._tasks:
                yield (_demonstrated(self._player.planner, task, ledger),)
                self._told(1)
            return
        assert self._player.policy is not None
        run = self._run
        yield from rollout(
            self._player.policy,
            self._make,
            self._tasks,
            run.samples,
            sampling=self._drawing,
            settings=EpisodeSettings(
                max_steps=run.max_steps, in_flight=run.in_flight, threads=run.threads
            ),
            seed=run.seed,
            ledger=ledger,
            on_progress=self._told,
            on_error=lambda problem, error: None,
        )

    def _told(self, more: int) -> None:
        self._done += more
        note = f"{self._steps:,} environment steps"
        if self._known:
            note += f", {self._won / self._known:.3f} succeed"
        self._progress("play", self._done, len(self._tasks) * self._n, note)

    def _seen(self, group: tuple[Episode, ...]) -> tuple[Episode, ...]:
        for episode in group:
            self._steps += len(episode.trajectory.steps)
            self._known += episode.trajectory.correct is not None
            self._won += episode.trajectory.correct is True
        self._told(0)
        return group

    def _put(self, chunk: Sequence[Sequence[Episode]], put: Put) -> list[list[Played]]:
        """Score some tasks' episodes together, and write them."""
        every = [_answering(episode) for group in chunk for episode in group]
        scores: list[tuple[Scored, ...]] = [()] * len(every)
        if self._scorer is not None:
            scores = [(one,) for one in self._scorer.score([r.trajectory for r in every])]
        records = iter(zip(every, scores, strict=True))
        counted: list[list[Played]] = []
        for group in chunk:
            counted.append([])
            for _ in group:
                record, of_it = next(records)
                put(record.replace(scores=of_it))
                counted[-1].append(_played(record.trajectory, of_it, self._run.aggregate))
        return counted


def _demonstrated(planner: Planner, task: Task, ledger: Ledger) -> Episode:
    """The planner's episode; one for which it knows no way is none."""
    key = f"demonstration/{task.name}/{task.seed}"
    stored = ledger.get(key)
    if stored is not None:
        return Episode(Trajectory.model_validate_json(stored))
    try:
        shown = demonstrate(planner, task)
    except EnvironmentFailed as error:
        return Episode(Trajectory(problem=unbegun(task), finish="error"), (), str(error))
    ledger.put({key: shown.model_dump_json()})
    return Episode(shown)


def _answering(episode: Episode) -> Record:
    """An episode's record, with its answer where answers count."""
    record = episode.record
    answer = answer_of(record.trajectory)
    return record.replace(trajectory=record.trajectory.model_copy(update={"answer": answer}))


def _played(trajectory: Trajectory, scores: Sequence[Scored], how: Aggregation) -> Played:
    from prmkit.evaluation.episodes import Played

    score = None
    for scored in scores:
        if isinstance(scored, StepScores) and scored.values:
            score = aggregate_scores(scored, how)
    return Played(trajectory.correct, len(trajectory.steps), score, trajectory.answer)


def _metrics(
    run: PlayRun, kinds: Sequence[str], groups: Sequence[Sequence[Played]], *, scored: bool
) -> dict[str, Any]:
    """Success and cost; with scores, what choosing by them is worth."""
    from prmkit.evaluation.episodes import measure_episodes

    every = list(chain(*groups))
    known = [one for one in every if one.correct is not None]
    steps = sum(one.steps for one in every)
    metrics: dict[str, Any] = {
        "tasks": len(groups),
        "episodes": len(every),
        "succeeded": sum(bool(one.correct) for one in known),
        "environment_steps": steps,
        "steps_of_an_episode": round(steps / len(every), 2),
    }
    judged = [group for group in groups if all(one.correct is not None for one in group)]
    metrics["tasks_not_judged"] = len(groups) - len(judged)
    if judged:
        votes = all(answers_count(run.env, kind) for kind in kinds)
        metrics |= measure_episodes(judged, votes=votes).metrics()
    if scored:
        metrics["aggregate"] = run.aggregate
        metrics["unscored"] = sum(one.score is None for one in every)
    metrics["without_a_turn"] = sum(not one.steps for one in known)
    return metrics


def _tell(run: PlayRun, metrics: dict[str, Any], failures: Sequence[str], json: bool) -> None:
    if failures:
        say(
            f"{len(failures)} episodes could not be played ({failures[0]:.300}). Given again, "
            "the command tries them again"
        )
    if metrics.get("without_a_turn"):
        say(
            f"{metrics['without_a_turn']} episodes ended before their first turn: their tasks are "
            "longer than the policy can read"
        )
    if json:
        print_json({**metrics, "out": str(run.out)})
        return
    rows = [(name, _shown(value)) for name, value in metrics.items() if name != "at"]
    for at in metrics.get("at", ())[-1:]:
        names = ("best", "majority", "solved_by_any")
        rows += [(f"{name} of {at['n']}", _shown(at[name])) for name in names if name in at]
        rows.append(("environment steps for them", at["environment_steps"]))
    out().print(figures("prm play", rows))
    say(f"report: {run.out / 'report.html'}")


def _shown(value: Any) -> Any:
    """An interval as it is read."""
    if isinstance(value, list):
        return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"
    return value
