"""Implicit families against sums of log-probabilities written plainly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prmkit.errors import CheckpointError
from prmkit.records import Problem, Step, Trajectory, Unscored
from prmkit.scorers.families import IMPLICIT
from prmkit.scorers.families.log_ratio import lowest_chunk
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.testing import SCORER_LAWS, tiny_checkpoint, ugly_trajectories

QUESTION = "How many apples are there?"
STEPS = ["So 3 + 4 = 7 apples, and that is so.", "The answer is 7", ""]
SOLUTION = Trajectory(
    problem=Problem(id="q", prompt=QUESTION), steps=tuple(Step(text=s) for s in STEPS)
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two language models with one tokenizer (a family with rows of the output matrix has one)."""
    return [
        tiny_checkpoint("math_psa", tmp_path_factory.mktemp(f"lm{seed}"), seed=seed)
        for seed in (1, 2)
    ]


def plain_log_probs(folder, ids):
    """log p of every token after the first, by the stock class."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return [logits[i - 1].log_softmax(-1)[ids[i]].item() for i in range(1, len(ids))]


def pieces(folder, steps, joint):
    """The chat up to the answer, then each step's ids."""
    tok = AutoTokenizer.from_pretrained(folder)
    ids = tok.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
    )
    return ids, [tok.encode(joint(i) + text) for i, text in enumerate(steps)]


def sums(folder, begin, steps):
    ids = begin + [token for step in steps for token in step]
    flat = plain_log_probs(folder, ids)
    found, at = [], len(begin)
    for step in steps:
        found.append(flat[at - 1 : at - 1 + len(step)])
        at += len(step)
    return found


@pytest.fixture(scope="module")
def implicit_steps(models):
    """The published ids: one chat, tokenised as a whole; ends found by tokenising each prefix.

    The template of these models closes a turn with "<|im_end|>" and a line end, so that the last
    token of the content is the third from behind. The blank line behind the last step stands for
    the next one.
    """
    tok = AutoTokenizer.from_pretrained(models[0])

    def chat(n, behind=""):
        text = "\n\n".join(f"Step {i}: {s}" for i, s in enumerate(STEPS[:n], 1)) + behind
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        return tok.apply_chat_template(messages, return_dict=False)

    ids = chat(len(STEPS), "\n\n")[:-2]
    ends = [len(chat(n)) - 2 for n in range(1, len(STEPS) + 1)]
    begin = len(
        tok.apply_chat_template(
            [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
        )
    )
    # At least one stop has merged with its blank line.
    assert chat(1)[: ends[0]] != ids[: ends[0]]
    return [
        [plain_log_probs(folder, ids)[a - 1 : b - 1] for a, b in pairwise([begin, *ends])]
        for folder in models
    ]


def test_implicit_prm_is_beta_times_the_log_ratio(models, implicit_steps):
    ours, theirs = implicit_steps
    expected = [0.001 * (sum(p) - sum(q)) for p, q in zip(ours, theirs, strict=True)]
    (found,) = ImplicitScorer(*models, family=IMPLICIT["implicit_prm"], device="cpu").score(
        [SOLUTION]
    )
    assert found.values == pytest.approx(expected, abs=1e-7)
    (whole,) = ImplicitScorer(
        *models, family=IMPLICIT["implicit_prm_cumulated"], device="cpu"
    ).score([SOLUTION])
    assert whole.values == pytest.approx(
        [sum(expected[: i + 1]) for i in range(len(expected))], abs=1e-7
    )
    (tokens,) = ImplicitScorer(*models, family=IMPLICIT["implicit_prm"], device="cpu").token_ratios(
        [SOLUTION]
    )
    assert [len(of_step) for of_step in tokens] == [len(p) for p in ours]
    assert tokens[0][2] == pytest.approx(ours[0][2] - theirs[0][2], abs=1e-4)


def line_steps(models):
    tok = AutoTokenizer.from_pretrained(models[0])
    begin, texts = pieces(models[0], STEPS, lambda i: "")
    return [sums(folder, begin, [ids + tok.encode("\n") for ids in texts]) for folder in models]


def chunks(values, size=16):
    return min(
        sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)
    )


def test_contrast_and_likelihood_read_the_lowest_chunk(models):
    ours, theirs = line_steps(models)
    ratios = [[a - b for a, b in zip(p, q, strict=True)] for p, q in zip(ours, theirs, strict=True)]
    (found,) = ImplicitScorer(*models, family=IMPLICIT["contrast"], device="cpu").score([SOLUTION])
    assert found.values == pytest.approx([chunks(r) for r in ratios], abs=1e-4)
    assert len(ratios[0]) > 16
    (alone,) = ImplicitScorer(models[0], family=IMPLICIT["likelihood"], device="cpu").score(
        [SOLUTION]
    )
    assert alone.values == pytest.approx([chunks(p) for p in ours], abs=1e-4)


def test_lowest_chunk_by_hand():
    assert lowest_chunk([1.0, 3.0, -2.0, 4.0, 9.0], size=2) == 1.0
    assert lowest_chunk([5.0], size=2) == 5.0
    assert lowest_chunk([], size=2) == 0.0


def test_what_is_missing_is_named(models, tmp_path):
    with pytest.raises(CheckpointError, match="--reference"):
        ImplicitScorer(models[0], device="cpu")
    other = tiny_checkpoint("rlhflow", tmp_path / "other")
    with pytest.raises(CheckpointError, match="different tokenizers"):
        ImplicitScorer(models[0], other, device="cpu")


def test_too_long_is_unscored(models):
    scorer = ImplicitScorer(*models, device="cpu")
    long = SOLUTION.model_copy(update={"steps": (Step(text=" 1" * 5000),)})
    found = scorer.score([SOLUTION, long])
    assert isinstance(found[1], Unscored)
    assert "reads at most 4096" in found[1].reason


@pytest.mark.parametrize("law", SCORER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", IMPLICIT)
def test_laws(name, law, models):
    which = list(IMPLICIT).index(name) % 3
    law(ImplicitScorer(*models, family=IMPLICIT[name], device="cpu"), ugly_trajectories()[which::3])
