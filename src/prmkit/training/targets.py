"""Labelled records to what a model is trained on: token ids, positions, targets.

Records are rendered by the family that will score them, so that ids and positions at training are
those at scoring by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord
from prmkit.records import Record, StepLabels
from prmkit.scorers.families.base import Discriminative, Rendered
from prmkit.scorers.separators import guard

Weighting = Literal["none", "certainty"]

_REMEMBERED = 100_000
"""Texts whose tokens are remembered while records are rendered."""


class Example(NamedTuple):
    """One training row: a sequence with what is to be read of it.

    Attributes:
        ids: [T] token ids, rendered as the scorer of the same family renders them.
        positions: [L] where the head is read: the ends of the labelled steps.
        targets: [L] in [0, 1]: the probability that the step is right; or of ratings -1, 0, 1.
        weights: [L] how much each label counts.
        starts: [L] where each labelled step begins: what comes before is its prefix.
        solution: which record it is of; rows of one solution have the same number.
        problem: what records of one problem have in common.
    """

    ids: list[int]
    positions: list[int]
    targets: list[float]
    weights: list[float]
    starts: list[int]
    solution: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Dropped:
    """What is not trained on, and why.

    Attributes:
        unlabelled: records without a labelled step.
        too_long: records of which not even the first labelled step fits.
        cut: records that lost their last steps, whole ones.
        cut_labels: labelled steps lost so.
    """

    unlabelled: int = 0
    too_long: int = 0
    cut: int = 0
    cut_labels: int = 0

    def __bool__(self) -> bool:
        return any((self.unlabelled, self.too_long, self.cut))


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


def make_examples(
    records: Iterable[Record],
    family: Discriminative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    *,
    kind: Literal["shares", "ratings"] = "shares",
    weighting: Weighting = "none",
    last_only: bool = False,
) -> tuple[list[Example], Dropped]:
    """The examples of labelled records, and what was dropped.

    A record longer than `max_tokens` loses its last steps, whole ones: a model is never trained on
    a step that it does not see to its end, nor on a label without its step.

    Args:
        records: with labels.
        family: how the model reads.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit.
        kind: see `labels_for`.
        weighting: whether a label counts by its certainty.
        last_only: train on the last labelled step alone, as an outcome reward model.
    """
    examples: list[Example] = []
    counts = dict.fromkeys(("unlabelled", "too_long", "cut", "cut_labels"), 0)
    reader = _Reader(tokenizer)
    for number, record in enumerate(records):
        labels = labels_for(record, kind)
        wanted = [i for i, value in enumerate(labels.values) if value is not None]
        wanted = wanted[-1:] if last_only else wanted
        if not wanted:
            counts["unlabelled"] += 1
            continue
        # As the scorer does: text that spells a tag of the family is tokenised otherwise.
        rendered = guard(record.trajectory, family, reader, "escape").rendered
        kept = [i for i in wanted if max_tokens is None or _length(rendered, i) <= max_tokens]
        if not kept:
            counts["too_long"] += 1
            continue
        counts["cut"] += len(kept) < len(wanted)
        counts["cut_labels"] += len(wanted) - len(kept)
        examples += _rows(record, rendered, kept, labels, weighting, number)
    return examples, Dropped(**counts)


class _Reader:
    """A tokenizer that remembers what it was given: alternatives have all earlier steps in common.

    Args:
        tokenizer: of whom all else is.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[tuple[Any, ...], dict[str, list[int]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    @property
    def chat_template(self) -> Any:
        """See `Tokenizer`."""
        return self._tokenizer.chat_template

    def decode(self, token_ids: Any, **settings: Any) -> Any:
        """See `Tokenizer`."""
        return self._tokenizer.decode(token_ids, **settings)

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """See `Tokenizer`."""
        return self._tokenizer.apply_chat_template(conversation, **settings)

    def __call__(self, text: str, **settings: Any) -> Any:
        """See `Tokenizer`."""
        key = (text, *sorted(settings.items()))
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = {"input_ids": list(self._tokenizer(text, **settings)["input_ids"])}
        return self._known[key]


def _length(rendered: Rendered, step: int) -> int:
    """Tokens up to where a step is read."""
    behind = len(rendered.ends[step]) if rendered.ends else 0
    return rendered.positions[step] + 1 + behind


def _rows(
    record: Record,
    rendered: Rendered,
    steps: Sequence[int],
    labels: StepLabels,
    weighting: Weighting,
    number: int,
) -> list[Example]:
    values = [float(labels.values[i] or 0.0) for i in steps]
    sure = labels.certainty if weighting == "certainty" else None
    weights = [1.0 if sure is None or sure[i] is None else float(sure[i] or 0.0) for i in steps]
    problem = record.trajectory.problem.text
    if not rendered.ends:
        # What comes behind the last label plays no part.
        last = rendered.positions[steps[-1]]
        positions = [rendered.positions[i] for i in steps]
        starts = [rendered.starts[i] for i in steps]
        ids = rendered.ids[: last + 1]
        return [Example(ids, positions, values, weights, starts, number, problem)]
    rows = []
    for i, value, weight in zip(steps, values, weights, strict=True):
        # Read behind an end of its own: a sequence for each step, which share their beginning.
        ids = rendered.ids[: rendered.positions[i] + 1] + list(rendered.ends[i])
        begin = [rendered.starts[i]]
        rows.append(Example(ids, [len(ids) - 1], [value], [weight], begin, number, problem))
    return rows
