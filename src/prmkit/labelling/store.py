"""Rollouts are kept by their content: what was drawn once is found again.

Every rollout has a content of its own: the policy, how it draws, the run's seed, the prefix, and
its number among the prefix's rollouts. The same content is drawn once, whoever asks for it and
however often a run is started again; so solutions of one problem share what they have in common,
labels do not depend on what runs beside, and a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from prmkit.labelling.rollouts import Outcomes, Rollout
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Trajectory


class Wanted(NamedTuple):
    """Some rollouts of a prefix.

    Attributes:
        key: the prefix's, by `content_key`.
        prefix: what is to be completed.
        first: the number of the first.
        n: how many.
    """

    key: str
    prefix: Trajectory
    first: int
    n: int


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

    def get(self, wanted: Sequence[Wanted]) -> list[Outcomes]:
        """The rollouts that are wanted, in order."""
        missing: dict[str, dict[int, Trajectory]] = {}
        for key, prefix, first, n in wanted:
            for number in range(first, first + n):
                if self._find(key, number) is None:
                    missing.setdefault(key, {})[number] = prefix
        self._draw(missing)
        return [
            [self._memory[f"{key}/{number}"] for number in range(first, first + n)]
            for key, _, first, n in wanted
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


def cost_of(ledger: Ledger) -> tuple[int, int]:
    """How many rollouts a ledger keeps, and their tokens."""
    rollouts = tokens = 0
    for _, value in ledger.items():
        rollouts += 1
        tokens += Rollout(*json.loads(value)).n_tokens
    return rollouts, tokens
