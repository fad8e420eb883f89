r"""VersaPRM: a language model read at four line ends behind each step.

    {question} \n\n{step} \n\n\n\n{step} \n\n\n\n

Each part is tokenised on its own, as in training. Read at the token of the space and four line
ends; score = softmax over the logits of "-" and "+", share of "+".

Header: Zeng et al. 2025, arXiv:2502.06737; UW-Madison-Lee-Lab/VersaPRM and its siblings.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import second_of_two
from prmkit.scorers.families.wording import bare

TAG = " \n\n\n\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question with a blank line."""
    return beginning(tokenizer) + encode_text(tokenizer, f"{problem.text} \n\n")


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step and its tag."""
    del index
    text = encode_text(tokenizer, bare(step.text))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="versa_prm",
    begin=begin,
    step=step,
    read=second_of_two,
    head=TokenRows(("-", "+")),
    semantics="correctness",
    tags=(TAG,),
)
