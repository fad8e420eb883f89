"""Whole solutions from a policy: problems in, trajectories out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

from prmkit.answers import extract_answer, same_answer
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import FINISH_OF, Completion, Policy, SamplingSettings
from prmkit.records import Problem, Step, Trajectory

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What a solution's text comes to.

    Attributes:
        answer: the final answer that it states, or None.
        correct: whether that is the reference answer; None where that cannot be judged.
    """

    answer: str | None
    correct: bool | None


Judge = Callable[[Problem, str], Outcome]
"""From a problem and a whole solution text to its outcome."""


def judge_by_answer(problem: Problem, text: str) -> Outcome:
    """Judge a solution by its final answer, compared with the reference.

    A solution that states no answer is wrong. Where there is no reference, or the two cannot be
    compared in time, it is not known whether it is right.
    """
    answer = extract_answer(text, last_number=True)
    if problem.answer is None:
        return Outcome(answer, None)
    if answer is None:
        return Outcome(None, False)
    verdict = same_answer(problem.answer, answer)
    return Outcome(answer, {"equal": True, "different": False}.get(verdict))


_STORED = TypeAdapter(tuple[Trajectory, ...])


def sample(
    policy: Policy,
    problems: Sequence[Problem],
    n: int,
    split: Callable[[str], Sequence[str]],
    judge: Judge,
    *,
    settings: SamplingSettings,
    seed: int = 0,
    in_flight: int = 16,
    ledger: Ledger | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_error: Callable[[Problem, str], None] | None = None,
) -> Iterator[tuple[Trajectory, ...]]:
    """Draw `n` solutions of each problem.

    Args:
        policy: who solves.
        problems: what is to be solved.
        n: solutions of each.
        split: text to the texts of its steps; they must join back to it.
        judge: the outcome of a solution.
        settings: how to draw.
        seed: each problem draws from a seed of its own, made from this one and its id.
        in_flight: problems that share a call of the policy.
        ledger: where finished problems are noted, and found again on resuming.
        on_progress: told the problems done since the last call.
        on_error: told of each solution that could not be drawn, with the reason; by default the
            first of each problem is logged.

    Yields:
        The solutions of one problem, in the order of the problems. One that could not be drawn
        has the finish ``error``, no step and no verdict; its problem is not noted in the ledger,
        so that it is tried again on resuming.
    """
    for at in range(0, len(problems), in_flight):
        group = problems[at : at + in_flight]
        known = [None if ledger is None else ledger.get(problem.id) for problem in group]
        open_ones = [p for p, stored in zip(group, known, strict=True) if stored is None]
        drawn = iter(
            policy.complete(
                [Trajectory(problem=problem) for problem in open_ones],
                n,
                settings,
                [seed_for(seed, problem.id) for problem in open_ones],
            )
            if open_ones
            else []
        )
        solved: list[tuple[Trajectory, ...]] = []
        fresh: dict[str, str] = {}
        for problem, stored in zip(group, known, strict=True):
            if stored is not None:
                solved.append(_STORED.validate_json(stored))
                continue
            completions = next(drawn)
            solutions = tuple(
                _trajectory(problem, completion, split, judge, policy.name)
                for completion in completions
            )
            errors = [c.error or "no reason given" for c in completions if c.finish == "error"]
            if errors:
                _tell(problem, errors, on_error)
            else:
                fresh[problem.id] = _STORED.dump_json(solutions).decode()
            solved.append(solutions)
        if ledger is not None and fresh:
            ledger.put(fresh)
        if on_progress is not None:
            on_progress(len(group))
        yield from solved


def _tell(
    problem: Problem, errors: list[str], on_error: Callable[[Problem, str], None] | None
) -> None:
    if on_error is None:
        logger.warning(
            "%d solutions of %r could not be drawn: %s", len(errors), problem.id, errors[0]
        )
        return
    for error in errors:
        on_error(problem, error)


def _trajectory(
    problem: Problem,
    completion: Completion,
    split: Callable[[str], Sequence[str]],
    judge: Judge,
    generator: str,
) -> Trajectory:
    if completion.finish == "error":
        # Nothing was said: neither an answer nor a wrong one.
        return Trajectory(problem=problem, finish="error", generator=generator)
    outcome = judge(problem, completion.text)
    return Trajectory(
        problem=problem,
        steps=tuple(Step(text=text) for text in split(completion.text)),
        finish=FINISH_OF[completion.finish],
        answer=outcome.answer,
        correct=outcome.correct,
        generator=generator,
    )
