"""Implicit rewards: how much likelier a step is to one language model than to another.

    r_i = β · Σ_{t in step i} [log π(y_t | y_<t) - log π_ref(y_t | y_<t)]

With π trained from π_ref on outcomes this is the implicit PRM of Yuan et al. 2024
(arXiv:2412.01981, eq. 3, per step). With any two models that share a tokenizer, a stronger and
a weaker one, it is a reward without training.
"""

from __future__ import annotations

from collections.abc import Sequence

from prmkit.chat import Tokenizer
from prmkit.records import Trajectory
from prmkit.scorers.families.base import Implicit, Rendered
from prmkit.scorers.families.step_end import STEP_END_FAMILY


def render(trajectory: Trajectory, tokenizer: Tokenizer) -> Rendered:
    """As a policy reads it: question, then steps, each closed by a line end."""
    return STEP_END_FAMILY.render(trajectory, tokenizer)


def make_read(beta: float) -> _Read:
    """The read function for a β."""
    return _Read(beta)


class _Read:
    """Sum of log-ratios over the tokens of each step, times β. A class, so that it pickles."""

    def __init__(self, beta: float):
        self.beta = beta

    def __call__(
        self, log_probs: Sequence[float], reference: Sequence[float], rendered: Rendered
    ) -> list[float]:
        # log_probs[t - 1] belongs to token t.
        ratios = [p - q for p, q in zip(log_probs, reference, strict=True)]
        return [
            self.beta * sum(ratios[start - 1 : end])
            for start, end in zip(rendered.starts, rendered.positions, strict=True)
        ]


def log_ratio_family(beta: float = 1.0) -> Implicit:
    """The family for a β (1 by default: the plain log-ratio)."""
    return Implicit(name="log_ratio", render=render, read=make_read(beta), semantics="log_ratio")
