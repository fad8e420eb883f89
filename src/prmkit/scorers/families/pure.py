r"""PURE: a token classifier read at the blank line behind each step.

The question and the steps are tokenised one by one, each step closed by the id of ``\n\n``. Score
= P(right) - P(wrong), in [-1, 1].

Header: Cheng et al. 2025, arXiv:2504.15275; jinachris/PURE-PRM-7B.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import Numbers, second_of_two
from prmkit.scorers.families.wording import unnumbered

TAG = "\n\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question, without markup."""
    return encode_text(tokenizer, problem.text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step and its blank line."""
    del index
    text = encode_text(tokenizer, unnumbered(step.text))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


def margin(numbers: Numbers) -> list[float]:
    """[S, 2] logits to P(class 1) - P(class 0)."""
    return [2 * right - 1 for right in second_of_two(numbers)]


FAMILY = Discriminative(
    name="pure",
    begin=begin,
    step=step,
    read=margin,
    head=Linear(2),
    semantics="advantage",
)
