"""What one batch of responses looks like, in the numbers by which a run is followed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.records import StepScores
from prmkit.rl.rollouts import Rollout

RUN = 8
"""Tokens that must come again in one order to count as repeated."""


def measure(
    rollouts: Sequence[Rollout],
    *,
    aggregation: Aggregation = "min",
    earned: Sequence[float] | None = None,
) -> dict[str, float]:
    """The figures of one batch, as in a row of ``metrics.jsonl``; what does not apply is absent.

    known          share of the responses of which it is known whether they are right
    accuracy       share right among those
    prm            mean over scored responses of the one number that their scores come to
    prm_auc        how often a right response is above a wrong one of the same problem; ties half
    prm_slope      slope of correctness over that number, among responses to the same problem
    last_lowest    of scored responses of two steps or more, the share whose lowest score is the
                   last step's; where k steps share the lowest, 1/k, so that equal scores count as
                   chance would have it
    steps, length  means over the responses, of steps and tokens
    repetition     mean over the responses of the larger of two shares: of steps that say what an
                   earlier step said (white space and case aside, blank steps left out), which
                   finds trivial steps between others; and of runs of 8 tokens that stood in the
                   response before, which finds loops wherever steps end
    truncated      share that ended at the limit of tokens
    unscored       share without a number, of those for which scores were asked

    `prm_auc` and `prm_slope` compare the responses of one problem with each other, as training
    does; where no problem has two, all of the batch.

    Args:
        rollouts: of a batch.
        aggregation: step scores to one number.
        earned: of each response the number that its scores come to, in the place of an
            aggregation: what the policy is paid. A monitor must watch what is paid, since that is
            what a policy that fools its judge raises.

    Raises:
        InvalidRecord: if the aggregation makes no sense for these scores.
        ValueError: if there are not as many numbers as responses.
    """
    if not rollouts:
        return {}
    n = len(rollouts)
    known = [r.trajectory.correct for r in rollouts if r.trajectory.correct is not None]
    figures = {"known": len(known) / n}
    if known:
        figures["accuracy"] = sum(known) / len(known)
    figures |= _of_scores(rollouts, aggregation, earned)
    figures["steps"] = sum(len(r.trajectory.steps) for r in rollouts) / n
    figures["length"] = sum(len(r.ids) for r in rollouts) / n
    figures["repetition"] = sum(_repetition(r) for r in rollouts) / n
    figures["truncated"] = sum(r.trajectory.finish == "length" for r in rollouts) / n
    return figures


def _of_scores(
    rollouts: Sequence[Rollout], aggregation: Aggregation, earned: Sequence[float] | None
) -> dict[str, float]:
    n_asked = sum(r.scores is not None for r in rollouts)
    if not n_asked:
        return {}
    numbers = [None] * len(rollouts) if earned is None else earned
    told = [
        (r, r.scores, aggregate_scores(r.scores, aggregation) if number is None else number)
        for r, number in zip(rollouts, numbers, strict=True)
        if isinstance(r.scores, StepScores) and r.scores.values
    ]
    figures = {"unscored": 1 - len(told) / n_asked}
    if not told:
        return figures
    scored = [(r, scores) for r, scores, _ in told]
    overall = [number for _, _, number in told]
    figures["prm"] = sum(overall) / len(overall)
    known = [(r, number) for r, _, number in told if r.trajectory.correct is not None]
    figures |= _of_pairs(known)
    several = [scores.values for _, scores in scored if len(scores.values) > 1]
    if several:
        at_last = [(values[-1] == min(values)) / values.count(min(values)) for values in several]
        figures["last_lowest"] = sum(at_last) / len(several)
    return figures


def _of_pairs(told: Sequence[tuple[Rollout, float]]) -> dict[str, float]:
    """How scores go with correctness, among the responses that training compares."""
    groups: dict[str, list[tuple[float, bool]]] = {}
    for rollout, score in told:
        right = bool(rollout.trajectory.correct)
        groups.setdefault(rollout.trajectory.problem.id, []).append((score, right))
    members = list(groups.values())
    if all(len(group) < 2 for group in members):
        members = [[one for group in members for one in group]]
    won, pairs, both, spread = 0.0, 0, 0.0, 0.0
    for group in members:
        if len(group) < 2:
            continue
        scores = np.array([score for score, _ in group])
        is_right = np.array([right for _, right in group])
        gaps = scores[is_right][:, None] - scores[~is_right][None, :]
        won += float((gaps > 0).sum() + (gaps == 0).sum() / 2)
        pairs += gaps.size
        away = scores - scores.mean()
        both += float(away @ is_right)
        # Equal scores have a mean that differs in the last bit.
        spread += float(away @ away) if np.ptp(scores) > 0 else 0.0
    figures = {}
    if pairs:
        figures["prm_auc"] = won / pairs
    if spread > 0:
        figures["prm_slope"] = both / spread
    return figures


def _repetition(rollout: Rollout) -> float:
    said = [" ".join(s.text.split()).casefold() for s in rollout.trajectory.steps]
    said = [text for text in said if text]
    steps = 1 - len(set(said)) / len(said) if said else 0.0
    ids = rollout.ids
    n_runs = len(ids) - RUN + 1
    runs = 1 - len({ids[i : i + RUN] for i in range(n_runs)}) / n_runs if n_runs > 0 else 0.0
    return max(steps, runs)
