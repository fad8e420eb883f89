"""Many episodes at once: each turn, one call of the policy speaks for all that are under way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from prmkit.environments.actions import Extract
from prmkit.environments.base import Environment, MakeEnvironment, Reply, guarded
from prmkit.errors import EnvironmentFailed, InputTooLong
from prmkit.ledger import seed_for
from prmkit.policies.base import Completion, Policy, SamplingSettings
from prmkit.policies.parallel import in_threads
from prmkit.records import Finish, Problem, Record, Step, Trajectory
from prmkit.settings import at_least

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """How episodes are played.

    Attributes:
        max_steps: of an episode; one that has not ended by then has failed at its task.
        in_flight: episodes that share a call of the policy.
        threads: environments that do something at once; more than one pays where they are behind
            a server or let go of Python's lock.
    """

    max_steps: int = 20
    in_flight: int = 32
    threads: int = 1

    def __post_init__(self) -> None:
        at_least(1, max_steps=self.max_steps, in_flight=self.in_flight, threads=self.threads)


class Episode(NamedTuple):
    """An episode that was played.

    Attributes:
        trajectory: its steps with their observations. Its finish is ``eos`` (the environment ended
            it), ``length`` (too many steps, or more text than the policy can read: `correct` is
            False) or ``error`` (`correct` is None: it is no attempt).
        rewards: of the steps that were played here, the last ones of the trajectory; None where
            the environment gives none.
        error: why it could not be played to its end.
    """

    trajectory: Trajectory
    rewards: tuple[float | None, ...] = ()
    error: str | None = None

    @property
    def record(self) -> Record:
        """As a line of a records file; rewards and error are in its `meta`."""
        told = {"error": self.error} if self.error is not None else {}
        return Record(trajectory=self.trajectory, meta={"rewards": list(self.rewards), **told})


@dataclass(eq=False)
class Live:
    """An episode that is under way.

    Attributes:
        environment: where it stands.
        before: what was there already, and is not played here.
        seed: each turn draws from a seed of its own, made from this one.
        last: what the environment answered last.
        steps: that were played.
        rewards: of them.
        ended: how it ended, with the reason where that is a failure; None while it goes on.
    """

    environment: Environment
    before: Trajectory
    seed: int
    last: Reply
    steps: list[Step] = field(default_factory=list)
    rewards: list[float | None] = field(default_factory=list)
    ended: tuple[Finish, str | None] | None = None

    @property
    def prefix(self) -> Trajectory:
        """Its steps so far, as the policy reads them."""
        return self.before.model_copy(update={"steps": (*self.before.steps, *self.steps)})

    def episode(self, generator: str) -> Episode:
        """It as it is now."""
        finish, error = self.ended or ("open", None)
        correct = {"eos": self.last.success, "length": False}.get(finish)
        whole = self.prefix.model_copy(
            update={"finish": finish, "correct": correct, "generator": generator}
        )
        return Episode(whole, tuple(self.rewards), error)


class Pool:
    """Environments of a kind: one that is given back is used again, one that failed is not.

    Args:
        make: makes one.
    """

    def __init__(self, make: MakeEnvironment):
        self._make = make
        self._free: list[Environment] = []

    def take(self) -> Environment:
        """One that nobody uses.

        Raises:
            EnvironmentFailed: if none can be made.
        """
        try:
            return self._free.pop()
        except IndexError:
            return guarded("an environment could not be made", self._make)

    def give(self, environment: Environment, failed: bool = False) -> None:
        """Give one back; one that failed is closed."""
        if failed:
            close(environment)
        else:
            self._free.append(environment)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._free:
            close(self._free.pop())


def close(environment: Environment) -> None:
    """Close one, whatever it thinks of that."""
    try:
        guarded("it could not be closed", environment.close)
    except EnvironmentFailed as error:
        logger.warning("an environment was left open: %s", error)


class Beginning(NamedTuple):
    """An episode that is to be played.

    Attributes:
        place: what the result is known by.
        problem: what it says of the task where it cannot even begin.
        begin: makes it, in an environment that is free.
    """

    place: int
    problem: Problem
    begin: Callable[[Environment], Live]


def play(
    policy: Policy,
    pool: Pool,
    beginnings: Iterator[Beginning],
    extract: Extract,
    sampling: SamplingSettings,
    settings: EpisodeSettings,
) -> Iterator[tuple[int, Episode]]:
    """Play episodes, at most `in_flight` at a time; each is given out when it has ended.

    Yields:
        The place of its beginning, and the episode.
    """
    live: dict[int, Live] = {}
    try:
        while True:
            wanted = [
                beginning
                for _ in range(settings.in_flight - len(live))
                if (beginning := next(beginnings, None)) is not None
            ]
            begun = _each(lambda one: _begin(pool, one), wanted, settings.threads)
            pairs_begun = list(zip(wanted, begun, strict=True))
            live |= {b.place: one for b, one in pairs_begun if isinstance(one, Live)}
            for beginning, one in pairs_begun:
                if isinstance(one, Episode):
                    yield beginning.place, one
            if not live and not wanted:
                return
            going = [one for one in live.values() if not _over(one, settings)]
            said = _complete(policy, going, sampling)
            pairs = list(zip(going, said, strict=True))
            _each(lambda pair: _answer(*pair, extract), pairs, settings.threads)
            for place, ended in [(p, one) for p, one in live.items() if _over(one, settings)]:
                del live[place]
                pool.give(
                    ended.environment, failed=ended.ended is not None and ended.ended[0] == "error"
                )
                yield place, ended.episode(policy.name)
    finally:
        for left in live.values():
            close(left.environment)


def turn_seed(seed: int, number: int) -> int:
    """By which a turn is drawn, from the seed of its episode; no other turn has it."""
    return seed_for(seed, str(number))


def _each(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    if threads == 1:
        return [work(item) for item in items]
    return in_threads(work, items, threads)


def _begin(pool: Pool, beginning: Beginning) -> Live | Episode:
    """An episode that has begun, or the failure to begin."""
    environment: Environment | None = None
    try:
        environment = pool.take()
        return beginning.begin(environment)
    except EnvironmentFailed as error:
        if environment is not None:
            pool.give(environment, failed=True)
        return Episode(Trajectory(problem=beginning.problem, finish="error"), (), str(error))
    except BaseException:
        if environment is not None:
            close(environment)
        raise


def _over(one: Live, settings: EpisodeSettings) -> bool:
    """Whether an episode has ended; notes how."""
    if one.ended is None and one.last.done:
        one.ended = ("eos", None)
    if one.ended is None and len(one.before.steps) + len(one.steps) >= settings.max_steps:
        one.ended = ("length", None)
    return one.ended is not None


def _complete(
    policy: Policy, going: Sequence[Live], sampling: SamplingSettings
) -> list[Completion | None]:
    """What the policy says next in each; None where there is more to read than it can."""
    if not going:
        return []
    seeds = [turn_seed(one.seed, len(one.steps)) for one in going]
    try:
        drawn = policy.complete([one.prefix for one in going], 1, sampling, seeds)
    except InputTooLong as error:
        if len(going) > 1:
            return [said for one in going for said in _complete(policy, [one], sampling)]
        logger.info("an episode is longer than the policy can read: %s", error)
        return [None]
    return [of_prefix[0] for of_prefix in drawn]


def _answer(one: Live, said: Completion | None, extract: Extract) -> None:
    """Do in the environment what the policy said, and note what came of it."""
    if said is None:
        one.ended = ("length", None)
        return
    if said.finish == "error":
        one.ended = ("error", said.error or "the policy gave no reason")
        return
    action = extract(said.text)
    try:
        reply = guarded("a step failed", lambda: one.environment.step(action))
        step = guarded(
            "an observation is no text", lambda: Step(text=said.text, observation=reply.observation)
        )
    except EnvironmentFailed as error:
        one.ended = ("error", str(error))
        return
    one.last = reply
    one.steps.append(step)
    one.rewards.append(reply.reward)
