"""The first wrong step by search: a few prefixes are rolled out instead of all.

A prefix from which a completion reaches the answer can have no step after which none does; so
binary search is exact for labels of any-of-K, and not for soft ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prmkit.errors import InvalidSetting
from prmkit.labelling.monte_carlo import waves
from prmkit.labelling.rollouts import (
    NOTHING,
    Estimator,
    Rollouts,
    Tally,
    is_finished,
    needs_reference,
)
from prmkit.records import StepLabels, Trajectory
from prmkit.settings import at_least


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
    n_steps = len(trajectory.steps)
    tallies: list[Tally | None] = [None] * n_steps
    # The answer is within reach after `good` steps, and no longer after `bad`.
    good, bad = 0, n_steps + 1
    if is_finished(trajectory) and n_steps:
        tallies[-1] = Tally(int(bool(trajectory.correct)), 1)
        good, bad = (n_steps, bad) if trajectory.correct else (good, n_steps)
    while bad - good > 1:
        middle = (good + bad) // 2
        tally = NOTHING
        for size in sizes:
            (outcomes,) = yield [Rollouts(trajectory.prefix(middle), size)]
            tally = tally.add(outcomes)
            if stop_at_success and tally.successes:
                break
        tallies[middle - 1] = tally
        if not tally.trials:
            # Nothing could be judged here: what is not known to be right stays open.
            bad = n_steps + 1
            break
        good, bad = (middle, bad) if tally.successes else (good, middle)
    return StepLabels(
        values=tuple(
            1.0 if i < good else 0.0 if i == good and bad == good + 1 <= n_steps else None
            for i in range(n_steps)
        ),
        kind="hard",
        successes=tuple(None if t is None else t.successes for t in tallies),
        trials=tuple(None if t is None else t.trials for t in tallies),
        source=f"first_error, {n_rollouts} rollouts",
    )


def sequential(
    trajectory: Trajectory,
    *,
    error_rate: float = 0.1,
    kept: float = 0.8,
    left: float = 0.05,
    growth: float = 0.5,
    root_rollouts: int = 4,
    most: int = 24,
    trust_right: bool = True,
) -> Estimator:
    """The first wrong step by a sequential test that asks for one rollout after the other.

    After m of n steps that are all right the completer succeeds with about

        p(m) = kept * (v + growth * (1 - v) * m / n)

    where v is its chance from the problem alone: at least nearly as often, and more often the
    nearer the end is. After a wrong step it succeeds with `left` of that, since it repairs some
    errors. So every rollout, wherever it starts, says something of every place where the first
    error may be. Each next one starts where the odds are even that it is before or after; the test
    ends when one place has a posterior of 1 - error_rate, or `most` rollouts were drawn. More
    rollouts never make a label worse, as they do for any-of-K, where a wrong step that can be
    repaired turns right.

    The rollouts of the problem alone are shared by all of its solutions, since a driver keeps
    every rollout by its prefix. A solution whose own answer is right is itself one success of each
    of its prefixes: with `trust_right` that settles it, else it is one rollout among others, and a
    right answer that came by luck after a wrong step can be found out.

    Args:
        trajectory: with a reference answer.
        error_rate: how likely the place may be another one, where the chances above hold.
        kept: of the completer's chance, after right steps.
        left: of that chance, after a wrong step.
        growth: how far the chance rises towards 1 along a right solution.
        root_rollouts: of the problem alone.
        most: rollouts of prefixes at most; then the likeliest place is taken.
        trust_right: whether all steps of a solution with the right answer are right.

    Returns:
        A generator; hard labels: 1 before the first wrong step, 0 at it, none after it, each with
        its posterior as `certainty`.

    Reference: Horstein 1963, probabilistic bisection, with Wald's sequential test (1945) for when
    to stop; the comparison with the value before, as in GenPRM, arXiv:2504.00891, section 3.2.
    """
    at_least(1, root_rollouts=root_rollouts, most=most)
    _check_chances(error_rate, kept, left, growth)
    needs_reference(trajectory)
    n = len(trajectory.steps)
    source, finished = f"sequential, error rate {error_rate}", is_finished(trajectory)
    if not n or (finished and trajectory.correct and trust_right):
        return StepLabels(values=(1.0,) * n, kind="hard", source=source)
    # Place e: e steps are right. Where the answer does not tell, that all are is a place too.
    places = n if finished and not trajectory.correct else n + 1
    if places == 1:
        return _decided([1.0], n, {}, source)
    root = NOTHING.add(*(yield [Rollouts(trajectory.prefix(0), root_rollouts)]))
    # The mean of the posterior with Jeffreys' prior: never 0, so that a test remains possible.
    value = (root.successes + 0.5) / (root.trials + 1)
    right = [kept * (value + growth * (1 - value) * m / n) for m in range(n + 1)]
    weights = [1.0] * places
    if finished and trajectory.correct:
        weights = [left if e < n else 1.0 for e in range(places)]
    tallies: dict[int, Tally] = {}
    for _ in range(most):
        total = math.fsum(weights)
        if max(weights) >= (1 - error_rate) * total:
            break
        m = _even_odds(weights, n)
        (outcomes,) = yield [Rollouts(trajectory.prefix(m), 1)]
        found = NOTHING.add(outcomes)
        if not found.trials:
            break  # What cannot be judged here will not be judged the next time.
        tallies[m] = tallies.get(m, NOTHING).add(outcomes)
        for e in range(places):
            chance = right[m] if m <= e else left * right[m]
            weights[e] *= chance if found.successes else 1 - chance
    return _decided(weights, n, tallies, source)


def check_error_rate(error_rate: float) -> None:
    """Refuse a share of errors that no test can have, or that no test is needed for."""
    if not 0 < error_rate < 0.5:
        raise InvalidSetting(f"error_rate is {error_rate!r}; it must be above 0 and below 0.5")


def _check_chances(error_rate: float, kept: float, left: float, growth: float) -> None:
    check_error_rate(error_rate)
    if not 0 < left < 1 or not 0 < kept < 1 or not 0 <= growth <= 1:
        raise InvalidSetting(
            f"left is {left!r}, kept {kept!r} and growth {growth!r}; left and kept must be between "
            "0 and 1, growth from 0 to 1"
        )


def _even_odds(weights: Sequence[float], n: int) -> int:
    """The prefix of which it is likeliest even whether it holds: at least a step, at most all."""
    total, before = math.fsum(weights), 0.0
    gaps = []
    for m in range(1, min(n, len(weights) - 1) + 1):
        before += weights[m - 1]
        gaps.append(abs(before / total - 0.5))
    return 1 + min(range(len(gaps)), key=gaps.__getitem__) if gaps else 1


def _decided(
    weights: Sequence[float], n: int, tallies: dict[int, Tally], source: str
) -> StepLabels:
    """The labels of the likeliest place, each with its posterior."""
    total = math.fsum(weights)
    shares = [w / total for w in weights]
    place = max(range(len(shares)), key=shares.__getitem__)
    certainty = [
        math.fsum(shares[i + 1 :]) if i < place else shares[i] if i == place else None
        for i in range(n)
    ]
    return StepLabels(
        values=tuple(1.0 if i < place else 0.0 if i == place else None for i in range(n)),
        kind="hard",
        successes=tuple(tallies[i + 1].successes if i + 1 in tallies else None for i in range(n)),
        trials=tuple(tallies[i + 1].trials if i + 1 in tallies else None for i in range(n)),
        certainty=tuple(None if c is None else min(c, 1.0) for c in certainty),
        source=source,
    )
