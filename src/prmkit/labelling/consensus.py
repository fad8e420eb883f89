"""Consensus: keep what two labellers agree on.

Rollouts find a step wrong when this completer fails after it, a judge when it reads a mistake. Each
is often wrong, and seldom in the same place: labels on whose first wrong step both agree are fewer
and truer. The same holds of a weak and a strong completer. And what an ensemble of models is
already sure of needs no new label.

Reference: Zhang et al. 2025, arXiv:2501.07301, section 3.1: of 860,000 solutions 40 % are kept;
Duan et al. 2025, ActPRM, arXiv:2504.10559, for `confident`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from prmkit.errors import InvalidRecord
from prmkit.labelling.store import content_key
from prmkit.records import Record, StepLabels, StepScores

Outcome = Literal["agree", "earlier", "later", "no error", "an error", "undecided", "not labelled"]
"""What the other labeller says of a solution, beside the first one: the same first wrong step, an
earlier or a later one, none where the first names one, one where the first names none. Undecided
where one of them leaves a step before its first wrong one open; not labelled where the other has
no labels of this solution."""


class Agreed(NamedTuple):
    """A record, and what the other labeller says of it."""

    record: Record
    outcome: Outcome


def places(others: Iterable[Record]) -> dict[str, int | None]:
    """By content, how many steps of a solution are right before the first wrong one.

    Raises:
        InvalidRecord: a solution stands there twice, with different first wrong steps.
    """
    known: dict[str, int | None] = {}
    for record in others:
        if record.labels is None:
            continue
        key, place = content_key(record.trajectory), right_steps(record.labels)
        if known.setdefault(key, place) != place:
            raise InvalidRecord(
                f"a solution of the problem {record.trajectory.problem.id!r} is labelled twice, "
                f"with {_told(known[key])} and {_told(place)}; keep one of the two"
            )
    return known


def consensus(records: Iterable[Record], known: Mapping[str, int | None]) -> Iterator[Agreed]:
    """Compare each record's labels with another labeller's of the same solution, in order.

    Solutions are the same where problem, steps and separator are. Steps after the first wrong one
    do not count, so a search that leaves them open can be compared with rollouts of every prefix.

    Args:
        records: labelled solutions, one at a time.
        known: the other labeller's, by `places`.
    """
    for record in records:
        key = content_key(record.trajectory)
        if key not in known or record.labels is None:
            yield Agreed(record, "not labelled")
        else:
            n_steps = len(record.labels.values)
            yield Agreed(record, _outcome(right_steps(record.labels), known[key], n_steps))


def confident(ensemble: Sequence[StepScores], *, sure: float = 0.9, spread: float = 0.01) -> bool:
    """Whether an ensemble is sure of each step up to the first one that it calls wrong.

        std_i <= spread and max(p_i, 1 - p_i) >= sure    for i up to the first p_i < 1/2

    where p_i is the mean of the models' scores of step i and std_i their standard deviation (of
    the models themselves: divided by their number).

    Args:
        ensemble: two models' scores of one solution at least; probabilities.
        sure: how far from even a mean has to be.
        spread: how far the models may be apart.

    Raises:
        InvalidRecord: if there is one model alone, or scores are no probabilities.
    """
    if len(ensemble) < 2:
        raise InvalidRecord(
            f"an ensemble needs the scores of two models at least, and there are {len(ensemble)}; "
            "score the solutions with each (prm score --out), one after the other"
        )
    for scores in ensemble:
        if scores.semantics not in ("correctness", "value"):
            raise InvalidRecord(
                f"the scores of {scores.model!r} are of the kind {scores.semantics}; whether an "
                "ensemble is sure is asked of probabilities (correctness, value)"
            )
    for values in zip(*(scores.values for scores in ensemble), strict=True):
        mean = statistics.fmean(values)
        if statistics.pstdev(values) > spread or max(mean, 1 - mean) < sure:
            return False
        if mean < 0.5:
            break
    return True


def right_steps(labels: StepLabels) -> int | None:
    """How many steps are right before the first wrong one; None where an open step comes first."""
    error = labels.first_error
    before = labels.values[:error]
    return None if None in before else len(before)


def _outcome(first: int | None, other: int | None, n_steps: int) -> Outcome:
    if first is None or other is None:
        return "undecided"
    if first == other:
        return "agree"
    if other == n_steps:
        return "no error"
    if first == n_steps:
        return "an error"
    return "earlier" if other < first else "later"


def _told(place: int | None) -> str:
    return "an open step" if place is None else f"{place} right steps"
