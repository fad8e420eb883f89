"""A scorer by its name; and what is said where that cannot be."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from prmkit.errors import CheckpointError, InvalidSetting, UnknownCheckpoint, UnknownName
from prmkit.records import Message, Problem, Step, Trajectory
from prmkit.scorers.calibration import CalibratedScorer, Platt, save
from prmkit.scorers.checkpoints import CHECKPOINTS, find
from prmkit.scorers.convert_model import fold, merge_adapter
from prmkit.scorers.families import DISCRIMINATIVE, GENERATIVE, IMPLICIT
from prmkit.scorers.families.heads import Linear, MeanRow, TokenRows
from prmkit.scorers.families.reading import first_of_two, second_of_two
from prmkit.scorers.loading import ModelSettings, load_scorer
from prmkit.testing import tiny_checkpoint
from prmkit.tiny_checkpoints import LAYOUTS

SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="How many?"),
    steps=(Step(text="So 3 + 4 = 7."), Step(text="The answer is 7.")),
)
CPU = ModelSettings(device="cpu")


def cpu(**settings):
    return ModelSettings(device="cpu", **settings)


def values(scorer):
    return scorer.score([SOLUTION])[0].values


def test_every_family_has_its_layout():
    assert {*LAYOUTS} == {*DISCRIMINATIVE, *IMPLICIT, *GENERATIVE}


def test_every_line_of_the_table_names_a_family():
    for known in CHECKPOINTS:
        assert known.family in {*DISCRIMINATIVE, *IMPLICIT, *GENERATIVE}, known.id
        assert known.reference is None or known.family in IMPLICIT
    assert len({known.id for known in CHECKPOINTS}) == len(CHECKPOINTS)
    # All twenty-two text rows of the fact sheet; the two multimodal ones come later.
    assert len({known.family for known in CHECKPOINTS}) >= 22


def test_each_fact_has_its_evidence():
    facts = {known.id: known.facts() for known in CHECKPOINTS}
    assert facts["Qwen/Qwen2.5-Math-PRM-7B"] == {
        "recipe": "card",
        "aggregation": "card",
        "ids": "golden",
    }
    assert facts["infly/Universal-PRM-7B"] == {
        "recipe": "card",
        "name of the head's layer": "unverified",
    }
    assert all(facts[known.id].get("ids") == "golden" for known in CHECKPOINTS if known.tokens)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-PRM-7B"),
        ("/models/Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-PRM-7B"),
        ("/hub/models--GAIR--ReasonEval-7B/snapshots/0123", "GAIR/ReasonEval-7B"),
        ("/models/Qwen2.5-Math-PRM-7B-mine", None),
        ("/models/axolotl-ai-co/Qwen2.5-Math-PRM-7B", "axolotl-ai-co/Qwen2.5-Math-PRM-7B"),
        ("/models/Windy0822/PQM/checkpoint-10", None),
        ("Windy0822_PQM", "Windy0822/PQM"),
        ("rl-llm-agent/Llama-3.2-3B-Instruct-sft", "rl-llm-agent/Llama-3.2-3B-Instruct-*"),
        ("nothing", None),
    ],
)
def test_folders_are_known_by_their_names(name, expected):
    found = find(name)
    assert (found and found.id) == expected


def test_a_folder_named_like_a_checkpoint_is_read_as_that(tmp_path):
    folder = tiny_checkpoint("math_shepherd", tmp_path / "math-shepherd-mistral-7b-prm")
    with pytest.raises(CheckpointError) as caught:
        load_scorer(folder, CPU)
    # The tiny tokenizer is not Mistral's: both ids are told.
    assert "gives ' ки' the id" in str(caught.value)
    assert "gives it 12902" in str(caught.value)
    named = load_scorer(folder, cpu(family="math_shepherd"))
    assert len(values(named)) == 2


def test_an_unknown_model_is_refused_with_the_way_on(tmp_path):
    folder = tiny_checkpoint("qwen_prm", tmp_path / "mine")
    with pytest.raises(UnknownCheckpoint, match=r"--family NAME.*prm models"):
        load_scorer(folder, CPU)
    near = tiny_checkpoint("qwen_prm", tmp_path / "Qwen2.5-Math-PRM-7b")
    with pytest.raises(UnknownCheckpoint):
        load_scorer(near, CPU)
    with pytest.raises(UnknownName, match="Did you mean 'qwen_prm'"):
        load_scorer(folder, cpu(family="qwen_prn"))


@pytest.mark.parametrize("name", DISCRIMINATIVE)
def test_every_family_loads_from_a_folder(name, tmp_path):
    folder = tiny_checkpoint(name, tmp_path / "mine")
    assert len(values(load_scorer(folder, cpu(family=name)))) == 2


def test_implicit_and_generative_families_load_too(tmp_path):
    one, two = (tiny_checkpoint("math_psa", tmp_path / str(s), seed=s) for s in (1, 2))
    found = load_scorer(one, cpu(family="log_ratio", reference=str(two)))
    assert found.semantics == "log_ratio"
    with pytest.raises(CheckpointError, match="--reference"):
        load_scorer(one, cpu(family="log_ratio"))
    judge = load_scorer(one, cpu(family="judge", samples=1))
    assert judge.name == "1, judge"


def test_layers_may_be_spread(tmp_path):
    """With one device there is nothing to spread over; the scores are the same."""
    folder = tiny_checkpoint("qwen_prm", tmp_path / "mine")
    spread = load_scorer(folder, ModelSettings(family="qwen_prm", device="auto"))
    if torch.cuda.is_available():
        pytest.skip("bfloat16 on a GPU: see tests/test_gpu.py")
    assert values(spread) == values(load_scorer(folder, cpu(family="qwen_prm")))


IMAGES = SOLUTION.model_copy(
    update={"problem": Problem(id="q", prompt="How many?", images=("a.png",))}
)


@pytest.mark.parametrize("name", ["qwen_prm", "likelihood", "judge"])
def test_images_are_never_left_out_silently(name, tmp_path):
    few = {"samples": 1, "critique_tokens": 4} if name == "judge" else {}
    scorer = load_scorer(tiny_checkpoint(name, tmp_path / "mine"), cpu(family=name, **few))
    refused, fine = scorer.score([IMAGES, SOLUTION])
    assert "the problem has 1 image(s), and this model reads text alone" in refused.reason
    assert len(fine.values) == 2


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("pure", {"reference": "x"}),
        ("likelihood", {"reference": "x"}),
        ("pure", {"samples": 2}),
        ("pure", {"critique_tokens": 2}),
        ("gen_prm", {"allow_code": True}),
        ("likelihood", {"on_separator": "error"}),
    ],
)
def test_settings_that_a_family_would_ignore_are_refused(family, setting, tmp_path):
    folder = tiny_checkpoint(family, tmp_path / "mine")
    with pytest.raises(InvalidSetting, match=f"means nothing to the family '{family}'"):
        load_scorer(folder, cpu(family=family, **setting))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"served_as": "x"}, "nothing without --server"),
        ({"device": "cpu", "server": "vllm=http://x"}, "nothing to a server"),
    ],
)
def test_settings_of_places_that_are_not_used_are_refused(settings, message, tmp_path):
    folder = tiny_checkpoint("pure", tmp_path / "mine")
    with pytest.raises(InvalidSetting, match=message):
        load_scorer(folder, ModelSettings(family="pure", **settings))


def test_a_calibration_is_of_one_family(tmp_path):
    folder = tiny_checkpoint("pure", tmp_path / "mine")
    save(folder, Platt(slope=1.0, intercept=0.0, odds=False, family="pure"))
    assert isinstance(load_scorer(folder, cpu(family="pure")), CalibratedScorer)
    with pytest.raises(CheckpointError, match="family 'pure', and the model is read as 'trl'"):
        load_scorer(folder, cpu(family="trl"))


def test_a_template_that_refuses_a_conversation_leaves_it_unscored(tmp_path):
    """Gemma's and others' templates raise on a system message."""
    folder = tiny_checkpoint("likelihood", tmp_path / "mine")
    template = folder / "chat_template.jinja"
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    template.write_text(refusing + template.read_text())
    strange = SOLUTION.model_copy(
        update={"problem": Problem(id="s", messages=(Message(role="system", content="x"),))}
    )
    refused, fine = load_scorer(folder, cpu(family="likelihood")).score([strange, SOLUTION])
    assert "no system" in refused.reason
    assert len(fine.values) == 2


def test_a_missing_tag_is_told_at_load(tmp_path):
    folder = tiny_checkpoint("qwen_prm", tmp_path / "mine")
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<extra_0>", "<extra_1>"))
    with pytest.raises(CheckpointError, match=r"'<extra_0>' must be one token"):
        load_scorer(folder, cpu(family="qwen_prm"))


def test_a_calibration_beside_the_model_is_used(tmp_path):
    folder = tiny_checkpoint("qwen_prm", tmp_path / "mine")
    plain = values(load_scorer(folder, cpu(family="qwen_prm")))
    save(folder, Platt(slope=0.0, intercept=0.0, odds=True))
    found = load_scorer(folder, cpu(family="qwen_prm"))
    assert isinstance(found, CalibratedScorer)
    assert values(found) == (0.5, 0.5)
    assert values(load_scorer(folder, cpu(family="qwen_prm", uncalibrated=True))) == plain


LINEAR = [n for n, f in DISCRIMINATIVE.items() if isinstance(f.head, TokenRows | MeanRow | Linear)]


@pytest.mark.parametrize("name", LINEAR)
def test_a_folded_head_gives_the_same_scores(name, tmp_path):
    folder = tiny_checkpoint(name, tmp_path / "whole")
    fold(folder, tmp_path / "folded", DISCRIMINATIVE[name])
    again = load_scorer(tmp_path / "folded", CPU)
    assert values(again) == pytest.approx(
        values(load_scorer(folder, cpu(family=name))), rel=1e-5, abs=1e-6
    )
    # A stock class of transformers reads it: nothing is missing, nothing is left over.
    from transformers import AutoModelForTokenClassification

    _, info = AutoModelForTokenClassification.from_pretrained(
        tmp_path / "folded", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


TWO = [n for n in LINEAR if DISCRIMINATIVE[n].read in (first_of_two, second_of_two)]


@pytest.mark.parametrize("name", TWO)
def test_two_numbers_become_one(name, tmp_path):
    folder = tiny_checkpoint(name, tmp_path / "whole")
    fold(folder, tmp_path / "scalar", DISCRIMINATIVE[name], "scalar")
    assert values(load_scorer(tmp_path / "scalar", CPU)) == pytest.approx(
        values(load_scorer(folder, cpu(family=name))), rel=1e-5, abs=1e-6
    )
    from safetensors.torch import load_file

    assert load_file(tmp_path / "scalar" / "model.safetensors")["score.weight"].shape == (1, 32)


def test_what_is_no_share_of_two_becomes_no_scalar(tmp_path):
    assert len(TWO) >= 10
    folder = tiny_checkpoint("pure", tmp_path / "whole")
    with pytest.raises(CheckpointError, match="no softmax share of one of two"):
        fold(folder, tmp_path / "scalar", DISCRIMINATIVE["pure"], "scalar")


@pytest.mark.parametrize("name", sorted({*DISCRIMINATIVE} - {*LINEAR}))
def test_other_heads_cannot_be_folded(name, tmp_path):
    folder = tiny_checkpoint(name, tmp_path / "whole")
    with pytest.raises(CheckpointError, match="no single linear layer"):
        fold(folder, tmp_path / "folded", DISCRIMINATIVE[name])
    assert not (tmp_path / "folded").exists()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_merged_with_its_base(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny_checkpoint("math_psa", tmp_path / "base")
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="is an adapter"):
        load_scorer(tmp_path / "adapter", cpu(family="math_psa"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    ids = torch.tensor([[5, 6, 7, 8]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        assert torch.allclose(merged.eval()(input_ids=ids).logits, expected, atol=1e-4)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        assert not torch.allclose(plain(input_ids=ids).logits, expected, atol=1e-2)
    assert len(values(load_scorer(tmp_path / "merged", cpu(family="math_psa")))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shutil.rmtree(d), "is not a folder"),
        (lambda d: (d / "tokenizer.json").unlink(), "no tokenizer.json"),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:500]
            ),
            "cannot be loaded|is damaged",
        ),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:-2000]
            ),
            "cannot be loaded|is damaged",
        ),
        (
            lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
            "is a pickle, which can run code",
        ),
        (
            lambda d: (d / "config.json").write_text(
                json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "m.M"}})
            ),
            "prmkit never runs a model's own code",
        ),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
            ),
            "the download is not complete|cannot be loaded",
        ),
    ],
)
@pytest.mark.parametrize("family", ["qwen_prm", "math_shepherd"])
def test_bad_folders_each_have_their_own_words(family, change, message, tmp_path):
    folder = tiny_checkpoint(family, tmp_path / "mine")
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        load_scorer(folder, cpu(family=family))


@pytest.mark.parametrize(
    ("of", "read_as", "message"),
    [
        ("math_shepherd", "qwen_prm", "no head of this family: expected score.0.weight"),
        ("qwen_prm", "pure", r"expected score.weight|no head of this family"),
        ("qwen_prm", "math_shepherd", "no head of this family: expected lm_head.weight|one token"),
        ("trl", "math_minos", "one token|gives 2 numbers"),
    ],
)
def test_a_model_of_another_family_is_not_scored(of, read_as, message, tmp_path):
    folder = tiny_checkpoint(of, tmp_path / "mine")
    with pytest.raises(CheckpointError, match=message):
        load_scorer(folder, cpu(family=read_as)).score([SOLUTION])
