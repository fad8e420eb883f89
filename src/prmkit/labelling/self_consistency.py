"""Step labels without reference answers: the answer that most rollouts reach takes their place.

Any estimator that judges by final answers runs inside: its rollouts are judged by the majority's
answer instead of the reference, which is never looked at.

Reference: Wang et al. 2022, self-consistency, arXiv:2203.11171.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from typing import NamedTuple

from prmkit.answers import group_answers, same_answer
from prmkit.labelling.rollouts import MakeEstimator, Outcomes, Rollout, Rollouts
from prmkit.records import Problem, StepLabels, Trajectory, Unscored
from prmkit.settings import at_least


class Consistent(NamedTuple):
    """Labels by self-consistency.

    Attributes:
        labels: each with a `certainty` of at most `share`, or why there are none.
        answer: the majority's.
        share: of the votes that it has. Where it is calibrated, it is how likely that answer is
            the right one.
    """

    labels: StepLabels | Unscored
    answer: str | None = None
    share: float | None = None


def self_consistency(
    trajectory: Trajectory, estimator: MakeEstimator, *, votes: int = 8
) -> Generator[list[Rollouts], list[Outcomes], Consistent]:
    """Label by an estimator whose rollouts are judged by the majority's answer.

    Args:
        trajectory: its problem's reference answer, and whether the trajectory is right, are not
            looked at.
        estimator: starts what labels.
        votes: completions of the problem alone. The most frequent answer among them is the
            majority's; one without an answer votes for none, but counts in the share.

    Returns:
        A generator that ends with `Consistent`. Without a majority (no answer at all, or two as
        frequent) the solution is not labelled.
    """
    at_least(1, votes=votes)
    (drawn,) = yield [Rollouts(trajectory.prefix(0), votes)]
    stated = [one.answer for one in drawn]
    classes = group_answers(stated)
    ranked = Counter(i for i in classes if i is not None).most_common(2)
    name = f"self-consistency, {votes} votes"
    if not ranked:
        return Consistent(Unscored(reason=f"none of {votes} votes has an answer", model=name))
    answer, *others = [stated[classes.index(i)] for i, _ in ranked]
    assert answer is not None
    share = ranked[0][1] / votes
    if others and ranked[0][1] == ranked[1][1]:
        reason = f"{answer!r} and {others[0]!r} have {ranked[0][1]} votes each"
        return Consistent(Unscored(reason=reason, model=name))
    problem = trajectory.problem
    task = estimator(_referenced(trajectory, answer))
    try:
        wishes = next(task)
        while True:
            # The completer sees the problem itself: its rollouts are anybody's.
            replies = yield [Rollouts(_of(problem, w.prefix), w.n) for w in wishes]
            wishes = task.send([[_judged(one, answer) for one in reply] for reply in replies])
    except StopIteration as done:
        labels: StepLabels | Unscored = done.value
    if isinstance(labels, StepLabels):
        labels = _with_share(labels, share, name)
    return Consistent(labels, answer, share)


def _is(answer: str, stated: str | None) -> bool:
    return stated is not None and same_answer(answer, stated) == "equal"


def _referenced(trajectory: Trajectory, answer: str) -> Trajectory:
    """The trajectory, as if the majority's answer were the reference."""
    ended = trajectory.finish in ("eos", "answer")
    return trajectory.model_copy(
        update={
            "problem": trajectory.problem.model_copy(update={"answer": answer}),
            "correct": _is(answer, trajectory.answer) if ended else None,
        }
    )


def _of(problem: Problem, prefix: Trajectory) -> Trajectory:
    return prefix.model_copy(update={"problem": problem})


def _judged(rollout: Rollout, answer: str) -> Rollout:
    return rollout if rollout.error else rollout._replace(correct=_is(answer, rollout.answer))


def _with_share(labels: StepLabels, share: float, name: str) -> StepLabels:
    """No label is surer than the majority is."""
    sure: Sequence[float | None] = labels.certainty or tuple(
        None if value is None else 1.0 for value in labels.values
    )
    return labels.model_copy(
        update={
            "certainty": tuple(None if one is None else one * share for one in sure),
            "source": f"{name}, {labels.source}",
        }
    )
