"""Ratings of several annotators to one label a step.

What is gathered stays together: a merged record keeps each annotator's ratings in its
``meta["annotators"]``, and is several annotators again when it is gathered once more.

Where ratings come from: Lightman et al. 2023, arXiv:2305.20050, section 2.4; of their quality
control, appendix D.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from prmkit.errors import InvalidRecord, LabelPolicyNeeded, UnknownName
from prmkit.records import Problem, Record, StepLabels, Trajectory
from prmkit.settings import at_least

Rule = Literal["majority", "unanimous", "strictest"]
"""How votes become a rating: the one that more than half of them give, and none where there is no
such; the one that all of them give; or the lowest."""

Ratings = tuple[float | None, ...]

ANNOTATORS = "annotators"
"""Where a merged record's meta keeps who rated what."""

_OWN = ("labeler", ANNOTATORS)


class Annotation(NamedTuple):
    """One annotator's ratings of one solution.

    Attributes:
        annotator: who.
        record: with labels of the kind ``human``.
    """

    annotator: str
    record: Record


class Solution(NamedTuple):
    """A solution with all that was said of it.

    Attributes:
        trajectory: the solution.
        by: each annotator's record, by name, in the order of the names; its steps are the first
            ones of the solution, or all.
    """

    trajectory: Trajectory
    by: dict[str, Record]

    @property
    def ratings(self) -> dict[str, Ratings]:
        """Each annotator's rating of each step; None where there is none."""
        return {name: _ratings(r, len(self.trajectory.steps)) for name, r in self.by.items()}

    @property
    def votes(self) -> list[list[float]]:
        """The ratings of each step."""
        return [
            [v for v in of_step if v is not None]
            for of_step in zip(*self.ratings.values(), strict=True)
        ]


def annotated(record: Record, name: str) -> list[Annotation]:
    """Who rated a solution, and how; hard labels are the ratings 1 and -1.

    Args:
        record: labelled; or merged, which gives one annotation for each of its annotators.
        name: of the annotator where ``meta["labeler"]`` names none, such as the file's.

    Raises:
        InvalidRecord: the record has no labels.
        LabelPolicyNeeded: its labels are soft.
    """
    told = _merged_before(record)
    if told is not None:
        common = {k: v for k, v in record.meta.items() if k not in _OWN}
        return [
            Annotation(
                who,
                record.replace(
                    labels=StepLabels(values=tuple(said["ratings"]), kind="human"),
                    meta={**common, **said.get("meta", {})},
                ),
            )
            for who, said in told.items()
        ]
    if record.labels is None:
        raise InvalidRecord(
            f"the solution of the problem {record.trajectory.problem.id!r} has no labels; only "
            "rated solutions can be merged"
        )
    labels = record.labels
    if labels.kind == "soft":
        raise LabelPolicyNeeded(
            f"the labels of the problem {record.trajectory.problem.id!r} are soft, which no "
            "rating is. Say first above which value a step is right: prm convert --threshold"
        )
    values = labels.values
    if labels.kind == "hard":
        values = tuple(None if v is None else 2 * v - 1 for v in values)
    labeler = record.meta.get("labeler")
    who = name if labeler is None else labeler if isinstance(labeler, str) else json.dumps(labeler)
    labels = StepLabels(values=values, kind="human", source=labels.source)
    return [Annotation(who, record.replace(labels=labels))]


def _merged_before(record: Record) -> dict[str, Any] | None:
    """Who rated what, of a merged record; None of any other, whatever it has under that name."""
    told: Any = record.meta.get(ANNOTATORS)
    n_steps = len(record.trajectory.steps)
    fits = isinstance(told, dict) and all(
        isinstance(said, dict)
        and isinstance(said.get("ratings"), list)
        and len(said["ratings"]) == n_steps
        and all(r in (-1, 0, 1, None) for r in said["ratings"])
        and isinstance(said.get("meta", {}), dict)
        for said in told.values()
    )
    return told if fits and told else None


def gather(found: Iterable[Annotation]) -> list[Solution]:
    """Bring together what is said of the same solution, in the order of their first annotations.

    Solutions are the same where question, steps and separator are; a problem's id is not asked,
    since files without ids make one up. An annotator who stopped early, as PRM800K's do at the
    first error, may have left the later steps out: an open solution is part of every longer one
    that begins with it.

    Where an annotator rated one solution twice, the later rating holds, if both have a
    ``meta["timestamp"]``. Without, both hold where they do not contradict each other.

    Raises:
        InvalidRecord: an annotator contradicts himself, and there is no telling which is later.
    """
    groups: dict[Hashable, dict[Hashable, list[Annotation]]] = {}
    for annotation in found:
        trajectory = annotation.record.trajectory
        question = (_question(trajectory.problem), trajectory.separator)
        groups.setdefault(question, {}).setdefault(_steps(trajectory), []).append(annotation)
    return [_solution(of_solution) for group in groups.values() for of_solution in _wholes(group)]


def _question(problem: Problem) -> str:
    return problem.model_dump_json(include={"prompt", "messages", "images"})


def _steps(trajectory: Trajectory) -> tuple[tuple[str, str | None], ...]:
    return tuple((step.text, step.observation) for step in trajectory.steps)


def _wholes(group: Mapping[Any, list[Annotation]]) -> list[list[Annotation]]:
    """The annotations of each solution, those of its open beginnings among them."""
    longer = {
        steps: [s for s in group if len(s) > len(steps) and s[: len(steps)] == steps]
        if all(a.record.trajectory.finish == "open" for a in given)
        else []
        for steps, given in group.items()
    }
    wholes: dict[Any, list[Annotation]] = {steps: [] for steps in group}
    for steps, given in group.items():
        for whole in [s for s in longer[steps] if not longer[s]] or [steps]:
            wholes[whole] += given
    return [given for given in wholes.values() if given]


def _solution(given: Sequence[Annotation]) -> Solution:
    n_steps = max(len(a.record.trajectory.steps) for a in given)
    by: dict[str, list[Record]] = {}
    for annotator, record in given:
        by.setdefault(annotator, []).append(record)
    kept = {name: _latest(name, by[name], n_steps) for name in sorted(by)}
    wholes = [a for a in given if len(a.record.trajectory.steps) == n_steps]
    # One that tells how the solution ended, rather than that annotating it did.
    base = min(wholes, key=lambda a: (a.record.trajectory.finish == "open", *_order(a)))
    return Solution(base.record.trajectory, kept)


def _order(annotation: Annotation) -> tuple[str, str]:
    return annotation.annotator, annotation.record.model_dump_json()


def _latest(annotator: str, records: Sequence[Record], n_steps: int) -> Record:
    """What one annotator says of a solution, of all that he said."""
    times = [_time(record) for record in records]
    known = [time for time in times if time is not None]
    if len(known) == len(records):
        records = [r for r, time in zip(records, times, strict=True) if time == max(known)]
    records = sorted(records, key=lambda r: (-len(r.trajectory.steps), r.model_dump_json()))
    united: list[float | None] = [None] * n_steps
    for record in records:
        for index, rating in enumerate(_ratings(record, n_steps)):
            if rating is not None and united[index] not in (None, rating):
                ids = sorted({r.trajectory.problem.id for r in records})
                raise InvalidRecord(
                    f"the annotator {annotator!r} rates step {index} of the same solution "
                    f"({' and '.join(map(repr, ids))}) {united[index]:g} and {rating:g}, and no "
                    "two different timestamps say which is later; leave one of the two out"
                )
            united[index] = rating if rating is not None else united[index]
    longest = records[0]
    source = longest.labels.source if longest.labels is not None else None
    values = tuple(united[: len(longest.trajectory.steps)])
    return longest.replace(labels=StepLabels(values=values, kind="human", source=source))


def _time(record: Record) -> datetime | None:
    told = record.meta.get("timestamp")
    if told is None:
        return None
    try:
        time = datetime.fromisoformat(str(told))
    except ValueError:
        raise InvalidRecord(
            f"the timestamp of the problem {record.trajectory.problem.id!r} is {told!r}; expected "
            "a date and time such as 2022-08-29T18:41:34"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _ratings(record: Record, n_steps: int) -> Ratings:
    assert record.labels is not None
    return record.labels.values + (None,) * (n_steps - len(record.labels.values))


def merged(solution: Solution, *, rule: Rule = "majority", least: int = 1) -> Record:
    """One record of a solution, whose labels are what the annotators' votes come to.

    A step that an annotator did not rate has no vote of his. So behind a step at which some
    stopped, the others alone decide; `least` says how many that must be.

    Args:
        solution: see `gather`.
        rule: see `Rule`.
        least: with fewer votes than this a step stays open.

    Returns:
        The record, with labels of the kind ``human``. Their certainty is the share of the votes
        that are for the rating. What all annotators' meta say alike is the record's meta, and
        its ``annotators`` hold for each one the ratings and the rest.
    """
    if rule not in get_args(Rule):
        raise UnknownName("rule", rule, get_args(Rule))
    at_least(1, least=least)
    votes = solution.votes
    values = tuple(decide(v, rule) if len(v) >= least else None for v in votes)
    n = len(solution.by)
    labels = StepLabels(
        values=values,
        kind="human",
        certainty=tuple(
            None if value is None else v.count(value) / len(v)
            for v, value in zip(votes, values, strict=True)
        ),
        source=f"{rule} of {n} annotator{'s' if n > 1 else ''}",
    )
    metas = [record.meta for record in solution.by.values()]
    common = {
        key: value
        for key, value in metas[0].items()
        if key not in _OWN and all(key in meta and meta[key] == value for meta in metas)
    }
    told: dict[str, Any] = {}
    for name, ratings in solution.ratings.items():
        own = {
            k: v for k, v in solution.by[name].meta.items() if k not in common and k != "labeler"
        }
        told[name] = {"ratings": list(ratings), **({"meta": own} if own else {})}
    return Record(trajectory=solution.trajectory, labels=labels, meta={**common, ANNOTATORS: told})


def decide(votes: Sequence[float], rule: Rule) -> float | None:
    """The rating that votes of one step come to; None where they come to none.

    >>> decide([1, 1, -1], "majority"), decide([1, -1], "majority")
    (1, None)
    >>> decide([1, 1, -1], "unanimous"), decide([1, 1, -1], "strictest")
    (None, -1)
    """
    if not votes:
        return None
    if rule == "strictest":
        return min(votes)
    if rule == "unanimous":
        return votes[0] if len(set(votes)) == 1 else None
    return next((v for v in votes if 2 * votes.count(v) > len(votes)), None)
