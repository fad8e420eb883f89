r"""Llemma PRMs: a reward row that was repeated over the whole vocabulary, read behind each step.

    # Question\n\n{question}\n\n# Solution\n\n{step}\n\n{step}\n\n

Read at the first of the two line ends; the mean over the vocabulary of the repeated row is the
row itself, so one row is computed. Score = sigmoid.

Header: Sun et al. 2024, arXiv:2403.09472; ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf and
its siblings.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_inside, encode_text
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import MeanRow
from prmkit.scorers.families.reading import sigmoid_of_one

STEP_END = "\n\n"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question and the heading of the solution."""
    text = f"# Question\n\n{problem.text}\n\n# Solution\n\n"
    return beginning(tokenizer) + encode_text(tokenizer, text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step without blank lines inside, as published, and the blank line behind it."""
    del index
    text = encode_inside(tokenizer, step.text.replace(STEP_END, "").strip())
    return Piece([*text, *encode_inside(tokenizer, STEP_END)], len(text))


FAMILY = Discriminative(
    name="llemma",
    begin=begin,
    step=step,
    read=sigmoid_of_one,
    head=MeanRow(),
    semantics="correctness",
)
