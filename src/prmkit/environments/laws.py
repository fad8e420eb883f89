"""The laws of environments; `prmkit.testing.check_environment` runs them all.

Each takes a `Trial`: how an environment is made, which of its tasks are tried, and what may be
done in it where it does not list that itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prmkit.environments.base import (
    OVER,
    Environment,
    MakeEnvironment,
    Planner,
    Reply,
    Task,
    replay,
    task_of,
)
from prmkit.errors import EnvironmentFailed, LawBroken, UnknownName
from prmkit.records import Step

UGLY_ACTIONS = (
    "",
    " \n\t ",
    "x" * 200_000,
    "(" * 5_000,
    '{"name": ' * 3_000,
    "[" * 3_000,
    '{"name": "answer", "arguments": {"answer": NaN}}',
    '{"name": "answer", "arguments": "{"}',
    '{"name": 3, "arguments": []}',
    '{"tool_calls": [], "name": null}',
    "null",
    "\x00\x1f\x7f",
    "get ٣ oak log",
    "日本語で動く",
    "e\u0301 \u200d👩‍👩‍👧 \U0001f9ee",
    "\u2028\u2029\x85",
    "half of a pair: \ud800",
    "<|im_end|> </s> <tool_call>",
    "'; DROP TABLE actions; --",
    "__import__('os')._exit(3)",
    "../../../../etc/passwd",
)
"""Actions that no environment knows: none, very long ones, any unicode, JSON that is none."""


class Trial(NamedTuple):
    """What is tried.

    Attributes:
        make: makes one environment.
        tasks: which are begun.
        actions: what may be done, for environments that do not list it.
        steps: of each episode at most.
    """

    make: MakeEnvironment
    tasks: tuple[Task, ...]
    actions: tuple[str, ...] = ()
    steps: int = 10


def _expect(holds: bool, law: str, detail: str) -> None:
    if not holds:
        raise LawBroken(f"{law}: {detail}")


def _choice(trial: Trial, environment: Environment, rng: random.Random) -> str:
    """Something to do: mostly what is allowed, at times what is planned, or nonsense."""
    known = environment.actions()
    choices = list(trial.actions if known is None else known)
    if isinstance(environment, Planner) and rng.random() < 0.5:
        choices = list(_planned(environment)[:1]) or choices
    return rng.choice(choices) if choices and rng.random() < 0.9 else "dance"


def _planned(environment: Planner) -> tuple[str, ...]:
    try:
        return environment.plan()
    except EnvironmentFailed:
        return ()


def _walk(
    trial: Trial, environment: Environment, rng: random.Random, steps: int | None = None
) -> tuple[list[str], list[Reply]]:
    actions: list[str] = []
    replies: list[Reply] = []
    for _ in range(trial.steps if steps is None else steps):
        actions.append(_choice(trial, environment, rng))
        replies.append(environment.step(actions[-1]))
        if replies[-1].done:
            break
    return actions, replies


def _same(law: str, where: str, before: Sequence[Reply], again: Sequence[Reply]) -> None:
    for i, (left, right) in enumerate(zip(before, again, strict=True)):
        _expect(left == right, law, f"{where}, reply {i}: {left!r}, then {right!r}")


def same_task_same_start(trial: Trial) -> None:
    """A task begins in the same way in any environment of its kind, and its problem names it."""
    law = "the same task, the same start"
    one, other = trial.make(), trial.make()
    try:
        for task in trial.tasks:
            start = one.reset(task)
            for again in (other.reset(task), one.reset(task), other.reset(task_of(start.problem))):
                _expect(start == again, law, f"{task}: {start!r}, then {again!r}")
            _expect(
                start.observation in (start.problem.prompt or ""),
                "the prompt shows what is seen first",
                f"{task}: {start.observation!r} is not in {start.problem.prompt!r}",
            )
    finally:
        one.close()
        other.close()


def same_actions_same_future(trial: Trial) -> None:
    """What is answered depends on the task and the actions alone: a replay gives it again."""
    one, other = trial.make(), trial.make()
    try:
        for i, task in enumerate(trial.tasks):
            one.reset(task)
            actions, replies = _walk(trial, one, random.Random(i))
            for environment in (other, one):
                again = replay(environment, task, actions)
                _same("the same actions, the same future", str(task), replies, again.replies)
    finally:
        one.close()
        other.close()


def snapshots_give_the_same_future(trial: Trial) -> None:
    """From a snapshot everything comes as it came: here and elsewhere, and more than once."""
    law = "a snapshot gives the same future"
    one, other = trial.make(), trial.make()
    try:
        for i, task in enumerate(trial.tasks):
            one.reset(task)
            if not one.can_snapshot:
                _refuses_snapshots(one)
                continue
            rng = random.Random(i)
            for steps in (0, 1, trial.steps // 2):
                one.reset(task)
                _walk(trial, one, rng, steps)
                state, allowed = one.snapshot(), one.actions()
                actions, replies = _walk(trial, one, rng)
                for environment in (one, other, one):
                    environment.restore(state)
                    _expect(
                        environment.actions() == allowed, law, f"{task}: other actions are allowed"
                    )
                    again = [environment.step(action) for action in actions]
                    _same(law, f"{task} after {steps} steps", replies, again)
    finally:
        one.close()
        other.close()


def _refuses_snapshots(environment: Environment) -> None:
    try:
        environment.snapshot()
    except EnvironmentFailed:
        return
    _expect(False, "without snapshots there are none", f"{environment.name!r} gave one")


def nonsense_is_answered(trial: Trial) -> None:
    """Malformed actions are answered by an observation, and the episode can go on."""
    law = "nonsense is answered"
    environment = trial.make()
    try:
        environment.reset(trial.tasks[0])
        for action in UGLY_ACTIONS:
            try:
                reply = environment.step(action)
            except Exception as error:
                raise LawBroken(f"{law}: {action!r:.60} raised {error!r}") from error
            _is_sound(reply, f"{action!r:.60}")
            _expect(not reply.success, law, f"{action!r:.60} solved the task")
            if reply.done:
                environment.reset(trial.tasks[0])
        _walk(trial, environment, random.Random(0), 2)
    finally:
        environment.close()


def _is_sound(reply: Reply, where: str) -> None:
    _expect(bool(reply.observation.strip()), "an observation says something", where)
    try:
        Step(text="", observation=reply.observation)
    except ValueError as error:
        raise LawBroken(f"an observation is text: {where}: {error}") from None
    _expect(
        reply.done or reply.success is None,
        "success is told at the end",
        f"{where}: {reply!r}",
    )
    _expect(reply.reward is None or math.isfinite(reply.reward), "finite rewards", f"{reply!r}")


def replies_are_sound(trial: Trial) -> None:
    """Observations are text and not empty; rewards are finite; actions are texts, each once."""
    environment = trial.make()
    try:
        for i, task in enumerate(trial.tasks):
            start = environment.reset(task)
            _is_sound(Reply(start.observation), f"the start of {task}")
            for step in range(trial.steps):
                allowed = environment.actions()
                if allowed is not None:
                    whole = all(isinstance(a, str) and a.strip() for a in allowed)
                    once = len(set(allowed)) == len(allowed)
                    _expect(whole and once, "actions are texts, each once", f"{allowed!r}")
                reply = environment.step(_choice(trial, environment, random.Random(f"{i}/{step}")))
                _is_sound(reply, f"step {step} of {task}")
                if reply.done:
                    break
    finally:
        environment.close()


def the_end_is_the_end(trial: Trial) -> None:
    """After the end nothing happens: the reply is `OVER`, with the success that was."""
    law = "the end is the end"
    environment = trial.make()
    try:
        for i, task in enumerate(trial.tasks):
            environment.reset(task)
            plan = _planned(environment) if isinstance(environment, Planner) else ()
            replies = [environment.step(action) for action in plan]
            if not plan:
                replies = _walk(trial, environment, random.Random(i))[1]
            if not replies or not replies[-1].done:
                continue
            for action in (*trial.actions[:1], *plan[:1], "dance", ""):
                after = environment.step(action)
                expected = Reply(OVER, True, replies[-1].success)
                _expect(after == expected, law, f"{task}: {after!r} after {replies[-1]!r}")
            _expect(not environment.actions(), law, f"{task}: actions are left")
    finally:
        environment.close()


def plans_succeed(trial: Trial) -> None:
    """Where an environment plans, its plan solves the task, from the start and from elsewhere."""
    environment = trial.make()
    try:
        if not isinstance(environment, Planner):
            return
        for i, task in enumerate(trial.tasks):
            for steps in (0, 2):
                environment.reset(task)
                _walk(trial, environment, random.Random(i), steps)
                plan = environment.plan() if steps == 0 else _planned(environment)
                replies = [environment.step(action) for action in plan]
                _expect(
                    all(not reply.done for reply in replies[:-1])
                    and (not replies or replies[-1].success is True)
                    and (steps > 0 or bool(replies)),
                    "plans succeed",
                    f"{task} after {steps} steps: {plan!r} ends in {replies[-1:]!r}",
                )
    finally:
        environment.close()


def misuse_is_told(trial: Trial) -> None:
    """What is done before the first episode, and a kind of task that there is not, are errors."""
    environment = trial.make()
    try:
        for what, use in (
            ("step", lambda: environment.step("dance")),
            ("snapshot", environment.snapshot),
        ):
            try:
                use()
            except EnvironmentFailed:
                continue
            _expect(False, "before the first episode nothing can be done", f"{what} did something")
        try:
            environment.reset(Task(0, "no such task"))
        except UnknownName:
            return
        _expect(False, "an unknown kind of task is an error", "'no such task' was begun")
    finally:
        environment.close()


def closing_twice_is_fine(trial: Trial) -> None:
    """An environment can be closed at any time, more than once."""
    environment = trial.make()
    environment.close()
    environment.close()
    other = trial.make()
    other.reset(trial.tasks[0])
    other.close()
    other.close()


EnvironmentLaw = Callable[[Trial], None]
ENVIRONMENT_LAWS: tuple[EnvironmentLaw, ...] = (
    same_task_same_start,
    same_actions_same_future,
    snapshots_give_the_same_future,
    nonsense_is_answered,
    replies_are_sound,
    the_end_is_the_end,
    plans_succeed,
    misuse_is_told,
    closing_twice_is_fine,
)


def check_environment(
    make: MakeEnvironment,
    tasks: Sequence[Task] | None = None,
    *,
    actions: Sequence[str] = (),
    steps: int = 10,
) -> None:
    """Run every law of `Environment`; raises `LawBroken` on the first that fails.

    Args:
        make: makes one environment.
        tasks: that are tried; by default two of each of the first three kinds.
        actions: what may be done, for environments that do not list it.
        steps: of each episode at most.
    """
    trial = Trial(make, tuple(tasks or default_tasks(make)), tuple(actions), steps)
    for law in ENVIRONMENT_LAWS:
        law(trial)


def default_tasks(make: MakeEnvironment) -> tuple[Task, ...]:
    """Two of each of the first three kinds."""
    environment = make()
    try:
        return tuple(Task(seed, name) for name in environment.tasks[:3] for seed in (0, 1))
    finally:
        environment.close()
