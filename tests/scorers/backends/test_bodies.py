"""Decoders and their logits as transformers itself has them; what does not fit is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from prmkit.errors import CheckpointError
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.convenience import score_reasoning_steps
from prmkit.scorers.convert_model import fold
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, IMPLICIT
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.testing import tiny_checkpoint

SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="How many?"),
    steps=(Step(text="So 3 + 4 = 7."), Step(text="The answer is 7.")),
)


def changed(folder, **entries):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    return folder


def of_type(folder, model_type, **settings):
    """Another architecture with random weights beside the tokenizer of a tiny checkpoint."""
    tiny_checkpoint("math_psa", folder)
    from prmkit.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder


SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("granite", {"logits_scaling": 16.0}),
        ("cohere", {"logit_scale": 0.5}),
        ("gemma3_text", {"final_logit_softcapping": 2.0, "head_dim": 16}),
        ("phi", {"tie_word_embeddings": False}),
        ("mistral", {"sliding_window": 8}),
    ],
)
def test_log_probabilities_are_those_of_the_models_own_logits(model_type, settings, tmp_path):
    folder = of_type(tmp_path / "model", model_type, **SIZES, **settings)
    scorer = ImplicitScorer(folder, family=IMPLICIT["likelihood"], device="cpu")
    (ratios,) = scorer.token_ratios([SOLUTION])
    rendered = scorer.family.render(SOLUTION, scorer._model.tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rendered.ids])).logits[0].log_softmax(-1)
    expected = [
        logits[i - 1, rendered.ids[i]].item() for i in range(rendered.begin, len(rendered.ids))
    ]
    assert [x for of_step in ratios for x in of_step] == pytest.approx(expected, abs=1e-4)


def test_granites_scaling_reaches_its_scores(tmp_path):
    folder = tiny_checkpoint("granite", tmp_path / "model")
    family = DISCRIMINATIVE["granite"]
    before = DiscriminativeScorer(folder, family=family, device="cpu").score([SOLUTION])[0].values
    scorer = DiscriminativeScorer(changed(folder, logits_scaling=16.0), family=family, device="cpu")
    (scored,) = scorer.score([SOLUTION])
    rendered = family.render(SOLUTION, scorer._backend.tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    (yes,) = scorer._backend.tokenizer.encode("Y", add_special_tokens=False)
    with torch.no_grad():
        shares = model(input_ids=torch.tensor([rendered.ids])).logits[0].softmax(-1)[:, yes]
    assert list(scored.values) == pytest.approx(shares[rendered.positions].tolist(), abs=1e-6)
    assert scored.values != pytest.approx(before, rel=0.1)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}),
        ("gemma2", {**SIZES, "head_dim": 16, "attn_logit_softcapping": 5.0}),
    ],
)
def test_architectures_that_do_not_fit_are_refused_at_load(model_type, settings, tmp_path):
    folder = of_type(tmp_path / "model", model_type, **settings)
    with pytest.raises(CheckpointError, match="cannot be run on packed sequences"):
        ImplicitScorer(folder, family=IMPLICIT["likelihood"], device="cpu")


def test_positions_that_depend_on_the_batch_are_refused(tmp_path):
    folder = tiny_checkpoint("math_psa", tmp_path / "model")
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0,
        "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    changed(folder, rope_parameters=rope)
    with pytest.raises(CheckpointError, match="longrope"):
        ImplicitScorer(folder, family=IMPLICIT["likelihood"], device="cpu")


def test_embeddings_are_no_head_unless_they_are_tied(tmp_path):
    folder = tiny_checkpoint("rlhflow", tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    family = DISCRIMINATIVE["rlhflow"]
    with pytest.raises(CheckpointError, match="expected lm_head.weight, found"):
        DiscriminativeScorer(folder, family=family, device="cpu")
    changed(folder, tie_word_embeddings=True)
    scorer = DiscriminativeScorer(folder, family=family, device="cpu")
    assert len(scorer.score([SOLUTION])[0].values) == 2


@pytest.mark.parametrize("layout", ["token_classifier", "scalar"])
def test_a_folded_folder_is_read_so_however_it_is_opened(layout, tmp_path):
    folder = tiny_checkpoint("math_shepherd", tmp_path / "model")
    family = DISCRIMINATIVE["math_shepherd"]
    fold(folder, tmp_path / "folded", family, layout)
    expected = DiscriminativeScorer(folder, family=family, device="cpu").score([SOLUTION])[0].values
    direct = DiscriminativeScorer(tmp_path / "folded", device="cpu")
    assert direct.score([SOLUTION])[0].values == pytest.approx(expected, abs=1e-6)
    steps = [step.text for step in SOLUTION.steps]
    found = score_reasoning_steps(tmp_path / "folded", "How many?", steps)
    assert found.scores == pytest.approx(expected, abs=1e-5)


def test_a_head_keeps_its_digits_when_folded(tmp_path):
    """The body may be bfloat16; a head that was more precise stays so."""
    folder = tiny_checkpoint("skywork", tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    half = {k: v if "v_head" in k else v.bfloat16() for k, v in tensors.items()}
    save_file(half, file, metadata={"format": "pt"})
    fold(folder, tmp_path / "folded", DISCRIMINATIVE["skywork"])
    folded = load_file(tmp_path / "folded" / "model.safetensors")
    assert torch.equal(folded["score.weight"], tensors["v_head.summary.weight"])
    assert folded["model.embed_tokens.weight"].dtype == torch.bfloat16
