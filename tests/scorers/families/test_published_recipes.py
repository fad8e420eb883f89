"""Each family against its published recipe, written again here in the plainest way.

The references join texts, tokenise the whole, search the ids for tags, run a stock class of
transformers on it, and read logits as the published snippets do: all that prmkit does not do. They
share nothing with it but the tiny checkpoint. Facts are those of the model cards and repositories
that the families name.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from prmkit.errors import InvalidRecord
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.families import DISCRIMINATIVE

QUESTION = "Mia has apples.\n\nCount them and say how many."
STEPS = ["So 3 + 4 = 7 apples.", "The answer is 7 - 2", "Yes, so 5."]
OBSERVATIONS = ["You see 7.", "Nothing.", "Done."]
"""What an environment answers to each step, where there is one."""


class Plain:
    """A checkpoint as the snippets load it."""

    def __init__(self, folder):
        self.folder = folder
        self.tok = AutoTokenizer.from_pretrained(folder)

    def lm(self, ids):
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0]

    def classifier(self, ids, n):
        model = AutoModelForTokenClassification.from_pretrained(
            self.folder, dtype=torch.float32, num_labels=n
        ).eval()
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0]

    def hidden(self, ids):
        model = AutoModel.from_pretrained(self.folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).last_hidden_state[0]

    @property
    def tensors(self):
        return load_file(self.folder / "model.safetensors")

    def layer(self, x, name):
        tensors = self.tensors
        y = x @ tensors[f"{name}.weight"].T
        return y + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else y


def two(logits, ids, first, second, tag, before=False):
    """Share of `first` against `second` wherever the tag is (or before it)."""
    share = logits[:, [first, second]].softmax(-1)[:, 0]
    at = [i - before for i, token in enumerate(ids) if token == tag]
    return share[at].tolist()


def math_shepherd(m):
    text = f"{QUESTION} " + "".join(f"Step {i}: {s} ки\n" for i, s in enumerate(STEPS, 1))
    plus, minus = m.tok.encode("+ -")[1:]
    tag = m.tok.encode("ки")[-1]
    ids = m.tok.encode(text)
    return two(m.lm(ids), ids, plus, minus, tag)


def rlhflow(m, joint=" "):
    """One forward pass per step, as in the evaluation script: the token before the last "+"."""
    conversation, scores = [], []
    plus, minus = m.tok.encode("+")[-1], m.tok.encode("-")[-1]
    for i, step in enumerate(STEPS):
        conversation.append(
            {"role": "user", "content": (QUESTION + joint if i == 0 else "") + step}
        )
        conversation.append({"role": "assistant", "content": "+"})
        ids = m.tok.apply_chat_template(conversation, return_dict=False)
        # … header, blank line, "+", end of turn
        scores.append(m.lm(ids)[-3, [plus, minus]].softmax(-1)[0].item())
    return scores


def skywork(m):
    ids = m.tok.encode(m.tok.bos_token + QUESTION + "\n")
    newline, at = m.tok.encode("\n")[-1], []
    for line in "\n".join(STEPS).split("\n"):
        ids += m.tok.encode(line)
        at.append(len(ids))
        ids.append(newline)
    values = m.layer(m.hidden(ids), "v_head.summary").squeeze(-1)
    return torch.sigmoid(values)[at].tolist()


def qwen_prm(m, system=r"Please reason step by step, and put your final answer within \boxed{}."):
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"},
    ]
    ids = m.tok.encode(m.tok.apply_chat_template(messages, tokenize=False))
    logits = m.layer(m.layer(m.hidden(ids), "score.0").relu(), "score.2")
    tag = m.tok.encode("<extra_0>")[0]
    probabilities = logits.softmax(-1)[torch.tensor(ids) == tag]
    return probabilities[:, 1].tolist()


def reasoneval(m, large=False):
    """The published procedure: padding tokens mark the ends, are counted, and are taken out."""
    m.tok.pad_token = "</s>" if large else "<s>"
    mark = m.tok.pad_token
    prompt = f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\n"
    text = prompt + mark + "".join(step + mark for step in STEPS)
    at, ids = [], []
    for i, token in enumerate(m.tok(text)["input_ids"]):
        if token == m.tok.pad_token_id:
            at.append(i - 1 - len(at))
        else:
            ids.append(token)
    if large:
        at = at[1:]
    else:
        # The beginning of text is the padding token, so it was counted and taken out too.
        ids, at = [1, *ids], at[2:]
    assert len(at) == len(STEPS)
    return m.layer(m.hidden(ids), "score_head").softmax(-1)[at]


def pure(m):
    ids, at = m.tok(QUESTION, add_special_tokens=False)["input_ids"], []
    for step in STEPS:
        ids = ids + m.tok(step, add_special_tokens=False)["input_ids"] + [m.tok.encode("\n\n")[0]]
        at.append(len(ids) - 1)
    p = m.classifier(ids, 2).softmax(-1)[at]
    return (p[:, 1] - p[:, 0]).tolist()


def trl(m, separator="\n\n"):
    """Training ids of TRL's tokenize_row: prompt, then each step and separator."""
    ids, at = m.tok(QUESTION, add_special_tokens=False)["input_ids"], []
    if m.tok.bos_token_id is not None:
        ids = [m.tok.bos_token_id, *ids]
    for step in STEPS:
        ids = ids + m.tok(step, add_special_tokens=False)["input_ids"]
        ids = ids + m.tok.encode(separator, add_special_tokens=False)
        at.append(len(ids) - 1)
    return m.classifier(ids, 2).softmax(-1)[at][:, 1].tolist()


def math_minos(m):
    text = f"Human: {QUESTION}\n\nAssistant:" + "".join(
        f"Step {i}: {s} и\n" for i, s in enumerate(STEPS, 1)
    )
    ids = m.tok.encode(text)
    logits = m.classifier(ids, 1).squeeze(-1)
    return torch.sigmoid(logits[torch.tensor(ids) == m.tok.encode("и")[-1]]).tolist()


def llemma(m):
    """PRMBench's reading: the first of the two line ends, mean over the vocabulary."""
    text = f"# Question\n\n{QUESTION}\n\n# Solution\n\n" + "".join(f"{s}\n\n" for s in STEPS)
    ids = m.tok.encode(text)
    heading = m.tok.encode("\n\n# Solution", add_special_tokens=False)[1:]
    blank = m.tok.encode("\n\n", add_special_tokens=False)[1:]
    at, seen = [], False
    for i in range(len(ids)):
        seen = seen or ids[i : i + len(heading)] == heading
        if seen and ids[i : i + len(blank)] == blank:
            at.append(i)
    # The blank line before the heading and the one after it are no steps.
    at = at[-len(STEPS) :]
    return torch.sigmoid(m.lm(ids).mean(-1)[at]).tolist()


def universal_prm(m, answer="There is no reference answer for this question."):
    scores = []
    for n in range(1, len(STEPS) + 1):
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {
                "role": "user",
                "content": f"{QUESTION}\n\n###\n\nThe reference answer is: {answer}",
            },
        ]
        ids = m.tok.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ids = ids + m.tok("\n\n".join(STEPS[:n]) + "\n\n")["input_ids"] + [m.tok.eos_token_id]
        scores.append(torch.sigmoid(m.layer(m.hidden(ids), "score")[-1, 0]).item())
    return scores


def versa_prm(m):
    """Each part tokenised on its own, as in training; class 1 of ("-", "+")."""
    minus, plus = (m.tok.encode(t, add_special_tokens=False)[-1] for t in ("-", "+"))
    tag = m.tok.encode(" \n\n\n\n", add_special_tokens=False)[-1]
    ids = m.tok.encode(f"{QUESTION} \n\n")
    for step in STEPS:
        ids += m.tok.encode(step, add_special_tokens=False)
        ids += m.tok.encode(" \n\n\n\n", add_special_tokens=False)
    return two(m.lm(ids), ids, plus, minus, tag)


def math_psa(m):
    text = f"{QUESTION} " + "".join(f"Step {i}: {s} \n\n\n\n\n " for i, s in enumerate(STEPS, 1))
    ids = m.tok.encode(text)
    plus, minus = (m.tok.encode(t)[-1] for t in (" +", " -"))
    return two(m.lm(ids), ids, plus, minus, m.tok.encode(" \n\n\n\n\n")[-1])


def er_prm(m):
    text = f"{QUESTION} " + "".join(f"Step {i}: {s} ки" for i, s in enumerate(STEPS, 1))
    ids = m.tok.encode(text)
    plus, minus = (m.tok.encode(t)[-1] for t in (" +", " -"))
    return two(m.lm(ids), ids, plus, minus, m.tok.encode(" ки")[-1])


def pqm(m):
    steps = " [PRM]\n".join(f"Step {i}: {s}" for i, s in enumerate(STEPS, 1)) + " [PRM]"
    ids = m.tok.encode(f"[INST] {QUESTION} [/INST]\n{steps}", add_special_tokens=False)
    tag = m.tok.encode("[PRM]", add_special_tokens=False)[-1]
    values = m.layer(m.hidden(ids), "v_head.summary").squeeze(-1)
    return values[torch.tensor(ids) == tag].tolist()


def med_prm(m):
    text = " ".join(f"Step {i}: {s} ки" for i, s in enumerate(STEPS, 1))
    system = (
        "You are an evaluator assessing the logicality and validity of the reasoning in each step "
        "of the given explanation. In order to support the evaluation, the question and the "
        "explanation are provided. If the reasoning contains errors, output - after that step. If "
        "the reasoning in a step is logical and valid, output + after that step."
    )
    chat = m.tok.apply_chat_template(
        [
            {"role": "system", "content": system},
            {"role": "user", "content": f"Question: {QUESTION}\n\nExplanation: {text}"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = m.tok(chat, add_special_tokens=True)["input_ids"]
    assert ids[:2] == [m.tok.bos_token_id] * 2
    plus, minus = (m.tok.encode(t)[-1] for t in (" +", " -"))
    return two(m.lm(ids), ids, plus, minus, m.tok.encode(" ки")[-1])


def granite(m):
    conversation, scores = [], []
    (yes,) = m.tok.encode("Y", add_special_tokens=False)
    for i, step in enumerate(STEPS):
        content = (
            f"{QUESTION} " if i == 0 else ""
        ) + f"{step} Is this response correct so far (Y/N)?"
        conversation.append({"role": "user", "content": content})
        ids = m.tok.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
        scores.append(m.lm(ids)[-1].softmax(-1)[yes].item())
        conversation.append({"role": "assistant", "content": "Y"})
    return scores


def act_prm(m):
    messages = [
        {
            "role": "system",
            "content": "Please reason step by step, and put your final answer within \\boxed{}.",
        },
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"},
    ]
    ids = m.tok.encode(m.tok.apply_chat_template(messages, tokenize=False))
    tensors, x = m.tensors, m.hidden(ids)
    heads = []
    for head in range(tensors["score.model.nn1.weight"].shape[0]):
        y = x
        for name in ("nn1", "nn2", "nn_out"):
            y = y if name == "nn1" else y.clamp(min=0)
            key = f"score.model.{name}"
            y = y @ tensors[f"{key}.weight"][head] + tensors[f"{key}.bias"][head]
        heads.append(torch.sigmoid(y.squeeze(-1)))
    return torch.stack(heads).mean(0)[torch.tensor(ids) == m.tok.encode("<extra_0>")[0]].tolist()


def outcome(m, read=torch.sigmoid, observed=()):
    """One pass per prefix, as if it were the whole answer; the last token of the chat counts."""
    scores = []
    for n in range(1, len(STEPS) + 1):
        messages = [{"role": "user", "content": QUESTION}]
        if observed:
            for step, reply in zip(STEPS[:n], observed, strict=False):
                messages.append({"role": "assistant", "content": step})
                messages.append({"role": "user", "content": reply})
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": "\n\n".join(STEPS[:n])})
        text = m.tok.apply_chat_template(messages, tokenize=False)
        ids = m.tok.encode(text, add_special_tokens=False)
        scores.append(read(m.layer(m.hidden(ids), "score")[-1, 0]).item())
    return scores


def test_med_prm_reads_documents_before_the_question(tiny, scorer_of):
    """As in the published scoring script: "Document 1: …", and a system message that says so."""
    tok = Plain(tiny("med_prm")).tok
    problem = Problem(id="q", prompt="Q?", meta={"documents": ["one", "two"]})
    ids = DISCRIMINATIVE["med_prm"].begin(problem, tok)
    text = tok.decode(ids)
    assert text.endswith("Document 1: one\n\nDocument 2: two\n\nQuestion: Q?\n\nExplanation:")
    assert "the relevant documents, the question, and the explanation are provided seq" in text
    with pytest.raises(InvalidRecord, match="expected a list of texts"):
        DISCRIMINATIVE["med_prm"].begin(Problem(id="q", prompt="", meta={"documents": "x"}), tok)


RECIPES = {
    "math_shepherd": math_shepherd,
    "rlhflow": rlhflow,
    "rlhflow_blank_line": lambda m: rlhflow(m, "\n\n"),
    "skywork": skywork,
    "qwen_prm": qwen_prm,
    "reasonflux": lambda m: qwen_prm(m, system=None),
    "reasoneval": lambda m: (reasoneval(m)[:, 1] + reasoneval(m)[:, 2]).tolist(),
    "reasoneval_redundancy": lambda m: (1 - reasoneval(m)[:, 1]).tolist(),
    "reasoneval_34b": lambda m: reasoneval(m, large=True)[:, 1:].sum(-1).tolist(),
    "reasoneval_34b_redundancy": lambda m: (1 - reasoneval(m, large=True)[:, 1]).tolist(),
    "pure": pure,
    "trl": trl,
    "trl_line": lambda m: trl(m, "\n"),
    "math_minos": math_minos,
    "llemma": llemma,
    "universal_prm": universal_prm,
    "universal_prm_reference": lambda m: universal_prm(m, "5"),
    "versa_prm": versa_prm,
    "math_psa": math_psa,
    "er_prm": er_prm,
    "pqm": pqm,
    "med_prm": med_prm,
    "granite": granite,
    "act_prm": act_prm,
    "outcome": lambda m: outcome(m, lambda x: x),
    "outcome_probability": outcome,
    "agent_prm": lambda m: outcome(m, observed=OBSERVATIONS),
}
OURS = {"step_end", "step_value", "turn_value", "turn_state", "step_rank", "step_classes"}
"""prmkit's own, compared in tests/scorers/test_discriminative.py and tests/training."""


def test_every_family_has_its_recipe_here():
    assert {*RECIPES, *OURS} == {*DISCRIMINATIVE}


@pytest.mark.parametrize("family", RECIPES)
def test_scores_are_those_of_the_published_recipe(family, tiny, scorer_of):
    trajectory = Trajectory(
        problem=Problem(id="q", prompt=QUESTION, answer="5"),
        steps=tuple(
            Step(text=step, observation=observation if family == "agent_prm" else None)
            for step, observation in zip(STEPS, OBSERVATIONS, strict=True)
        ),
        separator="\n",
    )
    (scored,) = scorer_of(family).score([trajectory])
    expected = RECIPES[family](Plain(tiny(family)))
    assert list(scored.values) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # Random weights tell the steps apart; equal numbers would prove nothing.
    assert max(expected) - min(expected) > 1e-3 * max(map(abs, expected))
