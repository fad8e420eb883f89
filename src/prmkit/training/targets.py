"""Labelled records to what a model is trained on: token ids, positions, targets.

Records are rendered by the family that will score them, so that ids and positions at training are
those at scoring by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord
from prmkit.records import Record, StepLabels, Unscored
from prmkit.scorers.families.base import Discriminative, Implicit, Rendered
from prmkit.scorers.separators import guard

Weighting = Literal["none", "certainty"]
Taught = Literal["shares", "ratings", "outcome"]
"""What is learnt of a record: labels of its steps, ratings of them, or how it ended."""


class Example(NamedTuple):
    """One training row: a sequence with what is to be read of it.

    Attributes:
        ids: [T] token ids, rendered as the scorer of the same family renders them.
        positions: [L] where the model is read: the ends of the labelled steps; or the tokens whose
            next ones count.
        targets: [L] in [0, 1]: the probability that the step is right; or of ratings -1, 0, 1.
        weights: [L] how much each label counts.
        starts: [L] where each labelled step begins: what comes before is its prefix. Empty where
            tokens are read and not steps.
        solution: which record it is of; rows of one solution have the same number.
        problem: what records of one problem have in common.
        reference: the log-probability of the response under a reference, where there is one.
        turns: [L] which turn of its episode is read at each place, where whole episodes teach.
        shares: [L] what each counts for in the mean of its turn; see `make_transitions` of
            `prmkit.training.episodes`.
    """

    ids: list[int]
    positions: list[int]
    targets: list[float]
    weights: list[float]
    starts: list[int]
    solution: int = 0
    problem: str = ""
    reference: float = 0.0
    turns: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dropped:
    """What is not trained on, and why.

    Attributes:
        unlabelled: records without a labelled step, or without what else they should teach;
            among them those that could not be labelled.
        too_long: records of which not even the first labelled step fits; critiques that do not.
        cut: records that lost their last steps, whole ones.
        cut_labels: labelled steps lost so.
        disagree: critiques that judge otherwise than the labels.
        unreadable: critiques without a verdict.
    """

    unlabelled: int = 0
    too_long: int = 0
    cut: int = 0
    cut_labels: int = 0
    disagree: int = 0
    unreadable: int = 0

    def __bool__(self) -> bool:
        return any((self.unlabelled, self.too_long, self.cut))


class Label(NamedTuple):
    """What is taught at one step.

    Attributes:
        step: which.
        target: what is right there.
        weight: how much it counts.
    """

    step: int
    target: float
    weight: float


def is_open(record: Record) -> bool:
    """Whether a record has no labels and says why: who was to label it could not."""
    return record.labels is None and any(isinstance(one, Unscored) for one in record.scores)


def labels_for(record: Record, kind: Literal["shares", "ratings"]) -> StepLabels:
    """The labels of a record, of the kind that a head is trained on.

    Args:
        record: with labels.
        kind: shares in [0, 1], of hard and soft labels; or ratings -1, 0, 1.

    Raises:
        InvalidRecord: if there are none, or they are of another kind.
    """
    labels, who = record.labels, record.trajectory.problem.id
    if labels is None:
        raise InvalidRecord(
            f"the record of problem {who!r} has no labels; label it first (`prm label`)"
        )
    if kind == "shares" and labels.kind == "human":
        raise InvalidRecord(
            f"the record of problem {who!r} has human ratings (-1, 0, 1); decide what a neutral "
            "one means first (`--neutral positive|negative|drop`), or train three classes "
            "(`--kind classes`)"
        )
    if kind == "ratings" and labels.kind != "human":
        raise InvalidRecord(
            f"the record of problem {who!r} has {labels.kind} labels, and three classes are "
            "trained on human ratings (-1, 0, 1); train two classes (`--kind step`)"
        )
    return labels


def taught_by(record: Record, what: Taught, weighting: Weighting = "none") -> list[Label]:
    """What a record teaches.

    An outcome is that of the whole solution (``trajectory.correct``), taught at its last step;
    where it is not known, the label of the last labelled step, taught there. A record that says
    why it has no labels teaches nothing.

    Args:
        record: with labels of the kind, or with a known outcome.
        what: see `Taught`.
        weighting: whether a label counts by its certainty.

    Raises:
        InvalidRecord: if there are no labels, or they are of another kind.
    """
    trajectory = record.trajectory
    if what == "outcome" and trajectory.correct is not None:
        last = len(trajectory.steps) - 1
        return [Label(last, float(trajectory.correct), 1.0)] if last >= 0 else []
    if is_open(record):
        return []
    labels = labels_for(record, "ratings" if what == "ratings" else "shares")
    sure = labels.certainty if weighting == "certainty" else None
    found = [
        Label(i, value, 1.0 if sure is None or (known := sure[i]) is None else known)
        for i, value in enumerate(labels.values)
        if value is not None
    ]
    return found[-1:] if what == "outcome" else found


def make_examples(
    records: Iterable[Record],
    family: Discriminative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    *,
    what: Taught = "shares",
    weighting: Weighting = "none",
    every_token: bool = False,
) -> tuple[list[Example], Dropped]:
    """The examples of labelled records, and what was dropped.

    A record longer than `max_tokens` loses its last steps, whole ones: a model is never trained on
    a step that it does not see to its end, nor on a label without its step.

    Args:
        records: with labels, or with outcomes where those are taught.
        family: how the model reads.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit.
        what: see `taught_by`.
        weighting: whether a label counts by its certainty.
        every_token: whether an outcome is taught at every token of the solution, and not only at
            the last step's position.
    """
    examples: list[Example] = []
    counts = dict.fromkeys(("unlabelled", "too_long", "cut", "cut_labels"), 0)
    for number, record in enumerate(records):
        wanted = taught_by(record, what, weighting)
        if not wanted:
            counts["unlabelled"] += 1
            continue
        # As the scorer does: text that spells a tag of the family is tokenised otherwise.
        rendered = guard(record.trajectory, family, tokenizer, "escape").rendered
        kept = [x for x in wanted if max_tokens is None or _length(rendered, x.step) <= max_tokens]
        if not kept:
            counts["too_long"] += 1
            continue
        counts["cut"] += len(kept) < len(wanted)
        counts["cut_labels"] += len(wanted) - len(kept)
        problem = record.trajectory.problem.text
        if every_token:
            examples.append(_spread(rendered, kept[-1], number, problem))
        else:
            examples += _rows(rendered, kept, number, problem)
    return examples, Dropped(**counts)


def make_responses(
    records: Iterable[Record],
    family: Implicit,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    *,
    weighting: Weighting = "none",
) -> tuple[list[Example], Dropped]:
    """The examples of records with outcomes, for a model that is read by its log-probabilities.

    What is read is each token of the response, at the one before it; the question is read through
    and does not count. A response that is too long is left out: the outcome is not that of a part.

    Args:
        records: with outcomes, see `taught_by`.
        family: how the model reads.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit.
        weighting: whether a label counts by its certainty.
    """
    examples: list[Example] = []
    counts = dict.fromkeys(("unlabelled", "too_long"), 0)
    for number, record in enumerate(records):
        wanted = taught_by(record, "outcome", weighting)
        if not wanted:
            counts["unlabelled"] += 1
            continue
        rendered = family.render(record.trajectory, tokenizer)
        length = rendered.positions[wanted[-1].step] + 1
        # The very first token has nothing before it that could predict it: as in scoring.
        n = length - max(rendered.begin, 1)
        if n <= 0:
            counts["unlabelled"] += 1
        elif max_tokens is not None and length > max_tokens:
            counts["too_long"] += 1
        else:
            example = Example(
                rendered.ids[:length],
                list(range(length - 1 - n, length - 1)),
                [wanted[-1].target] * n,
                [wanted[-1].weight] * n,
                [],
                number,
                record.trajectory.problem.text,
            )
            examples.append(example)
    return examples, Dropped(**counts)


def _length(rendered: Rendered, step: int) -> int:
    """Tokens up to where a step is read."""
    behind = len(rendered.ends[step]) if rendered.ends else 0
    return rendered.positions[step] + 1 + behind


def _spread(rendered: Rendered, label: Label, number: int, problem: str) -> Example:
    """An outcome at every token of the solution, up to the position of the step that has it."""
    last = rendered.positions[label.step]
    positions = list(range(min(rendered.begin, last), last + 1))
    n = len(positions)
    ids = rendered.ids[: last + 1]
    return Example(ids, positions, [label.target] * n, [label.weight] * n, [], number, problem)


def _rows(rendered: Rendered, labels: Sequence[Label], number: int, problem: str) -> list[Example]:
    if not rendered.ends:
        # What comes behind the last label plays no part.
        ids = rendered.ids[: rendered.positions[labels[-1].step] + 1]
        positions = [rendered.positions[label.step] for label in labels]
        targets = [label.target for label in labels]
        weights = [label.weight for label in labels]
        starts = [rendered.starts[label.step] for label in labels]
        return [Example(ids, positions, targets, weights, starts, number, problem)]
    rows = []
    for i, target, weight in labels:
        # Read behind an end of its own: a sequence for each step, which share their beginning.
        ids = rendered.ids[: rendered.positions[i] + 1] + list(rendered.ends[i])
        begin = [rendered.starts[i]]
        rows.append(Example(ids, [len(ids) - 1], [target], [weight], begin, number, problem))
    return rows
