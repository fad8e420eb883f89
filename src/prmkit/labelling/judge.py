"""Step labels by a chat model that reads the solution: which paragraph is wrong first?

A judge needs no reference answer and finds mistakes that a completer repairs; it also finds some
that are none. Its critiques are rollouts of the task that it is given: drawn together with those of
other solutions, kept, and never drawn twice.
"""

from __future__ import annotations

from collections import Counter

from prmkit.labelling.rollouts import Estimator, Rollouts
from prmkit.records import Problem, StepLabels, Trajectory, Unscored
from prmkit.scorers.base import beyond_text
from prmkit.scorers.families.judge import messages, right_steps
from prmkit.settings import at_least


def judge(trajectory: Trajectory, *, votes: int = 1) -> Estimator:
    """Label steps by the first wrong paragraph that most of some critiques name.

    A critique ends in one number; one that does not, or names a paragraph that is not there, has
    no vote. Where none has, or two places have the most votes, the solution is not labelled.

    Args:
        trajectory: needs no reference answer, and none is shown to the judge.
        votes: critiques. One of them is greedy decoding where the temperature is 0.

    Returns:
        A generator; hard labels: 1 before the first wrong step, 0 at it, none after it. Each
        label's `certainty` is the share of votes that agree with it. `Unscored` with the reason
        where there are no labels.

    Reference: Zheng et al. 2024, ProcessBench, arXiv:2412.06559, appendix (the task; the words are
    ours).
    """
    at_least(1, votes=votes)
    n_steps, source = len(trajectory.steps), f"judge, {votes} votes"
    why = beyond_text(trajectory)
    if why is not None:
        return Unscored(reason=why, model=source)
    if not n_steps:
        return StepLabels(values=(), kind="hard", source=source)
    task = Trajectory(problem=Problem(id="critique", messages=messages(trajectory)))
    (critiques,) = yield [Rollouts(task, votes)]
    read = [one.error or right_steps(one.text, n_steps) for one in critiques]
    places = Counter(place for place in read if isinstance(place, int))
    ranked = places.most_common(2)
    if not ranked:
        reasons = [place for place in read if isinstance(place, str)]
        return Unscored(reason=f"no critique gave a verdict: {reasons[0]}", model=source)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return Unscored(
            reason=f"{ranked[0][0]} and {ranked[1][0]} right steps have {ranked[0][1]} votes each",
            model=source,
        )
    first, n_votes = ranked[0][0], places.total()
    beyond = [sum(n for place, n in places.items() if place > i) / n_votes for i in range(first)]
    labelled = [1.0] * first + [0.0] * (first < n_steps)
    sure = beyond + [places[first] / n_votes] * (first < n_steps)
    left = (None,) * (n_steps - len(labelled))
    return StepLabels(
        values=(*labelled, *left), kind="hard", certainty=(*sure, *left), source=source
    )
