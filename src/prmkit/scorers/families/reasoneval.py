r"""ReasonEval: three classes near the end of each step.

    Question:\n{question}\nAnswer:\nLet's think step by step.\n{step}{step}…

The published code puts padding tokens between the steps to find their ends and takes them out
again, so each step is tokenised on its own and nothing stands between them. For the 34B model the
steps are read at their last tokens. For the 7B model it counts positions before it puts the
beginning of text in front, so that each is one token early: at the last token but one. Published
figures were made so, and so does ``reasoneval``. Classes are negative, neutral and positive.
Validity = P(neutral) + P(positive); redundancy = P(neutral).

Header: Xia et al. 2024, arXiv:2404.05692, section 3; GAIR/ReasonEval-7B, GAIR/ReasonEval-34B.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from prmkit.chat import Tokenizer, beginning, encode_text
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import Numbers, softmax
from prmkit.scorers.families.wording import unnumbered


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The prompt around the question."""
    text = f"Question:\n{problem.text}\nAnswer:\nLet's think step by step.\n"
    return beginning(tokenizer) + encode_text(tokenizer, text)


def step(step: Step, index: int, tokenizer: Tokenizer, early: int = 0) -> Piece:
    """A step alone; an empty one is read at the token before it."""
    del index
    ids = encode_text(tokenizer, unnumbered(step.text))
    return Piece(ids, max(len(ids) - 1 - early, -1))


def validity(numbers: Numbers) -> list[float]:
    """[S, 3] logits to P(neutral) + P(positive)."""
    return [min(neutral + positive, 1.0) for _, neutral, positive in map(softmax, numbers)]


def not_redundant(numbers: Numbers) -> list[float]:
    """[S, 3] logits to 1 - P(neutral), so that higher is better here as everywhere."""
    return [1 - neutral for _, neutral, _ in map(softmax, numbers)]


FAMILY = Discriminative(
    name="reasoneval",
    about="ReasonEval-7B, validity: three classes at the last token but one of each step.",
    begin=begin,
    step=partial(step, early=1),
    read=validity,
    head=Linear(3, ("score_head",)),
    semantics="correctness",
)
REDUNDANCY = replace(
    FAMILY,
    name="reasoneval_redundancy",
    about="ReasonEval-7B: 1 - P(neutral), how far each step is from being redundant.",
    read=not_redundant,
)
LARGE = replace(
    FAMILY,
    name="reasoneval_34b",
    about="ReasonEval-34B, validity: three classes at the last token of each step.",
    step=step,
)
LARGE_REDUNDANCY = replace(
    LARGE,
    name="reasoneval_34b_redundancy",
    about="ReasonEval-34B: 1 - P(neutral), how far each step is from being redundant.",
    read=not_redundant,
)
