r"""ActPRM: an ensemble of small heads read at a space and blank line behind each step.

A system message, the question as the user's turn, the steps as the assistant's, each closed by the
token of `` \n\n``. Each head is three layers with one output; score = the mean of their sigmoids.

Header: Duan et al. 2025, arXiv:2504.10559; sail/ActPRM, sail/ActPRM-X. Read in the authors'
source: not Qwen's recipe, though the models start from Qwen's.
"""

from __future__ import annotations

import math

from prmkit.chat import Tokenizer, encode_text, single_token, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import StackedHeads
from prmkit.scorers.families.reading import Numbers, sigmoid
from prmkit.scorers.families.wording import bare

TAG = " \n\n"
SYSTEM = (
    "You are a helpful and harmless assistant. You should think step-by-step and put your final "
    "answer within \\boxed{}."
)


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The system message, the question, and the beginning of the assistant's turn."""
    markup = turns(tokenizer, SYSTEM)
    return markup.start + encode_text(tokenizer, problem.text) + markup.to_assistant


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step and its tag."""
    del index
    text = encode_text(tokenizer, bare(step.text))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


def mean_of_heads(numbers: Numbers) -> list[float]:
    """[S, M] logits of M heads to the mean of their probabilities."""
    return [math.fsum(map(sigmoid, of_step)) / len(of_step) for of_step in numbers]


FAMILY = Discriminative(
    name="act_prm",
    begin=begin,
    step=step,
    read=mean_of_heads,
    head=StackedHeads(),
    semantics="correctness",
    tags=(TAG,),
)
