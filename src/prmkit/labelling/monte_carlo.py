"""Step labels by rollouts: how often do completions from a prefix reach the right answer?

What is estimated is Q of the completer at the prefix, r(s, a) ~ Q^pi(s, a): the chance that *this
policy* still gets the answer. That is not correctness: a strong policy repairs wrong steps, a weak
one fails after right ones.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Literal

from prmkit.errors import InvalidSetting
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
from prmkit.settings import above, at_least

WAVES = (1, 1, 1, 1, 2, 2, 4, 4, 8, 16, 32, 64)
"""How many rollouts are asked for at a time where a success may end it."""


def monte_carlo(
    trajectory: Trajectory,
    *,
    n_rollouts: int = 8,
    kind: Literal["hard", "soft"] = "hard",
    stop_at_success: bool = False,
    stop_at_error: bool = False,
    eta: float = 0.0,
) -> Estimator:
    """Label every step by `n_rollouts` completions from the prefix that it ends.

        hard: y_i = 1 if any of the K completions is right, else 0
        soft: y_i = (right completions) / K, or with eta the log-mean-exp of their rewards,
              y_i = 1/eta log(1/K sum of exp(eta * [right]))

    The last step of a finished trajectory needs no rollout: its outcome is known. A completion
    that could not be judged is no trial; a step without trials is not labelled.

    Args:
        trajectory: with a reference answer; its `correct` is used where it is known.
        n_rollouts: K.
        kind: any-of-K, or the share.
        stop_at_success: of hard labels: ask in waves, and no more once one is right. The labels
            are those of any-of-K to the letter, since the waves are its first completions.
        stop_at_error: step by step, and no more after the first step labelled 0, as Math-Shepherd
            trains; later steps are not labelled.
        eta: of soft labels: how much a right completion counts above a wrong one, as in
            KL-regularised RL whose reference policy is the completer; 0 is the mean, and the more,
            the nearer to any-of-K.

    Returns:
        A generator, see `prmkit.labelling.rollouts.Estimator`.

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, eq. 3 (hard) and 4 (soft);
    Zhang et al. 2024, ER-PRM, arXiv:2412.11006, for eta.
    """
    at_least(1, n_rollouts=n_rollouts)
    check(kind, stop_at_success=stop_at_success, eta=eta)
    needs_reference(trajectory)
    n_steps = len(trajectory.steps)
    known = is_finished(trajectory) and n_steps > 0
    n_asked = n_steps - 1 if known else n_steps
    tallies: list[Tally] = [NOTHING] * n_asked
    stretches = [[i] for i in range(n_asked)] if stop_at_error else [list(range(n_asked))]
    for steps in stretches:
        found = yield from _tally(trajectory, steps, n_rollouts, stop_at_success)
        for i, tally in zip(steps, found, strict=True):
            tallies[i] = tally
        if stop_at_error and tallies[steps[0]].trials and not tallies[steps[0]].successes:
            break
    else:
        if known:
            tallies.append(Tally(int(bool(trajectory.correct)), 1))
    tallies += [NOTHING] * (n_steps - len(tallies))
    named = f", eta {eta:g}" if eta else ""
    return labels_of(tallies, kind, f"monte_carlo, {n_rollouts} rollouts{named}", eta)


def check(kind: Literal["hard", "soft"], *, stop_at_success: bool, eta: float) -> None:
    """Refuse what has no meaning for labels of a kind."""
    at_least(0, eta=eta)
    if stop_at_success and kind == "soft":
        raise InvalidSetting("a share of K needs all K: stop_at_success is for hard labels")
    if eta and kind == "hard":
        raise InvalidSetting("eta weights the share of right completions: it is for soft labels")


def _tally(
    trajectory: Trajectory, steps: Sequence[int], n_rollouts: int, stop_at_success: bool
) -> Generator[list[Rollouts], list[Outcomes], list[Tally]]:
    """Roll out the prefixes that end with some steps, together."""
    tallies = dict.fromkeys(steps, NOTHING)
    for size in waves(n_rollouts) if stop_at_success else [n_rollouts]:
        open_steps = [i for i in steps if not (stop_at_success and tallies[i].successes)]
        if not open_steps:
            break
        replies = yield [Rollouts(trajectory.prefix(i + 1), size) for i in open_steps]
        for i, outcomes in zip(open_steps, replies, strict=True):
            tallies[i] = tallies[i].add(outcomes)
    return [tallies[i] for i in steps]


def waves(n: int) -> list[int]:
    """`n` rollouts in waves that grow: single ones first."""
    sizes: list[int] = []
    for size in WAVES:
        if sum(sizes) >= n:
            break
        sizes.append(min(size, n - sum(sizes)))
    rest = n - sum(sizes)
    return sizes + ([rest] if rest else [])


def log_mean_exp(share: float, eta: float) -> float:
    """1/eta log(1 - share + share * exp(eta)), in [0, 1]; the share itself where eta is 0."""
    if eta < 1e-12 or share in (0, 1):
        return share  # The two differ by less than eta / 8.
    # Rewritten so that neither a large eta overflows nor a small one cancels.
    return min(max(1 + math.log1p((1 - share) * math.expm1(-eta)) / eta, 0.0), 1.0)


def labels_of(
    tallies: Sequence[Tally], kind: Literal["hard", "soft"], source: str, eta: float = 0.0
) -> StepLabels:
    """Labels of prefixes: any success, or the share; None where nothing could be judged."""

    def value(tally: Tally) -> float | None:
        if not tally.trials:
            return None
        if kind == "hard":
            return float(tally.successes > 0)
        return log_mean_exp(tally.successes / tally.trials, eta)

    return StepLabels(
        values=tuple(map(value, tallies)),
        kind=kind,
        successes=tuple(t.successes for t in tallies),
        trials=tuple(t.trials for t in tallies),
        source=source,
    )


def relative(
    trajectory: Trajectory,
    *,
    n_rollouts: int = 8,
    to: Literal["previous", "root"] = "previous",
    least: float = 0.8,
) -> Estimator:
    """Label a step by how much of the value before it is left after it.

        P_i = MC(prefix with step i) / MC(prefix before it), or / MC(the problem alone)

    A step is right while P_i is at least `least`. After the first prefix from which no completion
    is right all steps are wrong. Against "previous" it is GenPRM's relative progress; against
    "root" it asks whether the solution so far is worth less than none.

    Args:
        trajectory: with a reference answer.
        n_rollouts: of each prefix.
        to: what a prefix's value is compared with.
        least: the smallest ratio of a right step.

    Reference: Zhao et al. 2025, GenPRM, arXiv:2504.00891, section 3.2 (ratio, 0.8); the difference
    of the same values is the advantage of Setlur et al. 2024, PAV, arXiv:2410.08146, eq. 2.
    """
    at_least(1, n_rollouts=n_rollouts)
    above(0, least=least)
    needs_reference(trajectory)
    n_steps = len(trajectory.steps)
    known = is_finished(trajectory) and n_steps > 0
    asked = list(range(n_steps if known else n_steps + 1))
    replies = (yield [Rollouts(trajectory.prefix(i), n_rollouts) for i in asked]) if n_steps else []
    tallies = [NOTHING.add(outcomes) for outcomes in replies]
    if known:
        tallies.append(Tally(int(bool(trajectory.correct)), 1))
    values: list[float | None] = []
    lost = False
    for i in range(1, n_steps + 1):
        before, now = tallies[i - 1 if to == "previous" else 0], tallies[i]
        if not before.trials or not now.trials:
            values.append(None)
        elif lost or not now.successes:
            lost = True
            values.append(0.0)
        else:
            share = now.successes / now.trials
            # From nothing to something is progress.
            ratio = share * before.trials / before.successes if before.successes else 1.0
            values.append(float(ratio >= least))
    return StepLabels(
        values=tuple(values),
        kind="hard",
        successes=tuple(t.successes for t in tallies[1:]),
        trials=tuple(t.trials for t in tallies[1:]),
        source=f"relative to {to}, {n_rollouts} rollouts",
    )
