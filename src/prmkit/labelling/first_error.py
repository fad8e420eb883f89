"""The first wrong step by binary search: log2(S) prefixes are rolled out instead of S.

A prefix from which a completion reaches the answer can have no step after which none does; so the
search is exact for hard labels, and not for soft ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

from prmkit.labelling.monte_carlo import waves
from prmkit.labelling.rollouts import (
    NOTHING,
    Estimator,
    Outcomes,
    Rollouts,
    Tally,
    is_finished,
    needs_reference,
)
from prmkit.records import StepLabels, Trajectory
from prmkit.settings import at_least


class Probe(NamedTuple):
    """A prefix that was decided.

    Attributes:
        holds: whether the answer can still be reached from it.
        tally: what that rests on.
    """

    holds: bool
    tally: Tally


def first_error(
    trajectory: Trajectory, *, n_rollouts: int = 8, stop_at_success: bool = True
) -> Estimator:
    """The first step from which none of K completions is right, by binary search.

    Args:
        trajectory: with a reference answer.
        n_rollouts: K.
        stop_at_success: ask in waves and no more once one completion is right.

    Returns:
        A generator; hard labels: 1 before the first wrong step, 0 at it, none after it.

    Reference: Luo et al. 2024, OmegaPRM, arXiv:2406.06592, section 3.2.
    """
    at_least(1, n_rollouts=n_rollouts)
    needs_reference(trajectory)
    sizes = waves(n_rollouts) if stop_at_success else [n_rollouts]

    def probe(prefix: Trajectory) -> Generator[list[Rollouts], list[Outcomes], Probe]:
        tally = NOTHING
        for size in sizes:
            (outcomes,) = yield [Rollouts(prefix, size)]
            tally = tally.add(outcomes)
            if stop_at_success and tally.successes:
                break
        return Probe(tally.successes > 0, tally)

    return (yield from _search(trajectory, probe, f"first_error, {n_rollouts} rollouts"))


MakeProbe = Callable[[Trajectory], Generator[list[Rollouts], list[Outcomes], Probe]]


def _search(
    trajectory: Trajectory, probe: MakeProbe, source: str, trust_right: bool = True
) -> Generator[list[Rollouts], list[Outcomes], StepLabels]:
    """Find the first prefix that does not hold; each is probed once at most."""
    n_steps = len(trajectory.steps)
    tallies: list[Tally | None] = [None] * n_steps
    # The answer is within reach after `good` steps, and no longer after `bad`.
    good, bad = 0, n_steps + 1
    if is_finished(trajectory) and n_steps:
        tallies[-1] = Tally(int(bool(trajectory.correct)), 1)
        if not trajectory.correct:
            bad = n_steps
        elif trust_right:
            good = n_steps
    while bad - good > 1:
        middle = (good + bad) // 2
        found = yield from probe(trajectory.prefix(middle))
        tallies[middle - 1] = found.tally
        if found.holds:
            good = middle
        else:
            bad = middle
    values = tuple(
        1.0 if i < good else 0.0 if i == good and bad <= n_steps else None for i in range(n_steps)
    )
    return StepLabels(
        values=values,
        kind="hard",
        successes=tuple(None if t is None else t.successes for t in tallies),
        trials=tuple(None if t is None else t.trials for t in tallies),
        source=source,
    )


def sequential(
    trajectory: Trajectory,
    *,
    error_rate: float = 0.05,
    kept: float = 0.8,
    left: float = 0.08,
    root_rollouts: int = 8,
    most: int = 32,
    trust_right: bool = True,
) -> Estimator:
    """The first wrong step by binary search, each prefix decided by a sequential test.

    After a right step the completer still succeeds about as often as from the problem alone (at
    least `kept` of that), after a wrong one hardly ever (`left` of it: completers repair some
    errors). Wald's test asks for one rollout after the other until the likelihood ratio of the two
    leaves [error_rate / (1 - error_rate), (1 - error_rate) / error_rate], or `most` were drawn. So
    more rollouts never make a label worse, as they do for any-of-K, where a wrong step that can be
    repaired turns right.

    The rollouts of the problem alone are shared by all of its solutions, since a driver keeps
    every rollout by its prefix. A solution whose own answer is right is itself one success of each
    of its prefixes: with `trust_right` that settles it, else it is one rollout among others, and a
    right answer that came by luck after a wrong step can be found out.

    Args:
        trajectory: with a reference answer.
        error_rate: of each test, for both kinds of error, where its two chances hold.
        kept: of the problem's own value, after a right step.
        left: of the problem's own value, after a wrong step.
        root_rollouts: of the problem alone.
        most: rollouts of one prefix at most; then the likelier of the two is taken.
        trust_right: whether all steps of a solution with the right answer are right.

    Returns:
        A generator; hard labels: 1 before the first wrong step, 0 at it, none after it. The counts
        of each prefix are its posterior, Beta(successes + 1, failures + 1), and training may weight
        by its certainty.

    Reference: Wald 1945, the sequential probability ratio test; the comparison with the value
    before, as in GenPRM, arXiv:2504.00891, section 3.2.
    """
    at_least(1, root_rollouts=root_rollouts, most=most)
    if not 0 < error_rate < 0.5:
        raise ValueError(f"error_rate is {error_rate!r}; it must be above 0 and below 0.5")
    if not 0 < left < kept <= 1:
        raise ValueError(f"left is {left!r} and kept {kept!r}; 0 < left < kept <= 1 is needed")
    needs_reference(trajectory)
    own = Tally(1, 1) if is_finished(trajectory) and trajectory.correct else NOTHING
    settled = bool(own.successes) and trust_right
    value = 0.5
    if trajectory.steps and not settled:
        (outcomes,) = yield [Rollouts(trajectory.prefix(0), root_rollouts)]
        root = NOTHING.add(outcomes)
        # The mean of the posterior: never 0, so that a test remains possible.
        value = (root.successes + 0.5) / (root.trials + 1)
    p_right, p_wrong = kept * value, left * value
    bound = math.log((1 - error_rate) / error_rate)
    success = math.log(p_right / p_wrong)
    failure = math.log((1 - p_right) / (1 - p_wrong))

    def probe(prefix: Trajectory) -> Generator[list[Rollouts], list[Outcomes], Probe]:
        tally = own
        while True:
            ratio = tally.successes * success + (tally.trials - tally.successes) * failure
            if abs(ratio) >= bound or tally.trials - own.trials >= most:
                return Probe(ratio > 0, tally)
            # As many as could decide it at once if all failed, but one at least.
            needed = math.ceil((ratio + bound) / -failure) if failure else 1
            size = max(1, min(needed, most - (tally.trials - own.trials), _AT_ONCE))
            (outcomes,) = yield [Rollouts(prefix, size)]
            before, tally = tally, tally.add(outcomes)
            if tally == before:
                # Nothing could be judged: ask no further.
                return Probe(ratio >= 0, tally)

    source = f"sequential, error rate {error_rate}"
    return (yield from _search(trajectory, probe, source, trust_right=trust_right))


_AT_ONCE = 2
"""Rollouts of a prefix in one wave of the sequential test."""
