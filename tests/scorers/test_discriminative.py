"""One pass for all steps, against one pass per step and a plain reading of the recipe."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification

from prmkit.checkpoints import load_tokenizer
from prmkit.errors import CheckpointError, UnknownName
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families.step_end import STEP_END_FAMILY

QUESTION = Problem(id="q", prompt="Mia has 12 apples. Mia finds 5 more. How many now?")
STEPS = ("Now Mia has 12 + 5 = 17 apples.\n", "So\n\nthat is it", "", "The answer is 17.\n")
TRAJECTORY = Trajectory(problem=QUESTION, steps=tuple(Step(text=t) for t in STEPS))


render, read = STEP_END_FAMILY.render, STEP_END_FAMILY.read


@pytest.fixture(scope="module")
def scorer(tiny_prm):
    return DiscriminativeScorer(tiny_prm, device="cpu")


def one_pass_per_step(path, question, steps):
    """The recipe in plain words: template, steps, line ends; read the last token of each prefix."""
    tokenizer = load_tokenizer(path)
    model = AutoModelForTokenClassification.from_pretrained(path, dtype=torch.float32).eval()
    scores = []
    for n in range(1, len(steps) + 1):
        text = "<|problem|>" + question + "<|solution|>"
        ids = tokenizer(text)["input_ids"]
        for step in steps[:n]:
            ids = ids + tokenizer(step.strip("\n"))["input_ids"] + tokenizer("\n")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        scores.append(torch.softmax(logits, -1)[1].item())
    return scores


def test_one_pass_equals_one_pass_per_step(tiny_prm, scorer):
    (scored,) = scorer.score([TRAJECTORY])
    expected = one_pass_per_step(tiny_prm, QUESTION.text, STEPS)
    assert scored.values == pytest.approx(expected, abs=1e-5)
    # The random head tells the steps apart; equal numbers would prove nothing.
    assert max(scored.values) - min(scored.values) > 0.01


def test_positions_by_hand(tiny_prm):
    """<|problem|> q <|solution|>, then "a" and its line end, then "b c" and its line end."""
    tokenizer = load_tokenizer(tiny_prm)
    trajectory = Trajectory(
        problem=Problem(id="x", prompt="Mia has"), steps=(Step(text="Mia"), Step(text="Mia has\n"))
    )
    rendered = render(trajectory, tokenizer)
    assert tokenizer.convert_ids_to_tokens(rendered.ids) == [
        "<|problem|>", "Mia", "Ġhas", "<|solution|>", "Mia", "Ċ", "Mia", "Ġhas", "Ċ",
    ]  # fmt: skip
    assert rendered.positions == [5, 8]
    assert rendered.starts == [4, 6]


SEPARATORS = st.sampled_from(
    ["\n", "\n\n", "<|end|>", "<|solution|>", "<|problem|>", "<|pad|>", "ки", "<extra_0>", "\r\n"]
)
ANY_TEXT = st.lists(st.one_of(SEPARATORS, st.text(max_size=6)), max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(question=ANY_TEXT, texts=st.lists(ANY_TEXT, max_size=4))
def test_no_text_moves_a_position(tiny_prm, question, texts):
    """Each position is the line end that closes its step, whatever the texts hold."""
    tokenizer = load_tokenizer_once(tiny_prm)
    trajectory = Trajectory(
        problem=Problem(id="x", prompt=question), steps=tuple(Step(text=t) for t in texts)
    )
    ids, positions, starts, *_ = render(trajectory, tokenizer)
    markup = [i for i in ids if i in tokenizer.all_special_ids]
    assert tokenizer.convert_ids_to_tokens(markup) == ["<|problem|>", "<|solution|>"]
    assert len(positions) == len(texts)
    at = 2 + len(tokenizer(question, split_special_tokens=True)["input_ids"])
    for text, start, position in zip(texts, starts, positions, strict=True):
        assert start == at
        assert tokenizer.decode(ids[start:position]) == text.strip("\n")
        assert tokenizer.decode([ids[position]]) == "\n"
        at = position + 1
    assert at == len(ids)


_TOKENIZERS: dict[str, object] = {}


def load_tokenizer_once(path):
    return _TOKENIZERS.setdefault(str(path), load_tokenizer(path))


@settings(max_examples=25, deadline=None)
@given(question=ANY_TEXT, texts=st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_scores_equal_one_pass_per_step_for_any_text(tiny_prm, scorer, question, texts):
    trajectory = Trajectory(
        problem=Problem(id="x", prompt=question), steps=tuple(Step(text=t) for t in texts)
    )
    (whole,) = scorer.score([trajectory])
    for n in range(1, len(texts) + 1):
        (part,) = scorer.score([trajectory.prefix(n)])
        assert part.values[-1] == pytest.approx(whole.values[n - 1], abs=1e-5)


def test_observations_are_read_but_not_scored(scorer):
    def score(observation):
        steps = (Step(text="look", observation=observation), Step(text="take"))
        return scorer.score([Trajectory(problem=QUESTION, steps=steps)])[0].values

    bare, seen = score(None), score("You see 5 apples.")
    assert len(bare) == len(seen) == 2
    assert bare[0] == pytest.approx(seen[0], abs=1e-6)
    assert abs(bare[1] - seen[1]) > 1e-4


def test_too_long_is_unscored_and_neighbours_are_not_touched(scorer):
    long = Trajectory(problem=QUESTION, steps=(Step(text=" 1" * 2000),))
    results = scorer.score([TRAJECTORY, long, TRAJECTORY])
    assert isinstance(results[1], Unscored)
    assert "at most 1024" in results[1].reason
    (alone,) = scorer.score([TRAJECTORY])
    assert results[0].values == pytest.approx(alone.values, abs=1e-6)
    assert results[2].values == pytest.approx(alone.values, abs=1e-6)


def test_no_step_gives_no_score(scorer):
    assert scorer.score([Trajectory(problem=QUESTION)]) == [
        StepScores(values=(), semantics="correctness", model="tiny_prm")
    ]


def test_read_is_a_softmax_without_overflow():
    assert read([[0.0, 0.0], [1.0, 3.0]]) == pytest.approx([0.5, 1 / (1 + math.exp(-2))])
    # A logit gap at which a softmax in half precision gives exactly 0: still one score per step.
    assert read([[0.0, -2000.0], [0.0, 2000.0]]) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda d: shutil.rmtree(d), CheckpointError, "not a folder"),
        (lambda d: (d / "config.json").unlink(), CheckpointError, "no config.json"),
        (lambda d: (d / "model.safetensors").unlink(), CheckpointError, r"no \*.safetensors"),
        (
            lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
            CheckpointError,
            "is a pickle",
        ),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:1000]
            ),
            CheckpointError,
            "is damaged",
        ),
        (lambda d: (d / "tokenizer.json").unlink(), CheckpointError, "no tokenizer.json"),
        (lambda d: (d / "prmkit.json").unlink(), CheckpointError, "no prmkit.json"),
        (
            lambda d: (d / "prmkit.json").write_text('{"family": "step_edn"}'),
            UnknownName,
            "Did you mean 'step_end'",
        ),
        (
            lambda d: (d / "config.json").write_text(
                json.dumps(
                    {
                        **json.loads((d / "config.json").read_text()),
                        "auto_map": {"A": "b"},
                        "model_type": "my_own",
                    }
                )
            ),
            CheckpointError,
            "never runs",
        ),
    ],
)
def test_bad_folders_are_named(tiny_prm, tmp_path, spoil, error, message):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_prm, folder)
    spoil(folder)
    with pytest.raises(error, match=message):
        DiscriminativeScorer(folder, device="cpu")


def test_a_language_model_is_not_a_prm(tiny_lm):
    from prmkit.scorers.families import discriminative

    with pytest.raises(CheckpointError, match=r"no head of this family: expected score\.weight"):
        DiscriminativeScorer(tiny_lm, family=discriminative("step_end"), device="cpu")
