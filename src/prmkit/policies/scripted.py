"""A policy that follows a script, for tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from prmkit.errors import PolicyError
from prmkit.policies.base import (
    Completion,
    CompletionFinish,
    Drawn,
    SamplingSettings,
    given_each,
)
from prmkit.records import Problem, Step, Trajectory
from prmkit.settings import at_least

Script = Callable[[Trajectory, random.Random], str]
"""From a prefix and a source of chance to the whole rest of the text."""


Likely = Callable[[Trajectory, str, bool], float]
"""From a prefix, a text and whether the solution ends after it, to the logarithm of how likely the
script writes that."""

MARK = 0x110000
"""The token around a question's text: the first number that is no character."""


class ScriptedPolicy:
    """A policy whose words a function decides; one character is one token.

    It keeps to the settings as any policy does: it stops at stop texts and at the limit. A
    question's tokens are its id, a mark, its text and a mark, so that two that read alike differ.

    Args:
        script: gives the whole rest of the solution after a prefix.
        name: written into the trajectories.
        split: cuts the answer so far into steps, where it comes as tokens; by default at the ends
            of lines.
        likely: how likely the script writes a text, where that is known. The temperature changes
            no script, and so no likelihood.
    """

    takes_ids = True

    def __init__(
        self,
        script: Script,
        name: str = "scripted",
        split: Callable[[str], Sequence[str]] | None = None,
        likely: Likely | None = None,
    ):
        self._script, self._likely = script, likely
        self._split = split or partial(str.splitlines, keepends=True)
        self.name = name
        self.requests: list[tuple[Trajectory, int]] = []
        self._problems: dict[tuple[int, ...], Problem] = {}

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`."""
        begin = [0] * len(prefixes) if first is None else first
        given_each(len(prefixes), seeds=seeds, first=begin)
        return [
            self._completions(prefix, n, settings, seed, number)
            for prefix, seed, number in zip(prefixes, seeds, begin, strict=True)
        ]

    def question_ids(self, problem: Problem) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.question_ids`."""
        ids = [*map(ord, problem.id), MARK, *map(ord, problem.text), MARK]
        self._problems[tuple(ids)] = problem
        return ids

    def text_ids(self, text: str) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.text_ids`."""
        return [*map(ord, text)]

    def continue_ids(
        self,
        prefixes: Sequence[Sequence[int]],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """See `prmkit.policies.base.TokenPolicy.continue_ids`.

        Raises:
            PolicyError: if a prefix does not begin with what `question_ids` gave.
        """
        begin = [0] * len(prefixes) if first is None else first
        given_each(len(prefixes), counts=counts, seeds=seeds, first=begin)
        drawn = []
        for ids, n, seed, number in zip(prefixes, counts, seeds, begin, strict=True):
            completions = self._completions(self._trajectory(ids), n, settings, seed, number)
            drawn.append(
                [
                    Drawn(one, tuple(map(ord, one.text)), len(ids) if i == 0 else 0)
                    for i, one in enumerate(completions)
                ]
            )
        return drawn

    @property
    def tells_likelihoods(self) -> bool:
        """See `prmkit.policies.base.LikelihoodPolicy.tells_likelihoods`."""
        return self._likely is not None

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Sequence[bool],
        temperature: float,
    ) -> list[float]:
        """See `prmkit.policies.base.LikelihoodPolicy.log_likelihoods`.

        Raises:
            PolicyError: if its likelihoods are not known, or a prefix does not begin with what
                `question_ids` gave.
        """
        given_each(len(prefixes), continuations=continuations, ends=ends)
        at_least(0, temperature=temperature)
        if self._likely is None:
            raise PolicyError(
                f"{self.name!r} does not know how likely its script writes a text; give `likely`"
            )
        return [
            self._likely(self._trajectory(ids), "".join(map(chr, more)), end)
            for ids, more, end in zip(prefixes, continuations, ends, strict=True)
        ]

    def _trajectory(self, ids: Sequence[int]) -> Trajectory:
        marks = [at for at, token in enumerate(ids) if token == MARK]
        end = marks[1] + 1 if len(marks) > 1 else len(ids)
        problem = self._problems.get(tuple(ids[:end]))
        if problem is None:
            raise PolicyError(
                f"{self.name!r} knows no question with the tokens {list(ids[:8])!r}…; begin a "
                "prefix with what its question_ids gave"
            )
        pieces = self._split("".join(map(chr, ids[end:])))
        return Trajectory(problem=problem, steps=tuple(Step(text=text) for text in pieces))

    def _completions(
        self, prefix: Trajectory, n: int, settings: SamplingSettings, seed: int, begin: int
    ) -> list[Completion]:
        self.requests.append((prefix, n))
        return [
            # At temperature 0 there is no chance at all.
            _cut(
                self._script(
                    prefix, random.Random(f"{seed}/{i}" if settings.temperature else "greedy")
                ),
                settings,
            )
            for i in range(begin, begin + n)
        ]


def _cut(text: str, settings: SamplingSettings) -> Completion:
    finish: CompletionFinish = "eos"
    ends = [at + len(stop) for stop in settings.stop if (at := text.find(stop)) >= 0]
    if ends:
        text, finish = text[: min(ends)], "stop"
    if len(text) > settings.max_new_tokens or (
        len(text) == settings.max_new_tokens and finish == "eos"
    ):
        text, finish = text[: settings.max_new_tokens], "length"
    return Completion(text, finish, len(text) + (finish == "eos"))
