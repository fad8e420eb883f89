r"""prmkit's own family: a two-class head read at the line end that closes each step.

The question goes through the tokenizer's chat template; each step is its text without the line
ends around it, closed by one line end that is tokenised on its own. The head is read there:
class 1 is "right so far".

Header: paper none; models trained by ``prm train``; score = softmax of two logits, class 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prmkit.chat import Tokenizer, encode_markup, encode_question, encode_text
from prmkit.records import Trajectory
from prmkit.scorers.families.base import Discriminative, Rendered

STEP_END = "\n"


def render(trajectory: Trajectory, tokenizer: Tokenizer) -> Rendered:
    """Token ids of the question and the steps, and the position of each step's end."""
    ids = encode_question(tokenizer, trajectory.problem)
    end = encode_markup(tokenizer, STEP_END)
    positions, starts = [], []
    for step in trajectory.steps:
        starts.append(len(ids))
        ids += encode_text(tokenizer, step.text.strip(STEP_END)) + end
        positions.append(len(ids) - 1)
        if step.observation is not None:
            # What the environment answered is read, not scored.
            ids += encode_text(tokenizer, step.observation.strip(STEP_END)) + end
    return Rendered(ids, positions, starts)


def read(logits: Sequence[Sequence[float]]) -> list[float]:
    """[S, 2] logits to the probability of class 1, computed without overflow."""
    return [_sigmoid(right - wrong) for wrong, right in logits]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


STEP_END_FAMILY = Discriminative(
    name="step_end", render=render, read=read, semantics="correctness", n_outputs=2
)
