r"""Math-psa (OpenR): a language model read at five line ends behind each step.

    {question} Step 1: … \n\n\n\n\n Step 2: … \n\n\n\n\n

Read at the token of the space and five line ends, as the published inference does; the published
training shifted its labels by one, so the model was taught the token before it. Score = softmax
over the logits of " +" and " -", share of " +".

Header: Wang et al. 2024, OpenR, arXiv:2410.09671; openreasoner/Math-psa, an adapter for
Qwen/Qwen2.5-Math-7B-Instruct.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import first_of_two
from prmkit.scorers.families.wording import numbered

TAG = " \n\n\n\n\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question; the space after it belongs to the first step's first token."""
    return beginning(tokenizer) + encode_text(tokenizer, problem.text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A numbered step after a space, and its tag."""
    text = encode_text(tokenizer, " " + numbered(step.text, index))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="math_psa",
    begin=begin,
    step=step,
    read=first_of_two,
    head=TokenRows((" +", " -")),
    semantics="correctness",
    tags=(TAG,),
)
