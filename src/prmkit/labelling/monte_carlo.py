"""Step labels by rollouts: how often do completions from a prefix reach the right answer?

What is estimated is Q of the completer at the prefix: the chance that *this policy* still gets
the answer. That is not correctness: a strong policy repairs wrong steps, a weak one fails after
right ones.
"""

from __future__ import annotations

from typing import Literal

from prmkit.errors import InvalidRecord
from prmkit.labelling.rollouts import Estimator, Outcomes, Rollouts
from prmkit.records import StepLabels, Trajectory
from prmkit.settings import at_least


def monte_carlo(
    trajectory: Trajectory, *, n_rollouts: int = 8, kind: Literal["hard", "soft"] = "hard"
) -> Estimator:
    """Label every step by `n_rollouts` completions from the prefix that it ends.

        hard: y_i = 1 if any of the K completions is right, else 0
        soft: y_i = (right completions) / K

    The last step of a finished trajectory needs no rollout: its outcome is known. A completion
    that could not be judged is no trial; a step without trials is not labelled.

    Args:
        trajectory: with a reference answer; its `correct` is used where it is known.
        n_rollouts: K.
        kind: any-of-K, or the share.

    Returns:
        A generator, see `prmkit.labelling.rollouts.Estimator`.

    Reference: Wang et al. 2023, Math-Shepherd, arXiv:2312.08935, eq. 3 (hard) and 4 (soft).
    """
    at_least(1, n_rollouts=n_rollouts)
    if trajectory.problem.answer is None:
        raise InvalidRecord(
            f"problem {trajectory.problem.id!r} has no reference answer, so no completion of it "
            "can be judged"
        )
    n_steps = len(trajectory.steps)
    outcome_known = trajectory.finish in ("eos", "answer") and trajectory.correct is not None
    n_asked = n_steps - 1 if outcome_known else n_steps
    outcomes: list[Outcomes] = []
    if n_asked > 0:
        outcomes += yield [Rollouts(trajectory.prefix(i + 1), n_rollouts) for i in range(n_asked)]
    if outcome_known and n_steps:
        outcomes.append([trajectory.correct])
    judged = [[won for won in of_step if won is not None] for of_step in outcomes]
    successes = tuple(sum(of_step) for of_step in judged)
    trials = tuple(len(of_step) for of_step in judged)
    values = tuple(
        None if not ran else float(won > 0) if kind == "hard" else won / ran
        for won, ran in zip(successes, trials, strict=True)
    )
    return StepLabels(
        values=values,
        kind=kind,
        successes=successes,
        trials=trials,
        source=f"monte_carlo, {n_rollouts} rollouts",
    )
