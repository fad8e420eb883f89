r"""Universal-PRM: one number at an end-of-text token that is put behind each step in turn.

The question, with the reference answer or the sentence that there is none, is the user's turn;
the steps, each with a blank line behind it, are the assistant's. The published recipe takes one
pass per step, since each pass ends in ``<|im_end|>``; here one pass computes the steps, and the end
tokens go on from its keys and values. Score = sigmoid.

Header: Tan et al. 2025, AURORA, arXiv:2502.11520; infly/Universal-PRM-7B.
"""

from __future__ import annotations

from functools import partial

from prmkit.chat import Tokenizer, encode_text, turns
from prmkit.errors import CheckpointError
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import sigmoid_of_one
from prmkit.scorers.families.wording import bare

SYSTEM = "You are a helpful assistant."
NO_REFERENCE = "There is no reference answer for this question."


def begin(problem: Problem, tokenizer: Tokenizer, *, reference: bool) -> list[int]:
    """The question and, where it is wanted and known, the reference answer."""
    answer = problem.answer if reference and problem.answer is not None else NO_REFERENCE
    text = f"{problem.text}\n\n###\n\nThe reference answer is: {answer}"
    markup = turns(tokenizer, SYSTEM)
    return markup.start + encode_text(tokenizer, text) + markup.to_assistant


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A step and a blank line, which may merge with its last stop as in the published ids."""
    del index
    ids = encode_text(tokenizer, bare(step.text) + "\n\n")
    return Piece(ids, len(ids) - 1)


def end(tokenizer: Tokenizer) -> list[int]:
    """The end-of-text token."""
    found = getattr(tokenizer, "eos_token_id", None)
    if found is None:
        raise CheckpointError("the tokenizer has no end-of-text token, at which steps are read")
    return [found]


def _family(name: str, reference: bool, about: str = "") -> Discriminative:
    return Discriminative(
        name=name,
        begin=partial(begin, reference=reference),
        step=step,
        read=sigmoid_of_one,
        head=Linear(1, ("score", "v_head", "value_head", "reward_head")),
        semantics="correctness",
        end=end,
        about=about,
    )


FAMILY = _family("universal_prm", reference=False)
WITH_REFERENCE = _family(
    "universal_prm_reference",
    reference=True,
    about="Universal-PRM, shown the reference answer: for labelling, not for picking answers.",
)
