"""RLHFlow: each step is a turn of a user, each answer of the assistant is "+".

The first turn is the question, a space, and the first step. Read at the last token before the
answer; score = softmax over the logits of "+" and "-", share of "+". All steps are read in one
pass, since every earlier answer is "+" in the published recipe too.

Header: Dong et al. 2024, arXiv:2405.07863, and RLHFlow/RLHF-Reward-Modeling, math-rm;
RLHFlow/Llama3.1-8B-PRM-Mistral-Data, RLHFlow/Llama3.1-8B-PRM-Deepseek-Data.
"""

from __future__ import annotations

from functools import partial

from prmkit.chat import Tokenizer, encode_text, single_token, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import first_of_two
from prmkit.scorers.families.wording import bare

ANSWER = "+"


def begin(problem: Problem, tokenizer: Tokenizer, joint: str = "") -> list[int]:
    """The first turn up to the end of the question and what joins it to the first step.

    A blank line may share a token with the question's stop; a space is the first step's.
    """
    return turns(tokenizer).start + encode_text(tokenizer, problem.text + joint)


def step(step: Step, index: int, tokenizer: Tokenizer, joint: str = " ") -> Piece:
    """A turn of the user and the answer; the first step goes on in the question's turn."""
    markup = turns(tokenizer)
    before = [] if index == 0 else markup.to_user
    text = encode_text(tokenizer, (joint if index == 0 else "") + bare(step.text))
    ids = [*before, *text, *markup.to_assistant, single_token(tokenizer, ANSWER)]
    return Piece(ids, len(ids) - 2, len(before))


def _family(name: str, joint: str, about: str = "") -> Discriminative:
    return Discriminative(
        name=name,
        begin=begin if joint == " " else partial(begin, joint=joint),
        step=step if joint == " " else partial(step, joint=""),
        read=first_of_two,
        head=TokenRows((ANSWER, "-")),
        semantics="correctness",
        about=about,
    )


FAMILY = _family("rlhflow", " ")
BLANK_LINE = _family(
    "rlhflow_blank_line",
    "\n\n",
    "RLHFlow with a blank line between the question and the first step, as its Deepseek training "
    "data has it.",
)
