"""Families that judge in words against their recipes written again with transformers' `generate`.

Greedy and short, on random weights: what is written means nothing, but the prompts, what is put
behind the words, and the words that are compared all change the numbers.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.families import GENERATIVE
from prmkit.scorers.generative import GenerativeScorer
from prmkit.testing import tiny_checkpoint

QUESTION = "How many apples are there?"
STEPS = ["So 3 + 4 = 7 apples.", "The answer is 7."]
WORDS = 8
"""Tokens of each stretch of a critique."""


class Plain:
    def __init__(self, folder):
        self.tok = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, messages, reply):
        chat = self.tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = self.tok.encode(chat, add_special_tokens=False)
        return ids + self.tok.encode(reply, add_special_tokens=False)

    def write(self, messages, reply):
        ids = torch.tensor([self.ids(messages, reply)])
        with torch.no_grad():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=WORDS,
                do_sample=False,
                pad_token_id=self.tok.pad_token_id,
            )
        return self.tok.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def share(self, messages, reply, first, second):
        ids = torch.tensor([self.ids(messages, reply)])
        with torch.no_grad():
            logits = self.model(input_ids=ids).logits[0, -1]
        words = [self.tok.encode(w, add_special_tokens=False)[0] for w in (first, second)]
        return logits[words].softmax(-1)[0].item()


def user(text):
    return {"role": "user", "content": text}


def gen_prm(m):
    system = (
        "You are a math teacher. Your task is to review and critique the paragraphs in solution "
        "step by step."
    )
    messages, scores = [{"role": "system", "content": system}], []
    for k, step in enumerate(STEPS, 1):
        messages.append(user(f"Question: {QUESTION}\n\n{step}" if k == 1 else step))
        reply = f"<analyze>\nLet's analyze the Paragraph {k} step by step: "
        reply += m.write(messages, reply) + "</analyze>\n"
        judge = "<output>\n**Judgement**: $\\boxed{"
        scores.append(m.share(messages, reply + judge, "Yes", "No"))
        verdict = "Yes" if scores[-1] >= 0.5 else "No"
        content = f"{reply}{judge}{verdict}}}$\n</output>"
        messages.append({"role": "assistant", "content": content})
    return scores


def think_prm(m):
    scores = []
    for n in range(1, len(STEPS) + 1):
        solution = "\n".join(f"Step {i}: {s}" for i, s in enumerate(STEPS[:n], 1))
        messages = [
            user(
                "You are given a math problem and a proposed step-by-step solution:\n\n"
                f"[Math Problem]\n\n{QUESTION}\n\n[Solution]\n\n{solution}\n\nReview and critique "
                "each step in the proposed solution to determine whether each step is correct. If "
                "the solution is incomplete, only verify the provided steps."
            )
        ]
        reply = "\nLet's verify step by step:"
        reply += m.write(messages, reply).rstrip() + "\nIs the solution correct?"
        scores.append(m.share(messages, reply, " yes", " no"))
    return scores


def judge(m):
    """The task is in our own words; it is rebuilt here from the family's published shape."""
    from prmkit.scorers.families.judge import TASK

    solution = "\n\n".join(f"<paragraph_{i}>\n{s}\n</paragraph_{i}>" for i, s in enumerate(STEPS))
    messages = [user(TASK.format(problem=QUESTION, solution=solution))]
    words = m.write(messages, "")
    return [
        m.share(messages, f"{words}\n\nIs paragraph {i} right? Answer Yes or No:", " Yes", " No")
        for i in range(len(STEPS))
    ]


def r_prm(m):
    from prmkit.scorers.families.r_prm import PROMPT

    scores, lines = [], [f"Step {i}: {s}" for i, s in enumerate(STEPS, 1)]
    for i, now in enumerate(lines):
        previous = "\n".join(lines[:i])
        messages = [user(PROMPT.format(problem=QUESTION, previous=previous, now=now))]
        question = "Verification: Is the step correct (Yes/No)?"
        words = f"{m.write(messages, '').rstrip()}\n{question}"
        scores.append(m.share(messages, words, " Yes", " No"))
    return scores


RECIPES = {"gen_prm": gen_prm, "think_prm": think_prm, "judge": judge, "r_prm": r_prm}


def test_every_family_has_its_recipe_here():
    """`gen_prm_code` differs by what its programs print: see tests/scorers/test_generative.py."""
    assert {*RECIPES, "gen_prm_code"} == {*GENERATIVE}


@pytest.mark.parametrize("name", RECIPES)
def test_scores_are_those_of_the_recipe(name, tmp_path):
    folder = tiny_checkpoint(name, tmp_path, seed=3)
    greedy = GENERATIVE[name]._replace(sampling=SamplingSettings(temperature=0.0))
    scorer = GenerativeScorer(
        HFPolicy(folder, device="cpu"), greedy, n_samples=1, max_new_tokens=WORDS
    )
    solution = Trajectory(
        problem=Problem(id="q", prompt=QUESTION), steps=tuple(Step(text=s) for s in STEPS)
    )
    (found,) = scorer.score([solution])
    expected = RECIPES[name](Plain(folder))
    assert list(found.values) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3
