"""Runs estimators on this machine: their wishes are answered by one policy in shared batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from prmkit.errors import InvalidSetting
from prmkit.labelling.rollouts import MakeEstimator, Outcomes, Rollouts, Task
from prmkit.labelling.store import RolloutStore, Wanted, content_key
from prmkit.ledger import Ledger
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Record, StepLabels, Trajectory, Unscored
from prmkit.settings import at_least

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8
"""Results that wait for an earlier one are held back; of so many windows at most."""


EXPENSIVE = (64, 8192)
"""Rollouts and tokens that an item may cost, as long as none has been paid."""


class Progress(NamedTuple):
    """What was done since the last word.

    Attributes:
        trajectories: labelled.
        rollouts: drawn, not found.
        tokens: drawn in them.
    """

    trajectories: int
    rollouts: int
    tokens: int


@dataclass
class Budget:
    """What may be spent. A rollout counts once, for the first item in order that asked for it.

    So what a budget buys depends neither on batches nor on what an earlier run has drawn. Items
    that were under way when it ended are finished and left out: what they drew is overspent, and
    kept for whoever goes on.

    Attributes:
        rollouts: at most.
        tokens: drawn in them, at most.
        spent: rollouts and tokens of the items that were paid.
        ended: whether an item was left out.
    """

    rollouts: int | None = None
    tokens: int | None = None
    spent: tuple[int, int] = (0, 0)
    ended: bool = False
    _paid: set[int] = field(default_factory=set)
    _n_items: int = 0

    def __post_init__(self) -> None:
        for name, limit in (("rollouts", self.rollouts), ("tokens", self.tokens)):
            if limit is not None and limit < 1:
                raise InvalidSetting(f"a budget of {limit} {name} buys nothing; give at least 1")

    def pay(self, used: dict[int, int]) -> bool:
        """Take an item's rollouts, with their tokens, off the budget; False where it is not enough.

        Args:
            used: tokens by rollout.
        """
        fresh = {rollout: n for rollout, n in used.items() if rollout not in self._paid}
        spent = self.spent[0] + len(fresh), self.spent[1] + sum(fresh.values())
        self.ended = any(
            limit is not None and n > limit
            for n, limit in zip(spent, (self.rollouts, self.tokens), strict=True)
        )
        if not self.ended:
            self.spent = spent
            self._n_items += 1
            self._paid |= fresh.keys()
        return not self.ended

    def room(self, most: int) -> int:
        """How many items may be under way, so that not much more is drawn than it allows."""
        room = most
        limits = (self.rollouts, self.tokens)
        for spent, limit, guess in zip(self.spent, limits, EXPENSIVE, strict=True):
            if limit is not None:
                mean = spent / self._n_items if spent else guess
                room = min(room, math.ceil((limit - spent) / mean))
        return max(room, 1)


@dataclass
class _Running(Generic[Result]):
    """A task under way.

    Attributes:
        wishes: what it waits for.
        asked: how often it has asked, by prefix.
        used: the tokens of the rollouts that it got.
    """

    task: Task[Result]
    wishes: list[Rollouts] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    used: dict[int, int] = field(default_factory=dict)


class _Ended(NamedTuple, Generic[Result]):
    """A task that is done: what it returned and used."""

    result: Result
    used: dict[int, int]


def drive(
    items: Iterable[Item],
    start: Callable[[Item], Task[Result]],
    store: RolloutStore,
    *,
    in_flight: int = 64,
    budget: Budget | None = None,
    on_round: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Run a task for each item; as one ends the next begins, and all wishes are answered together.

    Args:
        items: read as they are needed.
        start: begins the task of an item.
        store: answers the wishes.
        in_flight: tasks under way at a time.
        budget: ends the run, after the last item that it paid for.
        on_round: called after each round of answers.

    Yields:
        Each item with what its task returned, in order.
    """
    at_least(1, in_flight=in_flight)
    waiting = enumerate(items)
    started: dict[int, Item] = {}
    running: dict[int, _Running[Result]] = {}
    ended: dict[int, _Ended[Result]] = {}
    following = 0
    while True:
        while following in ended:
            result, used = ended.pop(following)
            if budget is not None and not budget.pay(used):
                return
            yield started.pop(following), result
            following += 1
        room = in_flight if budget is None else budget.room(in_flight)
        behind = AHEAD * in_flight - len(started)
        began = False
        for number, item in islice(waiting, max(min(room - len(running), behind), 0)):
            began = True
            started[number] = item
            running[number] = _Running(start(item))
            _advance(number, None, running, ended)
        if running:
            _answer(running, ended, store)
            if on_round is not None:
                on_round()
        elif not began:
            return


def _answer(
    running: dict[int, _Running[Result]],
    ended: dict[int, _Ended[Result]],
    store: RolloutStore,
) -> None:
    """Answer the wishes of all that wait, in one go."""
    wanted: list[Wanted] = []
    for one in running.values():
        for prefix, n in one.wishes:
            key = content_key(prefix)
            wanted.append(Wanted(key, prefix, one.asked[key], n))
            one.asked[key] += n
    pairs = iter(zip(wanted, store.get(wanted), strict=True))
    for number, one in list(running.items()):
        reply: list[Outcomes] = []
        for (key, _, first, _), outcomes in islice(pairs, len(one.wishes)):
            reply.append(outcomes)
            # Half of a SHA-256 tells prefixes apart well enough for an account.
            base = int(key[:32], 16) << 32
            one.used |= {base + i: outcome.n_tokens for i, outcome in enumerate(outcomes, first)}
        _advance(number, reply, running, ended)
    store.forget()


def _advance(
    number: int,
    reply: list[Outcomes] | None,
    running: dict[int, _Running[Result]],
    ended: dict[int, _Ended[Result]],
) -> None:
    """Send a task its answers: it wishes for more, or ends."""
    one = running[number]
    try:
        one.wishes = next(one.task) if reply is None else one.task.send(reply)
    except StopIteration as done:
        ended[number] = _Ended(done.value, one.used)
        del running[number]


def run(estimators: Sequence[Task[Result]], store: RolloutStore) -> list[Result]:
    """Run all of some estimators together.

    Args:
        estimators: generators of wishes.
        store: answers them.

    Returns:
        What each returned, in order.
    """
    tasks = drive(estimators, lambda task: task, store, in_flight=max(len(estimators), 1))
    return [result for _, result in tasks]


def label(
    trajectories: Iterable[Trajectory],
    make_estimator: MakeEstimator,
    policy: Policy,
    judge: Judge,
    *,
    settings: SamplingSettings,
    seed: int = 0,
    in_flight: int = 64,
    ledger: Ledger | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Record]:
    """Label trajectories, in order.

    Args:
        trajectories: with reference answers, where the estimator needs them.
        make_estimator: starts the estimator of one trajectory.
        policy: the completer.
        judge: decides whether a completed solution is right.
        settings: how completions are drawn.
        seed: of the run.
        in_flight: trajectories whose wishes share batches.
        ledger: where rollouts are noted, and found again on resuming.
        on_progress: told what was done since the last call.

    Yields:
        One record per trajectory; where it could not be labelled, with `Unscored` and why.
    """
    store = RolloutStore(policy, judge, settings, seed, ledger)
    meter = Meter(store, on_progress)
    for trajectory, found in drive(
        trajectories, make_estimator, store, in_flight=in_flight, on_round=meter.tell
    ):
        yield record_of(Record(trajectory=trajectory), found)
        meter.tell(1)


def record_of(record: Record, found: StepLabels | Unscored) -> Record:
    """A record with its labels; where there are none, with `Unscored` and why."""
    if isinstance(found, Unscored):
        return record.replace(scores=(*record.scores, found))
    return record.replace(labels=found)


class Meter:
    """Tells how much was done since it told the last time.

    Args:
        store: counts what is drawn.
        on_progress: who is told.
    """

    def __init__(self, store: RolloutStore, on_progress: Callable[[Progress], None] | None):
        self._store, self._on_progress = store, on_progress
        self._told = (0, 0)

    def tell(self, finished: int = 0) -> None:
        """Tell of so many finished trajectories, and of the rollouts since the last time."""
        drawn, tokens = self._store.drawn, self._store.tokens
        if self._on_progress is not None:
            self._on_progress(Progress(finished, drawn - self._told[0], tokens - self._told[1]))
        self._told = (drawn, tokens)
