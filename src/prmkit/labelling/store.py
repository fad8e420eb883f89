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

from prmkit.errors import InputTooLong, PolicyError
from prmkit.labelling.rollouts import Outcomes, Rollout
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import Completion, Policy, SamplingSettings, failed
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


class _Stretch(NamedTuple):
    """Neighbouring rollouts of a prefix: its key, the number of the first, and the prefix."""

    key: str
    first: int
    prefix: Trajectory


FAILED = "failed "
"""Begins the key of a rollout that could not be drawn; its value is why."""

UNANSWERED = 64
"""Prefixes in a row that may fail before a run ends."""


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
        self.failed = 0
        """Rollouts that could not be drawn; they are asked for again on resuming."""
        self._unanswered: set[str] = set()

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
        stretches: dict[int, list[_Stretch]] = {}
        for key, numbers in missing.items():
            for first, n in _stretches(sorted(numbers)):
                stretches.setdefault(n, []).append(_Stretch(key, first, numbers[first]))
        for n in sorted(stretches):
            fresh: dict[str, str] = {}
            for (key, first, prefix), completions in zip(
                stretches[n], self._complete(stretches[n], n), strict=True
            ):
                for number, completion in enumerate(completions, first):
                    rollout = self._judged(prefix, completion)
                    name = f"{key}/{number}"
                    self._memory[name] = rollout
                    if rollout.error is None:
                        fresh[name] = json.dumps(rollout)
                        self.drawn += 1
                        self.tokens += completion.n_tokens
                    else:
                        fresh[FAILED + name] = json.dumps(rollout.error)
                        self.failed += 1
            if self._ledger is not None:
                self._ledger.put(fresh)
            self._see_answers(stretches[n])

    def _complete(self, stretches: Sequence[_Stretch], n: int) -> list[list[Completion]]:
        """Completions; where a prefix is too long for the policy, each goes alone and it fails."""
        try:
            return self._policy.complete(
                [prefix for _, _, prefix in stretches],
                n,
                self._settings,
                [seed_for(self._seed, key) for key, _, _ in stretches],
                [first for _, first, _ in stretches],
            )
        except InputTooLong as error:
            if len(stretches) == 1:
                return [[failed(str(error))] * n]
        return [completions for one in stretches for completions in self._complete([one], n)]

    def _judged(self, prefix: Trajectory, completion: Completion) -> Rollout:
        if completion.error is not None:
            return Rollout(None, error=completion.error)
        start = prefix.text + (prefix.separator if prefix.steps else "")
        outcome = self._judge(prefix.problem, start + completion.text)
        return Rollout(outcome.correct, completion.text, completion.n_tokens, outcome.answer)

    def _see_answers(self, stretches: Sequence[_Stretch]) -> None:
        """Stop where nobody answers any more, rather than leave all that is to come unlabelled.

        Raises:
            PolicyError: if no rollout of many prefixes in a row could be drawn.
        """
        for key, first, _ in stretches:
            last = self._memory[f"{key}/{first}"]
            if last.error is None:
                self._unanswered.clear()
            else:
                self._unanswered.add(key)
            if len(self._unanswered) >= UNANSWERED:
                raise PolicyError(
                    f"no rollout of {len(self._unanswered)} prefixes in a row could be drawn: "
                    f"{last.error}. See to that, then give the same command again: what was drawn "
                    "is kept"
                )


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


class Kept(NamedTuple):
    """What a ledger keeps.

    Attributes:
        rollouts: that were drawn.
        tokens: drawn in them.
        failed: rollouts that could not be drawn so far.
    """

    rollouts: int
    tokens: int
    failed: int


def kept_in(ledger: Ledger) -> Kept:
    """What a ledger keeps, counted."""
    rollouts = tokens = failures = 0
    for key, value in ledger.items():
        if key.startswith(FAILED):
            failures += ledger.get(key.removeprefix(FAILED)) is None
        else:
            rollouts += 1
            tokens += Rollout(*json.loads(value)).n_tokens
    return Kept(rollouts, tokens, failures)
