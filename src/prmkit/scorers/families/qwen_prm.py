"""Qwen2.5-Math-PRM: a two-layer head read at a special token behind each step.

The question is the user's turn, all steps are the assistant's, each closed by ``<extra_0>``. Read
at that token; score = softmax over two classes, class 1.

Header: Zhang et al. 2025, arXiv:2501.07301; Qwen/Qwen2.5-Math-PRM-7B and -72B,
Qwen/Qwen2.5-Math-7B-PRM800K. ReasonFlux-PRM-7B (arXiv:2506.18896) is the same without the system
message.
"""

from __future__ import annotations

from functools import partial

from prmkit.chat import Tokenizer, encode_text, single_token, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TwoLayers
from prmkit.scorers.families.reading import second_of_two
from prmkit.scorers.families.wording import bare

TAG = "<extra_0>"
SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


def begin(problem: Problem, tokenizer: Tokenizer, system: str | None = SYSTEM) -> list[int]:
    """The system message, the question, and the beginning of the assistant's turn."""
    markup = turns(tokenizer, system)
    return markup.start + encode_text(tokenizer, problem.text) + markup.to_assistant


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step and its tag."""
    del index
    text = encode_text(tokenizer, bare(step.text))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="qwen_prm",
    begin=begin,
    step=step,
    read=second_of_two,
    head=TwoLayers(2),
    semantics="correctness",
    tags=(TAG,),
)
REASONFLUX = Discriminative(
    name="reasonflux",
    about="ReasonFlux-PRM: as Qwen2.5-Math-PRM, without a system message of its own.",
    begin=partial(begin, system=None),
    step=step,
    read=second_of_two,
    head=TwoLayers(2),
    semantics="correctness",
    tags=(TAG,),
)
