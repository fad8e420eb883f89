"""Scorers that judge in words: a language model writes critiques, and their verdicts are read.

A family is a generator that wishes for words, choices and programs' outputs; here one policy
answers the wishes of many critiques in shared batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from prmkit.errors import InputTooLong, ScoringError
from prmkit.ledger import seed_for
from prmkit.policies.base import Chooser, Completion, Policy, SamplingSettings
from prmkit.records import Message, Problem, Semantics, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.base import beyond_text
from prmkit.scorers.families.base import Choose, Critique, Generative, RunCode, Wish, Write
from prmkit.scorers.sandbox import run_code
from prmkit.settings import at_least


class _Running(NamedTuple):
    """A critique under way.

    Attributes:
        trajectory: which of the batch.
        critique: the generator.
        seed: of all it draws.
    """

    trajectory: int
    critique: Critique
    seed: int


class GenerativeScorer:
    """Scores steps by critiques that a policy writes.

    Args:
        policy: who writes. Where its logits are to be had (`Chooser`), verdicts are probabilities;
            where not, they are read from the words.
        family: how critiques go.
        n_samples: critiques of each trajectory, whose scores are averaged; by default as the
            family's authors have it.
        max_new_tokens: of one stretch of words; by default as the family's authors have it.
        seed: of all that is drawn.
        allow_code: whether programs that the model writes may run, in a sandbox.

    Raises:
        InvalidSetting: if a number is below 1.
        ScoringError: if the family runs code, and that is not allowed.
    """

    def __init__(
        self,
        policy: Policy,
        family: Generative,
        *,
        n_samples: int | None = None,
        max_new_tokens: int | None = None,
        seed: int = 0,
        allow_code: bool = False,
    ):
        if family.runs_code and not allow_code:
            raise ScoringError(
                f"the family {family.name!r} runs programs that a model writes, in a sandbox. "
                "Allow it with allow_code=True (--allow-code), or use gen_prm, which runs none"
            )
        self.family = family
        self._policy = policy
        self._n_samples = family.n_samples if n_samples is None else n_samples
        self._sampling = family.sampling
        if max_new_tokens is not None:
            self._sampling = replace(family.sampling, max_new_tokens=max_new_tokens)
        at_least(1, samples=self._n_samples)
        self._seed = seed
        self.name = f"{policy.name}, {family.name}"

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""
        return self.family.semantics

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`.

        The mean over the critiques that came to a verdict; `Unscored` where none did.
        """
        without = [beyond_text(t) for t in trajectories]
        running = [
            _Running(i, self.family.critique(t), seed_for(self._seed, t.key, str(sample)))
            for i, t in enumerate(trajectories)
            if without[i] is None
            for sample in range(self._n_samples)
        ]
        found: list[list[list[float]]] = [[] for _ in trajectories]
        reasons: list[list[str]] = [[why] if why else [] for why in without]
        replies: dict[int, Any] = dict.fromkeys(range(len(running)))
        wishes: dict[int, Wish] = {}
        turn = 0
        while replies:
            wishes = {}
            for number, reply in replies.items():
                one = running[number]
                try:
                    wishes[number] = one.critique.send(reply)
                except StopIteration as done:
                    if isinstance(done.value, str):
                        reasons[one.trajectory].append(done.value)
                    else:
                        found[one.trajectory].append(done.value)
            replies = self._answers(wishes, running, turn, reasons)
            turn += 1
        return [
            self._mean(of_one, why, len(t.steps))
            for t, of_one, why in zip(trajectories, found, reasons, strict=True)
        ]

    def _mean(
        self, critiques: list[list[float]], reasons: list[str], n_steps: int
    ) -> StepScores | Unscored:
        if not critiques:
            return Unscored(reason=f"no critique gave a verdict: {reasons[0]}", model=self.name)
        if any(len(scores) != n_steps for scores in critiques):
            raise ScoringError(f"{self.name} gave other than one score per step")
        values = tuple(
            math.fsum(of_step) / len(critiques) for of_step in zip(*critiques, strict=True)
        )
        return StepScores(values=values, semantics=self.semantics, model=self.name)

    def _answers(
        self,
        wishes: dict[int, Wish],
        running: Sequence[_Running],
        turn: int,
        reasons: list[list[str]],
    ) -> dict[int, Any]:
        """Answers by the number of the critique; one whose words do not fit drops out, with why."""
        answers: dict[int, Any] = {}
        writes: dict[tuple[tuple[str, ...], int | None], list[int]] = {}
        choices: dict[tuple[str, ...], list[int]] = {}
        for number, wish in wishes.items():
            if isinstance(wish, Write):
                writes.setdefault((wish.stop, wish.max_new_tokens), []).append(number)
            elif isinstance(wish, Choose):
                choices.setdefault(wish.choices, []).append(number)
            else:
                assert isinstance(wish, RunCode)
                answers[number] = run_code(wish.code)
        for (stop, limit), numbers in writes.items():
            most = self._sampling.max_new_tokens
            settings = replace(
                self._sampling,
                stop=stop,
                max_new_tokens=most if limit is None else min(limit, most),
            )
            seeds = {number: seed_for(running[number].seed, str(turn)) for number in numbers}
            write = partial(self._write, wishes, settings, seeds)
            for number, completion in _each(write, numbers, running, reasons).items():
                if completion.finish == "error":
                    why = completion.error or "no reason given"
                    reasons[running[number].trajectory].append(why)
                else:
                    answers[number] = completion.text
        for words, numbers in choices.items():
            choose = partial(self._choose, wishes, words)
            answers |= _each(choose, numbers, running, reasons)
        return answers

    def _write(
        self,
        wishes: Mapping[int, Wish],
        settings: SamplingSettings,
        seeds: Mapping[int, int],
        numbers: Sequence[int],
    ) -> list[Completion]:
        prefixes = [_prefix(wishes[number]) for number in numbers]
        drawn = self._policy.complete(prefixes, 1, settings, [seeds[n] for n in numbers])
        return [completions[0] for completions in drawn]

    def _choose(
        self, wishes: Mapping[int, Wish], words: Sequence[str], numbers: Sequence[int]
    ) -> Sequence[list[float] | None]:
        if not isinstance(self._policy, Chooser):
            return [None] * len(numbers)
        return self._policy.choose([_prefix(wishes[number]) for number in numbers], words)


def _each(
    ask: Callable[[Sequence[int]], Sequence[Any]],
    numbers: Sequence[int],
    running: Sequence[_Running],
    reasons: Sequence[list[str]],
) -> dict[int, Any]:
    """Answers of one call; where an input is too long, each goes alone and that one drops out."""
    try:
        return dict(zip(numbers, ask(numbers), strict=True))
    except InputTooLong as error:
        if len(numbers) == 1:
            reasons[running[numbers[0]].trajectory].append(str(error))
            return {}
    answers: dict[int, Any] = {}
    for number in numbers:
        answers |= _each(ask, [number], running, reasons)
    return answers


def _prefix(wish: Wish) -> Trajectory:
    assert isinstance(wish, Write | Choose)
    messages: tuple[Message, ...] = wish.messages
    steps = (Step(text=wish.reply),) if wish.reply else ()
    return Trajectory(problem=Problem(id="critique", messages=messages), steps=steps)
