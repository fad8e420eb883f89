"""Episodes of a policy in an environment: whole ones, and from any turn of one that was played.

`rollout` plays tasks from the beginning. `from_turns` is the Monte Carlo that agents need: it goes
back to the state after a prefix, by a snapshot where the environment has one and by doing the same
again where not, and lets the policy go on from there.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

from prmkit.environments.actions import Extract, action_of
from prmkit.environments.base import (
    Environment,
    MakeEnvironment,
    Reply,
    Task,
    guarded,
    task_of,
)
from prmkit.environments.playing import Beginning, Episode, EpisodeSettings, Live, Pool, play
from prmkit.errors import EnvironmentFailed
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.records import Problem, Trajectory
from prmkit.settings import at_least

logger = logging.getLogger(__name__)

SEPARATOR = "\n"
"""Between the steps of an episode, where they are read as one text."""

TASKS_KNOWN = 8
"""Tasks whose states are remembered at once."""

_STORED = TypeAdapter(Episode)

OnError = Callable[[Problem, str], None]


def rollout(
    policy: Policy,
    make: MakeEnvironment,
    tasks: Sequence[Task],
    n: int,
    *,
    sampling: SamplingSettings,
    settings: EpisodeSettings | None = None,
    extract: Extract = action_of,
    seed: int = 0,
    ledger: Ledger | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_error: OnError | None = None,
) -> Iterator[tuple[Episode, ...]]:
    """Play `n` episodes of each task.

    Args:
        policy: who acts.
        make: makes an environment; each episode under way has one of its own.
        tasks: what is to be done; each once.
        n: episodes of each.
        sampling: how the policy draws each turn.
        settings: how long, and how many at once.
        extract: from what the policy wrote to its action.
        seed: an episode draws from a seed of its own, made from this one, its task and its number;
            so it does not depend on what else is under way.
        ledger: where episodes are noted when they end, and found again on resuming.
        on_progress: told the episodes that ended since the last call.
        on_error: told of each episode that could not be played, with the reason; by default that
            is logged.

    Yields:
        The episodes of one task, in the order of the tasks. One that could not be played has the
        finish ``error`` and is not noted in the ledger, so that it is tried again on resuming.

    Raises:
        UnknownName: if the environment knows no such kind of task.
        ValueError: if a task comes twice.
    """
    at_least(1, n=n)
    if len(set(tasks)) < len(tasks):
        raise ValueError("a task comes twice; ask for more episodes of it with n")
    jobs = [
        _Job(_key(task, number), unbegun(task), _from_start(task))
        for task in tasks
        for number in range(n)
    ]
    pool = Pool(make)
    playing = _Playing(policy, pool, extract, sampling, settings or EpisodeSettings(), seed)
    waiting: dict[int, Episode] = {}
    done = 0
    try:
        for place, episode in playing.episodes(jobs, ledger, on_progress, on_error):
            waiting[place] = episode
            while all(done * n + number in waiting for number in range(n)) and done < len(tasks):
                yield tuple(waiting.pop(done * n + number) for number in range(n))
                done += 1
    finally:
        pool.close()


def episode_seed(seed: int, task: Task, number: int) -> int:
    """By which `rollout` with a seed plays the episode of a number of a task."""
    return seed_for(seed, _key(task, number))


def _key(task: Task, number: int) -> str:
    return f"{task.name}/{task.seed}/{number}"


class Continued(NamedTuple):
    """Episodes that go on from a prefix.

    Attributes:
        episodes: one per continuation; their trajectories begin with the prefix.
        replayed: steps of the environment that were paid just to come to the prefix's end; none
            where a snapshot was there.
    """

    episodes: tuple[Episode, ...]
    replayed: int

    @property
    def steps(self) -> int:
        """Steps of the environment that the continuations themselves took."""
        return sum(len(episode.rewards) for episode in self.episodes)

    @property
    def trials(self) -> int:
        """Continuations of which it is known whether they succeeded."""
        return sum(episode.trajectory.correct is not None for episode in self.episodes)

    @property
    def successes(self) -> int:
        """Those that did."""
        return sum(episode.trajectory.correct is True for episode in self.episodes)


def from_turns(
    policy: Policy,
    make: MakeEnvironment,
    prefixes: Sequence[Trajectory],
    n: int,
    *,
    sampling: SamplingSettings,
    settings: EpisodeSettings | None = None,
    extract: Extract = action_of,
    seed: int = 0,
    first: int = 0,
    ledger: Ledger | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_error: OnError | None = None,
) -> list[Continued]:
    """Go on `n` times from the end of each prefix.

    Prefixes of one task that continue one another share their way there: with snapshots each of
    its steps is done once. A prefix at whose end the episode was over has continuations of no
    step, whose outcome is the one it had.

    Args:
        policy: who goes on.
        make: makes an environment.
        prefixes: beginnings of episodes, such as ``trajectory.prefix(k)``; their problems name
            their tasks, as those of the environment do.
        n: continuations of each.
        sampling: how the policy draws each turn.
        settings: how long an episode may be, its prefix included, and how many at once.
        extract: from what the policy wrote to its action; the same as when the prefix was played.
        seed: a continuation draws from a seed of its own, made from this one, its prefix and its
            number.
        first: the number of the first continuation; so more can be asked for later.
        ledger: where continuations are noted when they end, and found again on resuming.
        on_progress: told the continuations that ended since the last call.
        on_error: told of each that could not be played; by default that is logged. A replay in
            which the environment answers otherwise than it did is such a failure.

    Returns:
        One per prefix, in order.

    Raises:
        InvalidRecord: if a problem names no task.
    """
    at_least(1, n=n)
    at_least(0, first=first)
    ways = _Ways(extract)
    # Those of one task together and the short ones first: the long ones go on from them.
    begun: dict[Task, int] = {}
    for prefix in prefixes:
        begun.setdefault(task_of(prefix.problem), len(begun))
    order = sorted(
        range(len(prefixes)),
        key=lambda i: (begun[task_of(prefixes[i].problem)], len(prefixes[i].steps)),
    )
    jobs = [
        _Job(f"{prefixes[i].key}/{number}", prefixes[i].problem, ways.to(prefixes[i], i))
        for i in order
        for number in range(first, first + n)
    ]
    pool = Pool(make)
    settings = settings or EpisodeSettings()
    playing = _Playing(policy, pool, extract, sampling, settings, seed)
    found: dict[int, Episode] = {}
    try:
        for place, episode in playing.episodes(jobs, ledger, on_progress, on_error):
            found[place] = episode
    finally:
        pool.close()
    results: dict[int, Continued] = {}
    for at, i in enumerate(order):
        episodes = tuple(found[at * n + number] for number in range(n))
        results[i] = Continued(episodes, ways.replayed[i])
    return [results[i] for i in range(len(prefixes))]


class _Job(NamedTuple):
    """An episode that is wanted.

    Attributes:
        key: what tells it from the others, for its seed and the ledger.
        problem: for the case that it cannot begin.
        begin: begins it in an environment, with a seed.
    """

    key: str
    problem: Problem
    begin: Callable[[Environment, int], Live]


class _Playing(NamedTuple):
    """What all episodes of a call have in common."""

    policy: Policy
    pool: Pool
    extract: Extract
    sampling: SamplingSettings
    settings: EpisodeSettings
    seed: int

    def episodes(
        self,
        jobs: Sequence[_Job],
        ledger: Ledger | None,
        on_progress: Callable[[int], None] | None,
        on_error: OnError | None,
    ) -> Iterator[tuple[int, Episode]]:
        """Every job's episode with its place: those that are noted, and those that are played."""
        open_ones: list[int] = []
        for place, job in enumerate(jobs):
            stored = None if ledger is None else ledger.get(job.key)
            if stored is None:
                open_ones.append(place)
                continue
            if on_progress is not None:
                on_progress(1)
            yield place, _STORED.validate_json(stored)
        beginnings = (self._beginning(place, jobs[place]) for place in open_ones)
        for place, episode in play(
            self.policy, self.pool, beginnings, self.extract, self.sampling, self.settings
        ):
            if episode.error is not None:
                _tell(jobs[place], episode.error, on_error)
            elif ledger is not None:
                ledger.put({jobs[place].key: _STORED.dump_json(episode).decode()})
            if on_progress is not None:
                on_progress(1)
            yield place, episode

    def _beginning(self, place: int, job: _Job) -> Beginning:
        seed = seed_for(self.seed, job.key)
        return Beginning(place, job.problem, lambda environment: job.begin(environment, seed))


def _tell(job: _Job, error: str, on_error: OnError | None) -> None:
    if on_error is None:
        logger.warning("episode %s could not be played: %s", job.key, error)
    else:
        on_error(job.problem, error)


def unbegun(task: Task) -> Problem:
    """The problem of a task whose environment did not even say what is to be done."""
    meta = {"task": task.name, "seed": task.seed}
    return Problem(id=f"{task.name}/{task.seed}", prompt="", meta=dict(meta))


def _from_start(task: Task) -> Callable[[Environment, int], Live]:
    def begin(environment: Environment, seed: int) -> Live:
        start = guarded("a reset failed", lambda: environment.reset(task))
        before = Trajectory(problem=start.problem, separator=SEPARATOR)
        return Live(environment, before, seed, Reply(start.observation))

    return begin


class _Arrival(NamedTuple):
    """The end of a prefix: its state, and what was answered last."""

    state: object
    last: Reply


class _Ways:
    """How to come to the ends of prefixes; remembers the states of the last few tasks."""

    def __init__(self, extract: Extract):
        self._extract = extract
        self._turn, self._counting = threading.Lock(), threading.Lock()
        self._known: dict[Task, dict[tuple[str, ...], _Arrival]] = {}
        self.replayed: Counter[int] = Counter()
        """Steps that were paid to come to the end of each prefix."""

    def to(self, prefix: Trajectory, i: int) -> Callable[[Environment, int], Live]:
        """Comes to the end of prefix number `i`."""
        task = task_of(prefix.problem)
        actions = tuple(self._extract(step.text) for step in prefix.steps)

        def begin(environment: Environment, seed: int) -> Live:
            last = guarded(
                "the way back failed", lambda: self._go(environment, task, actions, prefix, i)
            )
            before = prefix.model_copy(update={"finish": "open", "correct": None})
            return Live(environment, before, seed, last)

        return begin

    def _go(
        self,
        environment: Environment,
        task: Task,
        actions: tuple[str, ...],
        prefix: Trajectory,
        i: int,
    ) -> Reply:
        if not environment.can_snapshot:
            return self._replay(environment, actions, prefix, i, self._reset(environment, prefix))
        # One after the other, so that nobody goes a way on which another one already is.
        with self._turn:
            known = self._known.setdefault(task, {})
            if len(self._known) > TASKS_KNOWN:
                del self._known[next(iter(self._known))]
            at = next((k for k in range(len(actions), -1, -1) if actions[:k] in known), None)
            if at is None:
                arrival = _Arrival(None, self._reset(environment, prefix))
            else:
                arrival = known[actions[:at]]
                environment.restore(arrival.state)
            last = self._replay(environment, actions, prefix, i, arrival.last, at or 0)
            if actions not in known:
                known[actions] = _Arrival(environment.snapshot(), last)
            return last

    def _reset(self, environment: Environment, prefix: Trajectory) -> Reply:
        start = environment.reset(task_of(prefix.problem))
        if start.problem.text != prefix.problem.text:
            raise EnvironmentFailed(
                f"{prefix.problem.id!r} begins otherwise than when it was played: "
                f"{start.problem.text!r:.200}"
            )
        return Reply(start.observation)

    def _replay(
        self,
        environment: Environment,
        actions: tuple[str, ...],
        prefix: Trajectory,
        i: int,
        last: Reply,
        at: int = 0,
    ) -> Reply:
        """Do the actions from number `at` on; what is answered must be what was."""
        for k in range(at, len(actions)):
            last = environment.step(actions[k])
            with self._counting:
                self.replayed[i] += 1
            expected = prefix.steps[k].observation
            if expected is not None and last.observation != expected:
                raise EnvironmentFailed(
                    f"step {k} of {prefix.problem.id!r} is answered otherwise than when it was "
                    f"played: {last.observation!r:.200}, then {expected!r:.200}"
                )
        return last
