r"""Math-Shepherd: a language model that says + or - at a tag behind each step.

    {question} Step 1: … ки\nStep 2: … ки\n

Read at the tag; score = softmax over the logits of "+" and "-", share of "+".

Header: Wang et al. 2023, arXiv:2312.08935; peiyi9979/math-shepherd-mistral-7b-prm.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_inside, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import first_of_two
from prmkit.scorers.families.wording import numbered

TAG = " ки"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question; the space after it belongs to the first step's first token."""
    return beginning(tokenizer) + encode_text(tokenizer, problem.text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A numbered step, its tag, and a line end."""
    text = encode_inside(tokenizer, ("" if index else " ") + numbered(step.text, index))
    line_end = encode_inside(tokenizer, "\n")
    return Piece([*text, single_token(tokenizer, TAG), *line_end], len(text))


FAMILY = Discriminative(
    name="math_shepherd",
    begin=begin,
    step=step,
    read=first_of_two,
    head=TokenRows((" +", " -")),
    semantics="correctness",
    tags=(TAG,),
)
