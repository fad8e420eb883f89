r"""GenPRM: an analysis of each paragraph, a program that checks it, then Yes or No.

A conversation: the user gives a paragraph, the assistant its critique, and so on; earlier critiques
stay in it. Each critique analyses, may write a program whose output is shown to it, and judges.
``gen_prm`` leaves programs out; ``gen_prm_code`` runs them in a sandbox. Score = P(Yes) against
P(No) inside of \boxed{}.

Deviations: the published sampling also has top_k = 20; after a program's output the published model
may write more programs, up to three; its limit of 2048 tokens is of a whole critique, ours of a
stretch.

Header: Zhao et al. 2025, arXiv:2504.00891; GenPRM/GenPRM-1.5B, -7B, -32B.
"""

from __future__ import annotations

import re
from functools import partial

from prmkit.policies.base import SamplingSettings
from prmkit.records import Message, Trajectory
from prmkit.scorers.families.base import Choose, Critique, Generative, RunCode, Write
from prmkit.scorers.families.wording import bare

SYSTEM = (
    "You are a math teacher. Your task is to review and critique the paragraphs in solution step "
    "by step."
)
ANALYZE = "<analyze>\nLet's analyze the Paragraph {n} step by step: "
VERIFY = "<verify>\nLet's use python code to find any potential error:\n```python\n"
JUDGE = "<output>\n**Judgement**: $\\boxed{"
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def critique(trajectory: Trajectory, *, code: bool) -> Critique:
    """The conversation about all paragraphs."""
    conversation = [Message(role="system", content=SYSTEM)]
    scores: list[float] = []
    for index, step in enumerate(trajectory.steps):
        question = f"Question: {trajectory.problem.text}\n\n" if index == 0 else ""
        conversation.append(Message(role="user", content=question + bare(step.text)))
        said = tuple(conversation)
        reply = ANALYZE.format(n=index + 1)
        words: str = yield Write(said, reply, ("</analyze>",))
        reply += _closed(words, "</analyze>")
        if code:
            program: str = yield Write(said, reply + VERIFY, ("```\n",))
            written = VERIFY + _closed(program, "```\n")
            found = _CODE.search(written)
            printed: str = yield RunCode(found[1] if found else "")
            reply += f"{written}[Code Output]\n\n```\n{printed.strip()}\n```\n</verify>\n"
        answer: list[float] | None = yield Choose(said, reply + JUDGE, ("Yes", "No"))
        if answer is None:
            verdict: str = yield Write(said, reply + JUDGE, ("Yes", "No"), 4)
            if verdict not in ("Yes", "No"):
                return f"the critique of paragraph {index + 1} judges neither Yes nor No"
            answer = [float(verdict == "Yes"), float(verdict == "No")]
        scores.append(answer[0])
        verdict = "Yes" if answer[0] >= 0.5 else "No"
        conversation.append(
            Message(role="assistant", content=f"{reply}{JUDGE}{verdict}}}$\n</output>")
        )
    return scores


def _closed(words: str, ending: str) -> str:
    """What was written, with its ending, which a limit of tokens may have cut off."""
    closed = words if words.endswith(ending) else words + ending
    return closed if closed.endswith("\n") else closed + "\n"


def _family(name: str, *, code: bool, about: str = "") -> Generative:
    return Generative(
        name=name,
        critique=partial(critique, code=code),
        sampling=SamplingSettings(temperature=0.6, top_p=0.95, max_new_tokens=2048),
        runs_code=code,
        about=about,
    )


FAMILY = _family("gen_prm", code=False)
WITH_CODE = _family(
    "gen_prm_code",
    code=True,
    about="GenPRM with the programs that it writes, run in a sandbox and only where allowed.",
)
