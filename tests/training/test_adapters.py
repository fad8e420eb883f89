"""Low-rank adapters: few weights learn, and end up in the others."""

from __future__ import annotations

import pytest
import torch
from test_training import EIGHT, coloured_records, settings_for

from prmkit.checkpoints import load_tokenizer, start_token_classifier
from prmkit.errors import InvalidSetting
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families.step_end import STEP_END_FAMILY
from prmkit.training import states
from prmkit.training.adapters import AdapterSettings, adapted, merged
from prmkit.training.checkpoints import checkpoints
from prmkit.training.kinds import objective
from prmkit.training.loop import part_numbers, trainable
from prmkit.training.parts import make_part
from prmkit.training.targets import make_examples
from prmkit.training.trainer import train

FOUR = AdapterSettings(lora_rank=4)


def test_an_adapted_model_learns_and_is_merged(tiny_lm, tmp_path):
    settings = settings_for(tiny_lm, tmp_path / "prm", learning_rate=1e-2)
    result = train(coloured_records(160, 1), settings, batches=EIGHT, adapters=FOUR)
    assert result.losses[-1][1] < 0.2 < result.losses[0][1]
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    unseen = coloured_records(40, 2)
    for r, scored in zip(unseen, scorer.score([r.trajectory for r in unseen]), strict=True):
        assert [value > 0.5 for value in scored.values] == [v == 1 for v in r.labels.values]
    # In the layout of the base, with its embeddings as they were.
    plain = start_token_classifier(tmp_path / "prm", 2)
    base = start_token_classifier(tiny_lm, 2)
    assert plain.state_dict().keys() == base.state_dict().keys()
    there, were = plain.state_dict(), base.state_dict()
    assert torch.equal(there["model.embed_tokens.weight"], were["model.embed_tokens.weight"])
    moved = "model.layers.0.self_attn.q_proj.weight"
    difference = there[moved] - were[moved]
    assert 1 <= torch.linalg.matrix_rank(difference, atol=1e-5) <= 4


def test_a_merged_model_reads_what_the_adapted_one_did(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    examples, _ = make_examples(coloured_records(6, 1), STEP_END_FAMILY, tokenizer, None)
    aim = objective("step", STEP_END_FAMILY, tokenizer)
    torch.manual_seed(0)
    model = adapted(start_token_classifier(tiny_lm, 2), FOUR)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora" not in n} == {"score.weight", "score.bias"}
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    part = make_part(examples, True)
    with torch.no_grad():
        before = part_numbers(trainable(model, aim), part, aim)
        # As a checkpoint, into a fresh model.
        after = part_numbers(merged(model), part, aim)
    assert (before - after).abs().max() < 1e-5
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_killed_run_with_adapters_resumes_to_the_same_weights(tiny_lm, tmp_path):
    records = coloured_records(64, 3)
    how = {"epochs": 1, "save_every": 2}
    train(records, settings_for(tiny_lm, tmp_path / "a", **how), batches=EIGHT, adapters=FOUR)
    killed = settings_for(tiny_lm, tmp_path / "b", **how)

    def killer(done, total, logs):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(records, killed, batches=EIGHT, adapters=FOUR, on_progress=killer)
    (_, last) = checkpoints(tmp_path / "b.checkpoints")
    weights = torch.load(last / states.WEIGHTS, weights_only=True)
    # What is frozen is in the base.
    assert all("lora" in name or name.startswith("score") for name in weights)
    train(records, killed, batches=EIGHT, adapters=FOUR)
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert one == two


def test_layers_are_named_and_settings_go_together(tiny_lm):
    model = start_token_classifier(tiny_lm, 2)
    with pytest.raises(InvalidSetting, match=r"query; the linear layers .* are .*q_proj"):
        adapted(model, AdapterSettings(lora_rank=2, lora_targets=("query",)))
    model = adapted(
        start_token_classifier(tiny_lm, 2), AdapterSettings(lora_rank=2, lora_targets=("q_proj",))
    )
    assert all(
        "q_proj" in n or n.startswith("score") for n, p in model.named_parameters()
        if p.requires_grad
    )  # fmt: skip
    with pytest.raises(InvalidSetting, match="without lora_rank"):
        AdapterSettings(lora_alpha=8)
    with pytest.raises(InvalidSetting, match="lora_rank is -1"):
        AdapterSettings(lora_rank=-1)
