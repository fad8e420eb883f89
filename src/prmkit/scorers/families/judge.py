r"""A plain judge: any chat model reads the whole solution and says which paragraph is wrong first.

The task is ProcessBench's critique, in our own words: paragraphs are numbered from 0, the answer is
the index of the first wrong one in \boxed{}, or -1. Where the model's logits are to be had, it is
then asked of each paragraph whether it is right, and the score is P(Yes); where not, the critique
alone counts: paragraphs before the index have 1, it and those after it 0. Several critiques are
averaged, so that without logits the score is a share of critiques.

Header: Zheng et al. 2024, ProcessBench, arXiv:2412.06559, appendix; any chat model.
"""

from __future__ import annotations

import re

from prmkit.policies.base import SamplingSettings
from prmkit.records import Message, Trajectory
from prmkit.scorers.families.base import Choose, Critique, Generative, Write
from prmkit.scorers.families.wording import bare

TASK = """\
Below are a problem and a solution of it, cut into paragraphs that are numbered from 0.

[Problem]
{problem}

[Solution]
{solution}

Go through the paragraphs in order and check each one: is every calculation in it right, does it \
follow from what stands before it, and does it use what the problem says? Then name the first \
paragraph with a mistake. Write its number in \\boxed{{}}, or \\boxed{{-1}} if there is no mistake \
in any of them."""

_BOXED = re.compile(r"\\boxed\{\s*(-?\d+)\s*\}")


def messages(trajectory: Trajectory) -> tuple[Message, ...]:
    """The task with the problem and the numbered paragraphs; with what an agent was answered."""
    paragraphs = "\n\n".join(
        f"<paragraph_{i}>\n{bare(step.text)}\n</paragraph_{i}>"
        + (f"\nIt was answered:\n{bare(step.observation)}" if step.observation else "")
        for i, step in enumerate(trajectory.steps)
    )
    text = TASK.format(problem=trajectory.problem.text, solution=paragraphs)
    return (Message(role="user", content=text),)


def critique(trajectory: Trajectory) -> Critique:
    """One critique of the whole solution, then a question about each paragraph."""
    conversation, n_steps = messages(trajectory), len(trajectory.steps)
    if not n_steps:
        return []
    words: str = yield Write(conversation, "")
    scores: list[float] = []
    for index in range(n_steps):
        question = f"{words}\n\nIs paragraph {index} right? Answer Yes or No:"
        answer: list[float] | None = yield Choose(conversation, question, (" Yes", " No"))
        if answer is None:
            return _by_index(words, n_steps)
        scores.append(answer[0])
    return scores


def right_steps(words: str, n_steps: int) -> int | str:
    r"""How many paragraphs a critique finds right before the first wrong one, or why that is open.

    The last number in \\boxed{} counts: a critique may quote others before it comes to an end.
    """
    found = _BOXED.findall(words)
    if not found:
        return "the critique names no paragraph in \\boxed{}"
    first = int(found[-1])
    if not -1 <= first < n_steps:
        return f"the critique names paragraph {first} of {n_steps}"
    return n_steps if first == -1 else first


def _by_index(words: str, n_steps: int) -> list[float] | str:
    found = right_steps(words, n_steps)
    return found if isinstance(found, str) else [float(i < found) for i in range(n_steps)]


FAMILY = Generative(
    name="judge",
    critique=critique,
    sampling=SamplingSettings(temperature=1.0, top_p=0.9, max_new_tokens=8192),
    n_samples=8,
)
