"""ThinkPRM: a chain of thought about each prefix, then yes or no.

One chain per prefix: the step's score is P(yes) to "Is the solution correct?" after a chain over
the solution up to that step, so it is the score of the prefix.

The published search also stops a chain at the step after the last one given; here only the question
and the end of thinking stop it.

Header: Khalifa et al. 2025, arXiv:2504.16828; launch/ThinkPRM-1.5B, -7B, -14B.
"""

from __future__ import annotations

import re

from prmkit.policies.base import SamplingSettings
from prmkit.records import Message, Trajectory
from prmkit.scorers.families.base import Choose, Critique, Generative, Write
from prmkit.scorers.families.wording import numbered

PROMPT = (
    "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
    "{problem}\n\n[Solution]\n\n{solution}\n\nReview and critique each step in the proposed "
    "solution to determine whether each step is correct. If the solution is incomplete, only "
    "verify the provided steps."
)
LEAD = "\nLet's verify step by step:"
QUESTION = "\nIs the solution correct?"
STOP = ("Is the solution correct?", "</think>")
_VERDICT = re.compile(r"\\boxed\{\s*(correct|incorrect)\s*\}")


def messages(trajectory: Trajectory, n_steps: int) -> tuple[Message, ...]:
    """The prompt about the first steps."""
    lines = "\n".join(numbered(s.text, i) for i, s in enumerate(trajectory.steps[:n_steps]))
    text = PROMPT.format(problem=trajectory.problem.text, solution=lines)
    return (Message(role="user", content=text),)


def critique(trajectory: Trajectory) -> Critique:
    """One chain for each prefix."""
    scores: list[float] = []
    for n in range(1, len(trajectory.steps) + 1):
        conversation = messages(trajectory, n)
        words: str = yield Write(conversation, LEAD, STOP)
        for stop in STOP:
            words = words.removesuffix(stop)
        answer: list[float] | None = yield Choose(
            conversation, LEAD + words.rstrip() + QUESTION, (" yes", " no")
        )
        if answer is not None:
            scores.append(answer[0])
            continue
        verdicts = _VERDICT.findall(words)
        if not verdicts:
            return f"the chain about the first {n} steps gives no verdict in \\boxed{{}}"
        scores.append(float("incorrect" not in verdicts))
    return scores


FAMILY = Generative(
    name="think_prm",
    critique=critique,
    sampling=SamplingSettings(temperature=0.7, max_new_tokens=8192),
)
