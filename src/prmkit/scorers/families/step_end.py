r"""prmkit's own family: a two-class head read at the line end that closes each step.

The question goes through the tokenizer's chat template; each step is its text without the line
ends around it, closed by one line end that is tokenised on its own. The head is read there:
class 1 is "right so far".

Header: paper none; models trained by ``prm train``; score = softmax of two logits, class 1.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_markup, encode_question, encode_text
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import second_of_two

STEP_END = "\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question in the chat template, up to where the answer begins."""
    return encode_question(tokenizer, problem)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step, its line end, and what an environment answered: read, but not scored."""
    del index
    end = encode_markup(tokenizer, STEP_END)
    ids = encode_text(tokenizer, step.text.strip(STEP_END)) + end
    at = len(ids) - 1
    if step.observation is not None:
        ids += encode_text(tokenizer, step.observation.strip(STEP_END)) + end
    return Piece(ids, at)


STEP_END_FAMILY = Discriminative(
    name="step_end",
    begin=begin,
    step=step,
    read=second_of_two,
    head=Linear(2),
    semantics="correctness",
)
