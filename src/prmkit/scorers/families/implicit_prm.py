r"""Implicit PRMs: the log-ratio of a trained model to its reference, per step, on a chat.

    r_i = β · Σ_{t in step i} [log π(y_t | y_<t) - log π_ref(y_t | y_<t)]
    q_i = r_1 + … + r_i

The question is the user's turn; the assistant's is "Step 1: …\n\nStep 2: …". As in the published
ids, a stop may share a token with the blank line after it, which then belongs to the step; else the
blank line belongs to the next one. Deviations: the last step is read as if another followed, so
that its score does not change when one does; and where a chat template closes a turn with more than
one token (Qwen's), the published ends lie one token late, ours do not.

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
    """A numbered step and a blank line; it ends where the step alone would."""
    text = numbered(step.text, index)
    ids = encode_text(tokenizer, text + "\n\n")
    return Piece(ids, min(len(encode_text(tokenizer, text)), len(ids)) - 1)


def _family(name: str, *, cumulated: bool, about: str = "") -> Implicit:
    read = PerStep(BETA, cumulated=cumulated)
    return Implicit(name=name, begin=begin, step=step, read=read, about=about)


FAMILY = _family("implicit_prm", cumulated=False)
CUMULATED = _family(
    "implicit_prm_cumulated",
    cumulated=True,
    about="Implicit PRMs: the log-ratio added up from the first step, the value of each prefix.",
)
