"""ER-PRM: as Math-Shepherd, on Llama 3.1 and without line ends.

    {question} Step 1: … киStep 2: … ки

Read at the tag; score = softmax over the logits of " +" and " -", share of " +".

Header: Zhang et al. 2024, arXiv:2412.11006; HanningZhang/Llama3.1-Math-PRM.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_text, single_token
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
    """A numbered step and its tag."""
    text = encode_text(tokenizer, ("" if index else " ") + numbered(step.text, index))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="er_prm",
    begin=begin,
    step=step,
    read=first_of_two,
    head=TokenRows((" +", " -")),
    semantics="correctness",
    tags=(TAG,),
)
