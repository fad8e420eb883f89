r"""Implicit PRMs: the log-ratio of a trained model to its reference, per step, on a chat.

    r_i = β · Σ_{t in step i} [log π(y_t | y_<t) - log π_ref(y_t | y_<t)]
    q_i = r_1 + … + r_i

The question is the user's turn; the assistant's is "Step 1: …\n\nStep 2: …". A step's tokens are
its own and those of the blank line before it. The published snippet finds a step's end by
tokenising it within a chat of its own, which lands one or two tokens later where stops merge with
line ends; here the ends are known.

Header: Yuan et al. 2024, arXiv:2412.01981, eq. 3; Windy0822/ImplicitPRM_DPO and _CE,
PRIME-RL/EurusPRM-Stage1 and -Stage2 (β = 0.001).
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, encode_text, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Implicit, Piece
from prmkit.scorers.families.log_ratio import PerStep
from prmkit.scorers.families.wording import numbered

BETA = 0.001


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question, and the beginning of the assistant's turn."""
    markup = turns(tokenizer)
    return markup.start + encode_text(tokenizer, problem.text) + markup.to_assistant


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A blank line but before the first, and a numbered step."""
    joint = encode_text(tokenizer, "\n\n") if index else []
    ids = joint + encode_text(tokenizer, numbered(step.text, index))
    return Piece(ids, len(ids) - 1)


def _family(name: str, *, cumulated: bool) -> Implicit:
    return Implicit(name=name, begin=begin, step=step, read=PerStep(BETA, cumulated=cumulated))


FAMILY = _family("implicit_prm", cumulated=False)
CUMULATED = _family("implicit_prm_cumulated", cumulated=True)
