"""Skywork-o1-Open-PRM: a value head read at the line end behind each step.

The question with a line end, then each line of the solution and a line end that is tokenised on
its own. The published code scores every line; a step of several lines has the score of its last
one. Where blank lines separate the steps, the published code has a line of its own for each of
them; here steps follow each other with one line end. Score = sigmoid of the value.

Header: Skywork-o1 Open, 2024; Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_text, single_token
from prmkit.errors import CheckpointError
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import sigmoid_of_one

LINE_END = "\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The beginning-of-text token and the question, whose line end may merge with its stop."""
    start = getattr(tokenizer, "bos_token_id", None)
    if start is None:
        raise CheckpointError(
            "the tokenizer has no beginning-of-text token, which Skywork's recipe puts before the "
            "question; use the tokenizer of the Skywork checkpoint, not Qwen's"
        )
    return [start, *encode_text(tokenizer, problem.text + LINE_END)]


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """The lines of a step, each with its line end."""
    del index
    end = single_token(tokenizer, LINE_END)
    ids: list[int] = []
    for line in step.text.strip(LINE_END).split(LINE_END):
        ids += [*encode_text(tokenizer, line), end]
    return Piece(ids, len(ids) - 1)


FAMILY = Discriminative(
    name="skywork",
    begin=begin,
    step=step,
    read=sigmoid_of_one,
    head=Linear(1, ("v_head.summary",)),
    semantics="correctness",
)
