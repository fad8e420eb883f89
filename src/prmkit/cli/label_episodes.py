"""How ``prm label`` labels the turns of agents: in their environment, or by their outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from prmkit.cli.console import bars
from prmkit.cli.episodes import TOGETHER, AgentSettings, TurnScorer, chosen
from prmkit.cli.label import Job, Others, Source
from prmkit.cli.labelling import Bill, Labelled, Ran, Run, write
from prmkit.cli.names import open_policy
from prmkit.cli.reward_model import RewardModel
from prmkit.environments.actions import turns_of
from prmkit.environments.base import MakeEnvironment, task_of
from prmkit.environments.catalogue import named
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import Continued, from_turns
from prmkit.errors import InvalidRecord, InvalidSetting
from prmkit.labelling.in_process import record_of
from prmkit.labelling.methods import RECORDED, task
from prmkit.labelling.monte_carlo import labels_of
from prmkit.labelling.promise_progress import counted_targets, temporal_targets
from prmkit.labelling.rollouts import Tally, is_finished
from prmkit.ledger import Ledger
from prmkit.policies.base import SamplingSettings
from prmkit.policies.settings import PolicySettings
from prmkit.records import Record, StepLabels, StepScores, Trajectory, Unscored

if TYPE_CHECKING:
    from prmkit.cli.console import Bars
    from prmkit.policies.base import Policy

_EPISODES = 16
"""Episodes whose turns are gone on from together."""


def check(job: Job) -> None:
    """Refuse what has no meaning together, before any work."""
    method, agents, settings = job.method, job.agents, job.settings
    if job.engine.engine == "ray":
        raise InvalidSetting("turns of agents are labelled in this process; leave out --engine")
    if settings.budget is not None or settings.budget_tokens is not None:
        raise InvalidSetting("budgets are of completions of texts; limit episodes with --limit")
    if agents.env is not None:
        _check_in_environment(job)
        return
    is_temporal = method.method == "temporal"
    if is_temporal and job.scorer.model is None:
        raise InvalidSetting("temporal needs the promises of a reward model: name it with --model")
    if not is_temporal and (job.scorer.model is not None or agents.lam != AgentSettings.lam):
        raise InvalidSetting("counted counts outcomes; lam and a reward model have no meaning")
    for name in ("max_steps", "threads", "games"):
        if getattr(agents, name) != getattr(AgentSettings, name):
            raise InvalidSetting(f"{name} has no meaning without --env")
    if job.speaker != PolicySettings(device=job.speaker.device) or (
        job.drawing != SamplingSettings() or settings.prices is not None
    ):
        raise InvalidSetting(
            f"{method.method} draws nothing: options of a policy and of how it draws have no "
            "meaning"
        )


def _check_in_environment(job: Job) -> None:
    method, agents = job.method, job.agents
    if method.method != "mc":
        without = "; leave out --env" if method.method in RECORDED else ""
        raise InvalidSetting(
            f"in an environment turns are labelled by mc, not by {method.method}{without}"
        )
    if method.stop_at_success or method.stop_at_error:
        raise InvalidSetting("in an environment all turns are gone on from, each as often")
    if (agents.gamma, agents.lam) != (AgentSettings.gamma, AgentSettings.lam):
        raise InvalidSetting("gamma and lam have no meaning with --env")
    if job.scorer != RewardModel():
        raise InvalidSetting("with --env outcomes are played for; leave out --model")
    if job.settings.prices is not None and job.speaker.server is None:
        raise InvalidSetting("prices have no meaning without a server: nobody is paid")
    task(method, job.omega)


def in_environment(job: Job, source: Source) -> Run:
    """Label by going on from each turn in its environment; the policy is loaded at once.

    Raises:
        InvalidRecord: if an episode is of another environment, or does not say of which task.
    """
    assert job.agents.env is not None
    make, _ = chosen(job.agents.env, job.agents.games)
    for record in source.records:
        problem = record.trajectory.problem
        if not record.trajectory.steps:
            continue
        task_of(problem)
        if problem.meta.get("environment") != named(job.agents.env):
            raise InvalidRecord(
                f"problem {problem.id!r} is of the environment "
                f"{problem.meta.get('environment')!r}, not of {named(job.agents.env)!r}, as its "
                "meta has it"
            )
    policy, about = open_policy(job.speaker)
    return partial(_in_environment, job, make, policy, about)


def _in_environment(
    job: Job,
    make: MakeEnvironment,
    policy: Policy,
    about: dict[str, Any],
    source: Source,
    others: Others,
    *,
    quiet: bool,
) -> Ran:
    records = list(source.records)
    agents = job.agents
    told = {"env": agents.env, "max_steps": agents.max_steps, "seed": job.settings.seed}
    place = job.settings.out / "ledger.sqlite"
    bill = Bill(policy, job.settings.prices)
    with (
        Ledger(place, {**about, **told, **asdict(job.drawing)}) as ledger,
        bars(quiet=quiet) as progress,
    ):
        before = len(ledger)
        turns = _Turns(job, make, policy, ledger, progress, len(records))
        labelled = Labelled(turns.labelled(records))
        metrics: dict[str, Any] = {"episodes": len(records) + len(source.sure)}
        metrics |= write(labelled, source.sure, others, job)
        drawn = len(ledger) - before
    metrics |= {"rollouts": turns.rollouts, "environment_steps": turns.steps}
    metrics |= labelled.told(job)
    return metrics, {
        "rollouts_this_time": drawn,
        "replayed_steps_this_time": turns.replayed,
        **bill.told(),
    }


class _Turns:
    """Goes on from the turns of episodes, and counts what that costs."""

    def __init__(
        self,
        job: Job,
        make: MakeEnvironment,
        policy: Policy,
        ledger: Ledger,
        progress: Bars,
        total: int,
    ):
        self._job, self._make, self._policy, self._ledger = job, make, policy, ledger
        self._progress, self._total = progress, total
        self._done = 0
        self.rollouts = self.steps = self.replayed = 0

    def labelled(self, records: Sequence[Record]) -> Iterator[tuple[Record, list[Record]]]:
        """Each record with the one that comes of it, in order."""
        for at in range(0, len(records), _EPISODES):
            some = records[at : at + _EPISODES]
            # Episodes of a task may begin alike; a beginning is gone on from once.
            prefixes = {p.key: p for record in some for p in _asked(record.trajectory)}
            found = dict(zip(prefixes, self._go_on([*prefixes.values()]), strict=True))
            for record in some:
                yield record, [self._with_labels(record, found)]
                self._done += 1
                self._told(0)

    def _go_on(self, prefixes: Sequence[Trajectory]) -> list[Continued]:
        job = self._job
        if not prefixes:
            return []
        played = from_turns(
            self._policy,
            self._make,
            prefixes,
            job.method.rollouts,
            sampling=job.drawing,
            settings=EpisodeSettings(
                max_steps=job.agents.max_steps,
                in_flight=job.settings.in_flight,
                threads=job.agents.threads,
            ),
            seed=job.settings.seed,
            ledger=self._ledger,
            on_progress=self._told,
            on_error=lambda problem, error: None,
        )
        self.steps += sum(one.steps for one in played)
        self.replayed += sum(one.replayed for one in played)
        return played

    def _told(self, more: int) -> None:
        self.rollouts += more
        note = f"{self.rollouts:,} rollouts, {self.steps:,} environment steps"
        self._progress("label", self._done, self._total, note)

    def _with_labels(self, record: Record, found: dict[str, Continued]) -> Record:
        trajectory, method = record.trajectory, self._job.method
        own = [found[prefix.key] for prefix in _asked(trajectory)]
        tallies = [Tally(one.successes, one.trials) for one in own]
        if len(tallies) < len(trajectory.steps):
            tallies.append(Tally(int(bool(trajectory.correct)), 1))
        failures = [e.error for one in own for e in one.episodes if e.error is not None]
        if failures:
            told = {"n": len(failures), "reason": failures[0]}
            record = record.replace(meta={**record.meta, "failed_rollouts": told})
        source = f"monte_carlo in {self._job.agents.env}, {method.rollouts} rollouts"
        source += f", eta {method.eta:g}" if method.eta else ""
        return record.replace(labels=labels_of(tallies, method.kind, source, method.eta))


def _asked(trajectory: Trajectory) -> list[Trajectory]:
    """The prefixes that are gone on from: not the last one of an episode that ended."""
    n = len(trajectory.steps) - is_finished(trajectory)
    return [trajectory.prefix(i + 1) for i in range(n)]


def of_recorded(job: Job) -> Run:
    """Label by the outcomes of episodes alone; a model is loaded at once."""
    if job.method.method == "counted":
        return partial(_of_recorded, job, None)
    scorer = TurnScorer(job.scorer.settings(job.speaker.device), job.settings.out)
    return partial(_of_recorded, job, scorer)


def _of_recorded(
    job: Job, scorer: TurnScorer | None, source: Source, others: Others, *, quiet: bool
) -> Ran:
    records = list(source.records)
    metrics: dict[str, Any] = {"episodes": len(records) + len(source.sure)}
    if scorer is None:
        metrics |= write(_counted(records, job.agents), source.sure, others, job)
        return metrics, {}
    with scorer, bars(quiet=quiet) as progress:
        labelled = _temporal(records, scorer, job.agents, progress)
        metrics |= write(labelled, source.sure, others, job)
    return metrics, {}


def _counted(records: Sequence[Record], agents: AgentSettings) -> Iterator[Record]:
    known = [r.trajectory for r in records if r.trajectory.correct is not None]
    episodes = [(situations(one), float(bool(one.correct))) for one in known]
    values = iter(counted_targets(episodes, gamma=agents.gamma))
    turns = iter(turns for turns, _ in episodes)
    trials = Counter(turn for turns_of, _ in episodes for turn in turns_of)
    successes = Counter(turn for turns_of, won in episodes if won for turn in turns_of)
    for record in records:
        if record.trajectory.correct is None:
            yield record_of(record, Unscored(reason="its outcome is not known"))
            continue
        own = next(turns)
        labels = StepLabels(
            values=tuple(next(values)),
            kind="soft",
            successes=tuple(successes[turn] for turn in own),
            trials=tuple(trials[turn] for turn in own),
            source=f"counted, gamma {agents.gamma:g}",
        )
        yield record.replace(labels=labels)


def situations(trajectory: Trajectory) -> list[str]:
    """What names situation and action of each turn, see `prmkit.environments.actions.Turn`."""
    return [turn.done for turn in turns_of(trajectory)]


def _temporal(
    records: Sequence[Record], scorer: TurnScorer, agents: AgentSettings, progress: Bars
) -> Iterator[Record]:
    for at in range(0, len(records), TOGETHER):
        some = records[at : at + TOGETHER]
        scores = scorer.score([record.trajectory for record in some])
        for record, scored in zip(some, scores, strict=True):
            yield record_of(record, _targets(record.trajectory, scored, agents))
        progress("label", at + len(some), len(records))


def _targets(
    trajectory: Trajectory, scored: StepScores | Unscored, agents: AgentSettings
) -> StepLabels | Unscored:
    if isinstance(scored, Unscored):
        return scored
    if trajectory.correct is None:
        return Unscored(reason="its outcome is not known")
    if scored.semantics not in ("value", "correctness"):
        raise InvalidSetting(
            f"{scored.model} gives {scored.semantics} scores, and temporal differences are of "
            "promises: name a model of values"
        )
    # A model of values may leave the range of outcomes a little.
    promises = [min(max(value, 0.0), 1.0) for value in scored.values]
    targets = temporal_targets(
        promises, float(trajectory.correct), gamma=agents.gamma, lam=agents.lam
    )
    return StepLabels(
        values=tuple(targets),
        kind="soft",
        source=f"temporal, {scored.model}, gamma {agents.gamma:g}, lambda {agents.lam:g}",
    )
