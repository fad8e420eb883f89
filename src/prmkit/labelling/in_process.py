"""Runs estimators on this machine: their wishes are answered by one policy in shared batches.

Every rollout has a content of its own: the policy, how it draws, the run's seed, the prefix, and
its number among the prefix's rollouts. The same content is drawn once, whoever asks for it and
however often a run is started again; so solutions of one problem share what they have in common,
labels do not depend on what runs beside, and a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prmkit.labelling.rollouts import Estimator, MakeEstimator, Outcomes, Rollout, Rollouts
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Record, StepLabels, Trajectory


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


class RolloutStore:
    """Rollouts by their content: drawn where they are new, found where they are not.

    Args:
        policy: the completer.
        judge: decides whether a completed solution is right.
        settings: how completions are drawn.
        seed: of the run; each prefix draws from a seed made from this one and its content.
        ledger: where rollouts are kept; by default in memory alone.
    """

    def __init__(
        self,
        policy: Policy,
        judge: Judge,
        settings: SamplingSettings,
        seed: int = 0,
        ledger: Ledger | None = None,
    ):
        self._policy, self._judge, self._settings, self._seed = policy, judge, settings, seed
        self._ledger = ledger
        self._memory: dict[str, Rollout] = {}
        self.drawn = 0
        self.tokens = 0

    def get(self, wishes: Sequence[tuple[Trajectory, int, int]]) -> list[Outcomes]:
        """The rollouts of many wishes, each a prefix, the number of the first and how many."""
        keys = [content_key(prefix) for prefix, _, _ in wishes]
        missing: dict[str, dict[int, Trajectory]] = {}
        for key, (prefix, first, n) in zip(keys, wishes, strict=True):
            for number in range(first, first + n):
                if self._find(key, number) is None:
                    missing.setdefault(key, {})[number] = prefix
        self._draw(missing)
        return [
            [self._memory[f"{key}/{number}"] for number in range(first, first + n)]
            for key, (_, first, n) in zip(keys, wishes, strict=True)
        ]

    def forget(self) -> None:
        """Drop what is held in memory and noted elsewhere too."""
        if self._ledger is not None:
            self._memory.clear()

    def _find(self, key: str, number: int) -> Rollout | None:
        name = f"{key}/{number}"
        if name not in self._memory and self._ledger is not None:
            stored = self._ledger.get(name)
            if stored is not None:
                self._memory[name] = Rollout(*json.loads(stored))
        return self._memory.get(name)

    def _draw(self, missing: dict[str, dict[int, Trajectory]]) -> None:
        """Draw rollouts that are nowhere; stretches of one length share a call of the policy."""
        stretches: dict[int, list[tuple[str, int, Trajectory]]] = {}
        for key, numbers in missing.items():
            for first, n in _stretches(sorted(numbers)):
                stretches.setdefault(n, []).append((key, first, numbers[first]))
        for n in sorted(stretches):
            of_length = stretches[n]
            drawn = self._policy.complete(
                [prefix for _, _, prefix in of_length],
                n,
                self._settings,
                [seed_for(self._seed, key) for key, _, _ in of_length],
                [first for _, first, _ in of_length],
            )
            fresh: dict[str, str] = {}
            for (key, first, prefix), completions in zip(of_length, drawn, strict=True):
                start = prefix.text + (prefix.separator if prefix.steps else "")
                for number, completion in enumerate(completions, first):
                    outcome = self._judge(prefix.problem, start + completion.text)
                    rollout = Rollout(
                        outcome.correct, completion.text, completion.n_tokens, outcome.answer
                    )
                    self._memory[f"{key}/{number}"] = rollout
                    fresh[f"{key}/{number}"] = json.dumps(rollout)
                    self.drawn += 1
                    self.tokens += completion.n_tokens
            if self._ledger is not None:
                self._ledger.put(fresh)


def content_key(prefix: Trajectory) -> str:
    """What a rollout depends on, of its prefix: the problem, and the text so far."""
    told = [
        prefix.problem.model_dump(mode="json", exclude={"meta"}),
        prefix.separator if prefix.steps else "",
        [[step.text, step.observation] for step in prefix.steps],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _stretches(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Rising numbers as stretches without holes: the first of each, and how many."""
    start: int | None = None
    last = -1
    for number in numbers:
        if start is not None and number == last + 1:
            last = number
            continue
        if start is not None:
            yield start, last - start + 1
        start = last = number
    if start is not None:
        yield start, last - start + 1


def label(
    trajectories: Sequence[Trajectory],
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
        trajectories: with reference answers.
        make_estimator: starts the estimator of one trajectory.
        policy: the completer.
        judge: decides whether a completed solution is right.
        settings: how completions are drawn.
        seed: of the run.
        in_flight: trajectories whose wishes share batches.
        ledger: where rollouts are noted, and found again on resuming.
        on_progress: told what was done since the last call.

    Yields:
        One record per trajectory.
    """
    store = RolloutStore(policy, judge, settings, seed, ledger)
    told = (0, 0)
    for at in range(0, len(trajectories), in_flight):
        group = trajectories[at : at + in_flight]

        def say(finished: int) -> None:
            nonlocal told
            if on_progress is not None:
                on_progress(Progress(finished, store.drawn - told[0], store.tokens - told[1]))
            told = (store.drawn, store.tokens)

        labels = run(list(map(make_estimator, group)), store, lambda: say(0))
        say(len(group))
        store.forget()
        yield from (
            Record(trajectory=t, labels=found) for t, found in zip(group, labels, strict=True)
        )


def run(
    estimators: Sequence[Estimator], store: RolloutStore, on_round: Callable[[], None] | None = None
) -> list[Any]:
    """Run estimators in step, answering all their wishes together.

    Args:
        estimators: generators of wishes.
        store: answers them.
        on_round: called after each round of answers.

    Returns:
        What each returned, in order.
    """
    running = dict(enumerate(estimators))
    results: dict[int, StepLabels] = {}
    replies: dict[int, list[Outcomes] | None] = dict.fromkeys(running)
    asked: Counter[tuple[int, str]] = Counter()
    while running:
        wishes: dict[int, list[Rollouts]] = {}
        for i, estimator in list(running.items()):
            try:
                reply = replies[i]
                wishes[i] = next(estimator) if reply is None else estimator.send(reply)
            except StopIteration as done:
                results[i] = done.value
                del running[i]
        flat: list[tuple[Trajectory, int, int]] = []
        for i, of_one in wishes.items():
            for wish in of_one:
                key = (i, content_key(wish.prefix))
                flat.append((wish.prefix, asked[key], wish.n))
                asked[key] += wish.n
        outcomes = iter(store.get(flat))
        for i, of_one in wishes.items():
            replies[i] = [next(outcomes) for _ in of_one]
        if on_round is not None and flat:
            on_round()
    return [results[i] for i in range(len(estimators))]
