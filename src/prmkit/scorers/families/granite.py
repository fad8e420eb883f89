"""Granite's PRM: each step is a question of the user, each answer of the assistant is "Y".

The first turn is the problem, a space, the first step and the question whether all is right so
far. Read at the last token before the answer; score = P("Y") among the whole vocabulary.

Header: IBM Granite, 2025; ibm-granite/granite-3.3-8b-lora-math-prm, an adapter for
ibm-granite/granite-3.3-8b-instruct.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_text, single_token, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenShare
from prmkit.scorers.families.reading import probability
from prmkit.scorers.families.wording import bare

ANSWER = "Y"
QUESTION = " Is this response correct so far (Y/N)?"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The first turn up to the end of the problem."""
    return turns(tokenizer).start + encode_text(tokenizer, problem.text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step, the question about it, and the answer."""
    markup = turns(tokenizer)
    before = [] if index == 0 else markup.to_user
    text = encode_text(tokenizer, (" " if index == 0 else "") + bare(step.text) + QUESTION)
    ids = [*before, *text, *markup.to_assistant, single_token(tokenizer, ANSWER)]
    return Piece(ids, len(ids) - 2, len(before))


FAMILY = Discriminative(
    name="granite",
    begin=begin,
    step=step,
    read=probability,
    head=TokenShare(ANSWER),
    semantics="correctness",
)
