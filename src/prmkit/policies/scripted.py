"""A policy that follows a script, for tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from prmkit.policies.base import Completion, CompletionFinish, SamplingSettings
from prmkit.records import Trajectory

Script = Callable[[Trajectory, random.Random], str]
"""From a prefix and a source of chance to the whole rest of the text."""


class ScriptedPolicy:
    """A policy whose words a function decides; one character is one token.

    It keeps to the settings as any policy does: it stops at stop texts and at the limit.

    Args:
        script: gives the whole rest of the solution after a prefix.
        name: written into the trajectories.
    """

    def __init__(self, script: Script, name: str = "scripted"):
        self._script = script
        self.name = name
        self.requests: list[tuple[Trajectory, int]] = []

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`."""
        self.requests += [(prefix, n) for prefix in prefixes]
        return [
            [
                # At temperature 0 there is no chance at all.
                _cut(
                    self._script(
                        prefix,
                        random.Random(f"{seed}/{i}" if settings.temperature else "greedy"),
                    ),
                    settings,
                )
                for i in range(begin, begin + n)
            ]
            for prefix, seed, begin in zip(
                prefixes, seeds, [0] * len(prefixes) if first is None else first, strict=True
            )
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
