"""Labelled records to what a model is trained on: token ids, positions, targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord
from prmkit.records import Record
from prmkit.scorers.families.base import Discriminative


class Example(NamedTuple):
    """One training row.

    Attributes:
        ids: [T] token ids, rendered as the scorer of the same family renders them.
        positions: [L] where the head is read: the ends of the labelled steps.
        targets: [L] in [0, 1]: the probability that the step is right.
    """

    ids: list[int]
    positions: list[int]
    targets: list[float]


class Dropped(NamedTuple):
    """Records that give no example, and why."""

    unlabelled: int
    too_long: int


def make_example(record: Record, family: Discriminative, tokenizer: Tokenizer) -> Example:
    """The example of a labelled record; steps without a label are read but not trained on.

    Raises:
        InvalidRecord: if the record has no labels, or human ratings, which need a label policy.
    """
    labels = record.labels
    if labels is None:
        raise InvalidRecord(
            f"the record of problem {record.trajectory.problem.id!r} has no labels; "
            "label it first (`prm label`)"
        )
    if labels.kind == "human":
        raise InvalidRecord(
            f"the record of problem {record.trajectory.problem.id!r} has human ratings "
            "(-1, 0, 1); decide what a neutral one means first "
            "(`prm convert --neutral positive|negative|drop`)"
        )
    rendered = family.render(record.trajectory, tokenizer)
    kept = [
        (position, value)
        for position, value in zip(rendered.positions, labels.values, strict=True)
        if value is not None
    ]
    return Example(rendered.ids, [p for p, _ in kept], [v for _, v in kept])


def make_examples(
    records: Iterable[Record],
    family: Discriminative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
) -> tuple[list[Example], Dropped]:
    """The examples of labelled records, and how many records gave none.

    A record longer than `max_tokens` is left out whole and counted: cutting it would train on a
    question or on steps that the model does not see.
    """
    examples = []
    unlabelled = too_long = 0
    for record in records:
        example = make_example(record, family, tokenizer)
        if not example.targets:
            unlabelled += 1
        elif max_tokens is not None and len(example.ids) > max_tokens:
            too_long += 1
        else:
            examples.append(example)
    return examples, Dropped(unlabelled, too_long)
