r"""PQM: a value head read at an added token behind each step; scores are Q values without bounds.

    [INST] {question} [/INST]\nStep 1: … [PRM]\nStep 2: … [PRM]

No beginning-of-text token, as in the published evaluation. Only the order of Q values was
trained, so no product and no threshold of theirs has a meaning of its own.

Header: Li and Li 2024, arXiv:2410.11287, eq. 9; Windy0822/PQM.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_text, single_token
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import as_it_is
from prmkit.scorers.families.wording import numbered

TAG = "[PRM]"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question as an instruction; the line end after it begins the first step."""
    return encode_text(tokenizer, f"[INST] {problem.text} [/INST]")


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A line end, a numbered step, a space, and the tag."""
    text = encode_text(tokenizer, f"\n{numbered(step.text, index)} ")
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="pqm",
    begin=begin,
    step=step,
    read=as_it_is,
    head=Linear(1, ("v_head.summary",)),
    semantics="value",
    tags=(TAG,),
)
