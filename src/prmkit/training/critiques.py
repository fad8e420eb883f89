"""Models that judge in words: supervised training on critiques that came to the right verdict.

A record brings critiques in ``meta["critiques"]``: a list, each a list of the texts that the family
asks for, in order (one text where it asks once, as ``judge``). A critique is kept if the verdicts
that its words give are those of the labels up to the first wrong step; ThinkPRM and GenPRM filter
theirs by agreement too.

What is learnt of it is found by asking the family: its own critique of the record is run, the
stored words are what is written, and the labels what is chosen. So the conversations of training
are those of scoring, and the tokens that count are those that the model will have to write or to
choose.

References: Khalifa et al. 2025, arXiv:2504.16828; Zhao et al. 2025, arXiv:2504.00891.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.chat import Tokenizer, encode_inside, encode_question, encode_text
from prmkit.errors import CheckpointError, InvalidRecord, InvalidSetting
from prmkit.records import Message, Problem, Record, StepLabels, Trajectory
from prmkit.scorers.families.base import Choose, Generative, Write
from prmkit.training.log_probs import log_probs
from prmkit.training.losses import LossName
from prmkit.training.objective import NothingMore, OfLanguageModel
from prmkit.training.parts import Part
from prmkit.training.targets import Dropped, Example, is_open, labels_for

if TYPE_CHECKING:
    from torch import Tensor

Texts = Sequence[str]
"""What one critique says: a text for each time that the family asks for words."""


class Stretch(NamedTuple):
    """What a model is to write after a conversation.

    Attributes:
        messages: the conversation before the reply.
        reply: what the reply already says.
        words: what comes next.
        ends: whether the reply ends with them.
        choices: what they were chosen from; then their first token alone is asked for.
    """

    messages: tuple[Message, ...]
    reply: str
    words: str
    ends: bool = False
    choices: tuple[str, ...] = ()


def critiques_in(record: Record) -> list[Texts]:
    """The critiques that a record brings.

    Raises:
        InvalidRecord: if ``meta["critiques"]`` is not a list of texts, or of lists of texts.
    """
    found = record.meta.get("critiques", [])
    each = [[c] if isinstance(c, str) else c for c in found] if isinstance(found, list) else [None]
    kept: list[Texts] = []
    for texts in each:
        words = texts if isinstance(texts, list) else [None]
        told = [text for text in words if isinstance(text, str)]
        if len(told) < len(words):
            raise InvalidRecord(
                f"meta['critiques'] of problem {record.trajectory.problem.id!r} is {found!r:.80}; "
                "expected a list with a list of texts for each critique"
            )
        kept.append(told)
    return kept


def verdict(
    family: Generative, trajectory: Trajectory, texts: Texts
) -> tuple[int | str | None, dict[Write, str]]:
    """The first step that a critique's words find wrong, and which words answer what.

    Args:
        family: how critiques go.
        trajectory: that is judged.
        texts: what is written, in the order in which the family asks.

    Returns:
        The 0-based step, None where all are right; or a text that says why there is no verdict.
    """
    said: dict[Write, str] = {}
    left = list(texts)
    running = family.critique(trajectory)
    try:
        wish = next(running)
        while True:
            if isinstance(wish, Write):
                if not left:
                    return "the critique ends before its verdict", said
                said[wish] = left.pop(0)
                wish = running.send(said[wish])
            else:
                # No probabilities: the family reads its verdict from the words.
                wish = running.send(None)
    except StopIteration as done:
        scores = done.value
    if isinstance(scores, str):
        return scores, said
    if left:
        return f"the critique goes on for {len(left)} texts behind its verdict", said
    return next((i for i, score in enumerate(scores) if score < 0.5), None), said


def stretches(
    family: Generative, trajectory: Trajectory, said: dict[Write, str], labels: StepLabels
) -> list[Stretch]:
    """What a critique teaches, up to the first wrong step.

    Args:
        family: how critiques go.
        trajectory: that is judged.
        said: which words answer what, see `verdict`.
        labels: hard; what is to be chosen.
    """
    found: list[Stretch] = []
    judged = 0
    running = family.critique(trajectory)
    try:
        wish = next(running)
        while True:
            if isinstance(wish, Write):
                words = said[wish]
                ends = not words.endswith(wish.stop) if wish.stop else True
                found.append(Stretch(wish.messages, wish.reply, words, ends))
                wish = running.send(words)
                continue
            assert isinstance(wish, Choose)
            value = labels.values[judged]
            if value is None:
                return found
            chosen = wish.choices[0 if value else 1]
            found.append(Stretch(wish.messages, wish.reply, chosen, choices=wish.choices))
            if not value:
                return found
            judged += 1
            wish = running.send([1.0, 0.0])
    except StopIteration:
        return found


def encode(stretch: Stretch, tokenizer: Tokenizer, end: int) -> tuple[list[int], int]:
    """The token ids of a conversation with what is to be written, and how many tokens that are.

    Args:
        stretch: what is written, and after what.
        tokenizer: the model's.
        end: the token that ends a reply.

    Raises:
        CheckpointError: if choices begin with the same token, so that none could be told.
    """
    first = [tuple(encode_inside(tokenizer, choice)[:1]) for choice in stretch.choices]
    if len({*first}) < len(first):
        raise CheckpointError(
            f"the tokenizer begins {' and '.join(map(repr, stretch.choices))} with the same token, "
            "so no model with it can be asked to choose; train another family (--family)"
        )
    # The prefix as the policy encodes it, see `prmkit.policies.hf`.
    before = encode_question(tokenizer, Problem(id="critique", messages=stretch.messages))
    if stretch.reply:
        before += encode_text(tokenizer, stretch.reply)
    inside = stretch.reply or stretch.choices
    words = (encode_inside if inside else encode_text)(tokenizer, stretch.words)
    words = words[:1] if stretch.choices else words + [end] * stretch.ends
    return before + words, len(words)


def make_critiques(
    records: Iterable[Record],
    family: Generative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
) -> tuple[list[Example], Dropped]:
    """The examples of records with critiques, and what was dropped.

    Args:
        records: with hard labels and critiques.
        family: how critiques go; one that runs no programs.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit. A critique that is longer is left out whole.

    Raises:
        CheckpointError: if the tokenizer has no token that ends a reply.
        InvalidRecord: if labels are missing or not hard, or critiques are no texts.
        InvalidSetting: if the family runs programs.
    """
    if family.runs_code:
        raise InvalidSetting(
            f"the family {family.name} runs the programs that it writes; train {family.name} "
            "without them (--family gen_prm)"
        )
    end = getattr(tokenizer, "eos_token_id", None)
    if end is None:
        raise CheckpointError(
            "the tokenizer has no end-of-text token, so a model could not learn to end a critique"
        )
    examples: list[Example] = []
    counts = dict.fromkeys(("unlabelled", "too_long", "disagree", "unreadable"), 0)
    for number, record in enumerate(records):
        critiques = critiques_in(record)
        labels = None if is_open(record) else _hard(record)
        if labels is None or not critiques or not _known(labels):
            counts["unlabelled"] += 1
            continue
        rows: dict[tuple[int, ...], int] = {}
        for texts in critiques:
            found, said = verdict(family, record.trajectory, texts)
            if isinstance(found, str):
                counts["unreadable"] += 1
            elif found != labels.first_error:
                counts["disagree"] += 1
            else:
                taught = stretches(family, record.trajectory, said, labels)
                encoded = [encode(stretch, tokenizer, end) for stretch in taught]
                if max_tokens is not None and any(len(ids) > max_tokens for ids, _ in encoded):
                    counts["too_long"] += 1
                else:
                    # Critiques that say the same ask the same of the model: once is enough.
                    rows |= {tuple(ids): n for ids, n in encoded}
        problem = record.trajectory.problem.text
        examples += [_row(list(ids), n, number, problem) for ids, n in rows.items()]
    return examples, Dropped(**counts)


def _hard(record: Record) -> StepLabels:
    labels = labels_for(record, "shares")
    if labels.kind != "hard":
        raise InvalidRecord(
            f"the record of problem {record.trajectory.problem.id!r} has {labels.kind} labels, and "
            "a verdict is right or wrong; say from where on a share is right (--threshold)"
        )
    return labels


def _known(labels: StepLabels) -> bool:
    """Whether labels say which step is the first wrong one, or that there is none."""
    first = labels.first_error
    upto = labels.values if first is None else labels.values[:first]
    return bool(labels.values) and None not in upto


def _row(ids: list[int], n: int, number: int, problem: str) -> Example:
    positions = list(range(len(ids) - 1 - n, len(ids) - 1))
    return Example(ids, positions, [1.0] * n, [1.0] * n, [], number, problem)


@dataclass(frozen=True)
class WritingObjective(NothingMore, OfLanguageModel):
    """Cross-entropy of the tokens that are to be written; the mean over a step's tokens.

    Attributes:
        loss: cross_entropy.
    """

    loss: LossName = "cross_entropy"

    @property
    def together(self) -> bool:
        """See `Objective`."""
        return False

    def items(self, examples: Sequence[Example]) -> float:
        """See `Objective`: tokens."""
        return sum(weight for e in examples for weight in e.weights)

    def __call__(self, model: Any, rows: Tensor, part: Part) -> Tensor:
        """See `Objective`."""
        found = log_probs(model, rows, part.following.to(rows.device))
        return -(part.weights.to(found) * found).sum()
