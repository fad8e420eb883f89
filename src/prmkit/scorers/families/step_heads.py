r"""prmkit's own families beside `step_end`: other heads, read at the same places.

``step_value`` has one number whose sigmoid is the chance that the step is right, ``step_rank`` one
whose order alone counts, ``step_classes`` three classes of human ratings.

``turn_value`` is ``step_value`` for agents: a conversation as the policy reads it, where an action
is a turn of the assistant and what the environment answers is one of the user. An action is read at
the token that ends its turn; a step that nothing was answered to, as in ``step_value``. That is the
value of an action, before it is known what comes of it. ``turn_state`` reads the same behind the
answer, where the policy's next turn begins: the value of the state that the action led to.

Header: paper none; models trained by ``prm train --kind value|rank|pairs|classes``.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from prmkit.chat import Tokenizer, encode_text, turns
from prmkit.records import Step
from prmkit.scorers.families.base import Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import Numbers, sigmoid_of_one, softmax
from prmkit.scorers.families.step_end import STEP_END_FAMILY
from prmkit.scorers.families.step_end import step as line


def not_wrong(numbers: Numbers) -> list[float]:
    """[S, 3] logits of wrong, neutral and right to P(neutral) + P(right)."""
    return [min(neutral + right, 1.0) for _, neutral, right in map(softmax, numbers)]


def turn(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """An action and the end of the turn; then the answer, and the beginning of the next turn."""
    if step.observation is None:
        return line(step, index, tokenizer)
    markup = turns(tokenizer)
    # What closes a turn is what comes both before a user's message and at the very end.
    both = takewhile(lambda pair: pair[0] == pair[1], zip(markup.to_user, markup.end, strict=False))
    ids = encode_text(tokenizer, step.text)
    at = len(ids) + len([*both]) - 1
    ids += markup.to_user + encode_text(tokenizer, step.observation)
    return Piece(ids + markup.to_assistant, at)


def state(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """As `turn`, but read where the next turn begins."""
    piece = turn(step, index, tokenizer)
    return Piece(piece.ids, len(piece.ids) - 1)


VALUE = replace(
    STEP_END_FAMILY,
    name="step_value",
    about="prmkit's own: one number at each step's line end; score = its sigmoid.",
    read=sigmoid_of_one,
    head=Linear(1),
)
TURN_VALUE = replace(
    VALUE,
    name="turn_value",
    about="prmkit's own, for agents: one number where an action's turn ends; score = its sigmoid.",
    step=turn,
)
TURN_STATE = replace(
    TURN_VALUE,
    name="turn_state",
    about="prmkit's own, for agents: one number behind an action's answer; score = its sigmoid.",
    step=state,
)
RANK = replace(
    VALUE,
    name="step_rank",
    about="prmkit's own: one number at each step's line end whose order counts; its sigmoid.",
    semantics="value",
)
CLASSES = replace(
    STEP_END_FAMILY,
    name="step_classes",
    about="prmkit's own: wrong, neutral, right at each step's line end; P(neutral) + P(right).",
    read=not_wrong,
    head=Linear(3),
)
