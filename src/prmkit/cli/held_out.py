"""Figures of held-out episodes of agents: by their outcomes, where no turn has a label."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from prmkit.errors import NothingToMeasure
from prmkit.evaluation.ranking import within_group_auc
from prmkit.labelling.promise_progress import discounted, temporal_targets
from prmkit.records import Record, StepScores, Unscored
from prmkit.training.episodes import PromiseSettings


def judged_by_outcomes(
    records: Sequence[Record],
    scored: Sequence[StepScores | Unscored],
    settings: PromiseSettings,
) -> dict[str, float]:
    """Figures of promises, of episodes with outcomes.

    The Brier score is the mean squared distance of a turn's promise to the outcome, as far as it
    is discounted there; the temporal loss that of promises and of their changes to the temporal
    targets that the same promises make (eq. 10 of arXiv:2511.08325), as in training. The AUC is
    over pairs of turns of a success and of a failure at the same problem.
    """
    n, brier, loss = 0, 0.0, 0.0
    values: list[float] = []
    won: list[bool] = []
    problems: list[str] = []
    for record, own in zip(records, scored, strict=True):
        if isinstance(own, Unscored):
            continue
        promises = list(own.values)
        outcome = float(bool(record.trajectory.correct))
        seen = discounted(outcome, len(promises), settings.gamma)
        brier += sum((m - r) ** 2 for m, r in zip(promises, seen, strict=True))
        targets = temporal_targets(promises, outcome, gamma=settings.gamma, lam=settings.lam)
        off = [m - q for m, q in zip(promises, targets, strict=True)]
        loss += sum(o**2 for o in off) / 2
        loss += sum((b - a) ** 2 for a, b in pairwise(off)) / 2
        n += len(promises)
        values += promises
        won += [outcome > 0] * len(promises)
        problems += [record.trajectory.problem.text] * len(promises)
    told = {}
    if n:
        told = {"brier": brier / n, "temporal_loss": loss / n}
    if any(won) and not all(won):
        # Perhaps each problem has episodes of one kind alone.
        with suppress(NothingToMeasure):
            told["auc_within_problems"] = within_group_auc(values, won, problems).auc
    return told | {"unscored": float(sum(isinstance(own, Unscored) for own in scored))}
