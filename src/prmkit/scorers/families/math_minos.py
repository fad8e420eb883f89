r"""MathMinos: a token classifier with one output, read at a tag behind each step.

    Human: {question}\n\nAssistant:Step 1: … и\nStep 2: … и\n

The words are those of PRMBench's reading; the authors' own inference has one line end before
"Assistant:" and a space behind it. Score = sigmoid of the logit. The published code compares the
logit with 0, which is the same as comparing this score with 1/2.

Header: Gao et al. 2024, arXiv:2406.14024; KbsdJames/MATH-Minos (no weights on the hub).
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_inside, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import sigmoid_of_one
from prmkit.scorers.families.wording import numbered

TAG = " и"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question as the words of a human."""
    text = f"Human: {problem.text}\n\nAssistant:"
    return beginning(tokenizer) + encode_text(tokenizer, text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A numbered step, its tag, and a line end."""
    text = encode_inside(tokenizer, numbered(step.text, index))
    line_end = encode_inside(tokenizer, "\n")
    return Piece([*text, single_token(tokenizer, TAG), *line_end], len(text))


FAMILY = Discriminative(
    name="math_minos",
    begin=begin,
    step=step,
    read=sigmoid_of_one,
    head=Linear(1),
    semantics="correctness",
    tags=(TAG,),
)
