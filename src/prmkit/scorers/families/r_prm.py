"""R-PRM: an analysis of each step, then Yes or No.

The step's score is P(" Yes") against P(" No") behind the question that ends the analysis, the
mean over several analyses.

Header: She et al. 2025, arXiv:2503.21295; kevinpro/R-PRM-7B-DPO. The published prompt has an
example before the question and literal backslash-n in it; this is its frame, in our own words,
so scores of the published checkpoint will differ somewhat: unverified. Where an analysis ends
without the question, the question is put behind it; the published code asks in other words then.
"""

from __future__ import annotations

import re

from prmkit.policies.base import SamplingSettings
from prmkit.records import Message, Trajectory
from prmkit.scorers.families.base import Choose, Critique, Generative, Write
from prmkit.scorers.families.wording import numbered

PROMPT = """\
You are an excellent math teacher. Judge whether the Now Step of a solution is correct. Analyse \
the previous steps, the now step, where its data comes from, its consistency and its calculations, \
and end with "Verification: Is the step correct (Yes/No)?" and your answer.

Question: {problem}
Previous Steps: {previous}
Now Step: {now}
Please carefully analyze the correctness of the Now Step.
Reply: """
QUESTION = "Verification: Is the step correct (Yes/No)?"
_ANSWER = re.compile(re.escape(QUESTION) + r"\s*(Yes|No)")


def messages(trajectory: Trajectory, index: int) -> tuple[Message, ...]:
    """The prompt about one step."""
    lines = [numbered(step.text, i) for i, step in enumerate(trajectory.steps[: index + 1])]
    text = PROMPT.format(
        problem=trajectory.problem.text, previous="\n".join(lines[:-1]), now=lines[-1]
    )
    return (Message(role="user", content=text),)


def critique(trajectory: Trajectory) -> Critique:
    """One analysis for each step."""
    scores: list[float] = []
    for index in range(len(trajectory.steps)):
        conversation = messages(trajectory, index)
        words: str = yield Write(conversation, "", (QUESTION,))
        ended = words.endswith(QUESTION)
        if not ended:
            words = f"{words.rstrip()}\n{QUESTION}"
        answer: list[float] | None = yield Choose(conversation, words, (" Yes", " No"))
        if answer is None:
            verdict: str = yield Write(conversation, words, ("Yes", "No"), 8)
            found = _ANSWER.findall(words + verdict)
            if not found:
                return f"the analysis of step {index} answers neither Yes nor No"
            answer = [1.0, 0.0] if found[-1] == "Yes" else [0.0, 1.0]
        scores.append(answer[0])
    return scores


FAMILY = Generative(
    name="r_prm",
    critique=critique,
    sampling=SamplingSettings(temperature=1.0, top_p=0.9, max_new_tokens=2048),
    n_samples=10,
)
