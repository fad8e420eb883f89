"""What the embedded models learn from: solutions, token by token, with what is to be told of each.

Three things are told. The next token, as any language model learns it. In the story, whether each
name has been met before, and at the end of each sentence what it does to the quantity asked for:
the same words mean a gain or a loss by who of the two is known, and from the answers alone a small
model does not find out in ten million tokens. And for the PRM, whether all is right so far.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prmkit.chat import encode_question, encode_text
from prmkit.embedded.judge import Referee
from prmkit.embedded.phrases import NAMES
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.vocabulary import END
from prmkit.embedded.world import MEANINGS, Operation, make_problem, sentence_meanings
from prmkit.records import Problem

if TYPE_CHECKING:
    import torch

POOL = 1024
"""Examples that are sorted by length together, so that batches hold like lengths."""


class Row(NamedTuple):
    """One solution to learn from.

    Attributes:
        ids: [T] tokens of question and solution.
        next_token: [T] whether this token is to be predicted.
        meaning: [T] at a name of the story `KNOWN` or `NEW`; at the end of a sentence of it the
            index of its meaning in `MEANINGS`; else -1.
        verdict: [T] 1 or 0 where the head is to tell if all is right so far; else -1.
    """

    ids: list[int]
    next_token: list[bool]
    meaning: list[int]
    verdict: list[int]


class Batch(NamedTuple):
    """Rows padded on the right: four [N, T] tensors, as in `Row`."""

    ids: torch.Tensor
    next_token: torch.Tensor
    meaning: torch.Tensor
    verdict: torch.Tensor


def _question(tokenizer: Any, problem: Problem) -> tuple[list[int], list[int]]:
    """Token ids of a question, and the meanings of its names and sentences."""
    ids = encode_question(tokenizer, problem)
    meaning = [-1] * len(ids)
    sentences = sentence_meanings(problem)
    lengths = [len(encode_text(tokenizer, sentence)) for sentence, _ in sentences]
    # One token of markup after the text, as the chat template has it.
    at = len(ids) - 1 - sum(lengths)
    met: set[str] = set()
    for index in range(at, len(ids) - 1):
        word = tokenizer.decode([ids[index]]).strip()
        if word in NAMES:
            meaning[index] = KNOWN if word in met else NEW
            met.add(word)
    for (_, told), length in zip(sentences, lengths, strict=True):
        at += length
        if told is not None:
            meaning[at - 1] = told
    return ids, meaning


def language_row(index: int, rng: random.Random, tokenizer: Any, rates: MistakeRates) -> Row:
    """A solution as a language model learns it: every token of it, and its end."""
    problem = make_problem("train", index)
    question, meaning = _question(tokenizer, problem)
    answer = encode_text(tokenizer, "".join(write_solution(problem, rng, rates)))
    answer.append(tokenizer.convert_tokens_to_ids(END))
    n_question, n_answer = len(question), len(answer)
    return Row(
        question + answer,
        [False] * n_question + [True] * n_answer,
        meaning + [-1] * n_answer,
        [-1] * (n_question + n_answer),
    )


_CALCULATION = re.compile(r"( \d+)( [-+*/])( \d+) =( \d+)")
_ANSWER = re.compile(r"is( \d+)")
RESULT = 3
KNOWN, NEW = len(MEANINGS), len(MEANINGS) + 1
N_MEANINGS = len(MEANINGS) + 2


def verdict_row(index: int, rng: random.Random, tokenizer: Any, rates: MistakeRates) -> Row:
    """A solution with mistakes as a PRM learns it.

    At a step's end alone, a small model learns first how hard a problem is, and what makes a step
    wrong much later. So up to the first mistake the head learns at every part of a calculation
    (first number, operation, second number, result): each is right as long as some relation that
    may come begins so. From the first wrong part to the end of its step all is wrong, as is
    each later step at its end. Right steps are predicted as well, so that the model keeps what
    it knows.
    """
    problem = make_problem("train", index)
    referee = Referee(problem)
    ids, meaning = _question(tokenizer, problem)
    next_token, verdict = [False] * len(ids), [-1] * len(ids)
    all_right = True
    for step in write_solution(problem, rng, rates):
        pieces = calculation_pieces(step)
        calculation = _CALCULATION.search(step)
        n_right = RESULT
        if calculation:
            a, op, b = (text.strip() for text in calculation.groups()[:RESULT])
            n_right = referee.n_fitting(int(a), cast(Operation, op), int(b))
        right = referee.step(step) == "right"
        for text, part in pieces:
            piece = encode_text(tokenizer, text)
            told = all_right and part is not None
            ids += piece
            next_token += [all_right and right] * len(piece)
            verdict += [int(right or (part or 0) < n_right) if told else -1] * len(piece)
        all_right = all_right and right
        if not all_right:
            verdict[-1] = 0
    meaning += [-1] * (len(ids) - len(meaning))
    return Row(ids, next_token, meaning, verdict)


def calculation_pieces(step: str) -> list[tuple[str, int | None]]:
    """A step in pieces, with the part of its calculation that each is.

    Parts are 0 (first number), 1 (operation), 2 (second number) and 3 (result, and the rest of
    the step after it); None where there is nothing to judge yet.
    """
    calculation = _CALCULATION.search(step)
    if calculation:
        spans = [calculation.span(group) for group in range(1, 5)]
    else:
        answer = _ANSWER.search(step)
        if answer is None:
            raise ValueError(f"{step!r} states neither a calculation nor an answer")
        spans = [answer.span(1)]
    pieces: list[tuple[str, int | None]] = []
    at = 0
    for part, (start, end) in enumerate(spans, RESULT + 1 - len(spans)):
        if start > at:
            pieces.append((step[at:start], None))
        at = len(step) if part == RESULT else end
        pieces.append((step[start:at], part))
    return pieces


MakeRow = Callable[[int, random.Random], Row]


def batches(make_row: MakeRow, first: int, seed: int, n_tokens: int) -> Iterator[Batch]:
    """Endless batches of about `n_tokens` tokens, from training problem number `first` on."""
    rng = random.Random(seed)
    index = first
    while True:
        pool = sorted(
            (make_row(i, rng) for i in range(index, index + POOL)), key=lambda row: len(row.ids)
        )
        index += POOL
        groups: list[list[Row]] = [[]]
        for row in pool:
            if (len(groups[-1]) + 1) * len(row.ids) > n_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(_pad, groups)


def _pad(rows: list[Row]) -> Batch:
    import torch

    # Few different widths, so that compiled code is used again.
    width = -(-max(len(row.ids) for row in rows) // 8) * 8
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    next_token = torch.zeros(len(rows), width, dtype=torch.bool)
    meaning = torch.full((len(rows), width), -1)
    verdict = torch.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        next_token[i, :n] = torch.tensor(row.next_token)
        meaning[i, :n] = torch.tensor(row.meaning)
        verdict[i, :n] = torch.tensor(row.verdict)
    return Batch(ids, next_token, meaning, verdict)
