"""Implicit rewards: how much likelier a step is to one language model than to another.

    r_i = β · Σ_{t in step i} [log π(y_t | y_<t) - log π_ref(y_t | y_<t)]

With π trained from π_ref on outcomes this is the implicit PRM of Yuan et al. 2024
(arXiv:2412.01981, eq. 3, per step). With any two models that share a tokenizer, a stronger and
a weaker one, it is a reward without training.

``contrast`` and ``likelihood`` need no training at all and do not favour short steps: a step is cut
into chunks of `CHUNK` tokens, each has the mean over its tokens, and the step has that of its
lowest chunk, so that one bad calculation is not averaged away by the words around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from prmkit.scorers.families.base import Implicit, LogProbsOfSteps
from prmkit.scorers.families.step_end import STEP_END_FAMILY

CHUNK = 16
"""Tokens of a chunk; the last one of a step may be shorter."""


class PerStep:
    """β times the sum of log-ratios over each step's tokens. A class, so that it pickles.

    Args:
        beta: β.
        cumulated: whether to add up over the steps: the value q_i of the prefix.
    """

    def __init__(self, beta: float, *, cumulated: bool = False):
        self.beta, self.cumulated = beta, cumulated

    def __call__(self, ours: LogProbsOfSteps, theirs: LogProbsOfSteps | None) -> list[float]:
        """[S] scores."""
        assert theirs is not None
        rewards = [
            self.beta * math.fsum(token_ratios(p, q)) for p, q in zip(ours, theirs, strict=True)
        ]
        if not self.cumulated:
            return rewards
        return [math.fsum(rewards[: i + 1]) for i in range(len(rewards))]


def token_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """[T] log-ratios of one step's tokens."""
    return [p - q for p, q in zip(ours, theirs, strict=True)]


def lowest_chunk(values: Sequence[float], size: int = CHUNK) -> float:
    """The lowest mean over chunks of `size` tokens; 0 for a step without tokens."""
    chunks = [values[at : at + size] for at in range(0, len(values), size)]
    return min((math.fsum(chunk) / len(chunk) for chunk in chunks), default=0.0)


def contrast(ours: LogProbsOfSteps, theirs: LogProbsOfSteps | None) -> list[float]:
    """[S] the lowest chunk of each step's log-ratios."""
    assert theirs is not None
    return [lowest_chunk(token_ratios(p, q)) for p, q in zip(ours, theirs, strict=True)]


def likelihood(ours: LogProbsOfSteps, theirs: LogProbsOfSteps | None) -> list[float]:
    """[S] the lowest chunk of each step's log-probabilities."""
    del theirs
    return [lowest_chunk(p) for p in ours]


def _plain(
    name: str,
    read: Callable[[LogProbsOfSteps, LogProbsOfSteps | None], list[float]],
    about: str,
    compares: bool = True,
) -> Implicit:
    """A family that reads question and steps as prmkit's own models do."""
    return Implicit(
        name=name,
        begin=STEP_END_FAMILY.begin,
        step=STEP_END_FAMILY.step,
        read=read,
        compares=compares,
        about=about,
    )


def log_ratio_family(beta: float = 1.0) -> Implicit:
    """The family for a β (1 by default: the plain log-ratio)."""
    return _plain(
        "log_ratio",
        PerStep(beta),
        "Any two language models: the log-ratio of one to the other, summed over each step.",
    )


CONTRAST = _plain(
    "contrast",
    contrast,
    "Any two language models, a stronger and a weaker one: the lowest mean log-ratio of a chunk.",
)
LIKELIHOOD = _plain(
    "likelihood",
    likelihood,
    "Any language model: the lowest mean log-probability of a chunk of each step.",
    compares=False,
)
