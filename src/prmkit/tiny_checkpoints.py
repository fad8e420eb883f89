"""Tiny random checkpoints in the published layout of every family, for tests without downloads.

The weights are random and the vocabulary small; class names, tensor names, special tokens, chat
templates and the behaviour of the tokenizer are those of the published checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prmkit.errors import UnknownName
from prmkit.files import write_json
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.scorers.families.heads import (
    Head,
    Linear,
    MeanRow,
    TokenRows,
    TokenShare,
    TwoLayers,
)
from prmkit.settings import at_least
from prmkit.tiny_tokenizers import TOKENIZERS

if TYPE_CHECKING:
    import torch

HEADS, CONTEXT, ENSEMBLE = 4, 4096, 3


@dataclass(frozen=True)
class Layout:
    """What a published checkpoint looks like on disk.

    Attributes:
        model_type: the decoder.
        architecture: the class that config.json names.
        tokenizer: which kind, a key of `TOKENIZERS`.
        config: more entries of config.json.
        words: texts that are one token each.
        added: texts that are added to the vocabulary as tokens, not as special ones.
        bias: whether its linear head has a bias.
    """

    model_type: Literal["llama", "mistral", "qwen2", "granite"]
    architecture: str
    tokenizer: str
    config: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    bias: bool = True


def _remote(kind: str) -> dict[str, Any]:
    """An entry that asks for code of the folder's own, which is never run."""
    return {"auto_map": {"AutoModel": f"modeling_{kind}.RewardModel"}}


LAYOUTS: dict[str, Layout] = {
    "step_end": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "step_value": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "turn_value": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "turn_state": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "step_rank": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "step_classes": Layout("llama", "LlamaForTokenClassification", "chatml"),
    "math_shepherd": Layout("mistral", "MistralForCausalLM", "sentencepiece"),
    "rlhflow": Layout("llama", "LlamaForCausalLM", "llama3"),
    "rlhflow_blank_line": Layout("llama", "LlamaForCausalLM", "llama3"),
    "skywork": Layout("qwen2", "Qwen2ForCausalLM", "qwen_bos"),
    "qwen_prm": Layout("qwen2", "Qwen2ForProcessRewardModel", "chatml", _remote("qwen2_rm")),
    "reasonflux": Layout("qwen2", "Qwen2ForProcessRewardModel", "chatml", _remote("qwen2_rm")),
    "reasoneval": Layout("mistral", "ReasonEval_7B", "sentencepiece", {"score_dimension": 3}),
    "reasoneval_redundancy": Layout(
        "mistral", "ReasonEval_7B", "sentencepiece", {"score_dimension": 3}
    ),
    "reasoneval_34b": Layout("llama", "ReasonEval_34B", "sentencepiece", {"score_dim": 3}),
    "reasoneval_34b_redundancy": Layout(
        "llama", "ReasonEval_34B", "sentencepiece", {"score_dim": 3}
    ),
    "pure": Layout("qwen2", "Qwen2ForTokenClassification", "chatml"),
    "trl": Layout("qwen2", "Qwen2ForTokenClassification", "chatml"),
    "trl_line": Layout("qwen2", "Qwen2ForTokenClassification", "chatml"),
    "math_minos": Layout("mistral", "MistralForTokenClassification", "sentencepiece"),
    "llemma": Layout("llama", "LlamaForCausalLM", "sentencepiece"),
    "universal_prm": Layout("qwen2", "UniversalPRM", "chatml", _remote("universal_prm")),
    "universal_prm_reference": Layout("qwen2", "UniversalPRM", "chatml", _remote("universal_prm")),
    "versa_prm": Layout("llama", "LlamaForCausalLM", "llama3"),
    "math_psa": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "er_prm": Layout("llama", "LlamaForCausalLM", "llama3"),
    "pqm": Layout("llama", "LlamaForCausalLM", "qwen_bos", added=("[PRM]",)),
    "med_prm": Layout("llama", "LlamaForCausalLM", "llama3_plain", added=(" ки",)),
    "granite": Layout("granite", "GraniteForCausalLM", "granite"),
    "act_prm": Layout("qwen2", "Qwen2ForEnsemblePRM", "chatml", {"rr_token": "<extra_0>"}),
    "outcome": Layout("qwen2", "Qwen2ForSequenceClassification", "chatml", bias=False),
    "outcome_probability": Layout("llama", "LlamaForSequenceClassification", "llama3", bias=False),
    "agent_prm": Layout("llama", "LlamaForSequenceClassification", "llama3", bias=False),
    "log_ratio": Layout("llama", "LlamaForCausalLM", "chatml"),
    "implicit_prm": Layout("llama", "LlamaForCausalLM", "llama3"),
    "implicit_prm_cumulated": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "contrast": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "likelihood": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "judge": Layout("llama", "LlamaForCausalLM", "llama3"),
    "think_prm": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "r_prm": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "gen_prm": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
    "gen_prm_code": Layout("qwen2", "Qwen2ForCausalLM", "chatml"),
}
"""Every family with its published layout."""


def tiny_checkpoint(
    family: str, directory: Path | str, seed: int = 0, *, hidden: int = 32, layers: int = 2
) -> Path:
    """Write a tiny random checkpoint of a family; the same for the same seed.

    Args:
        family: a name of `prm models --families`.
        directory: where; made where absent.
        seed: of the weights.
        hidden: numbers of a hidden state, a multiple of 8. vLLM's kernels need 128 or more.
        layers: of the decoder.

    Raises:
        InvalidSetting: if a size is too small.
        UnknownName: if there is no such family.
    """
    import torch
    from safetensors.torch import save_file

    if family not in LAYOUTS:
        raise UnknownName("family of reward models", family, LAYOUTS)
    at_least(8, hidden=hidden)
    at_least(1, layers=layers)
    layout, folder = LAYOUTS[family], Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = TOKENIZERS[layout.tokenizer](layout.words, layout.added)
    tokenizer.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    config = _config(layout, tokenizer, hidden, layers)
    tensors = _body(config, generator)
    head = DISCRIMINATIVE[family].head if family in DISCRIMINATIVE else TokenRows(())
    tensors |= _head(head, layout, config, generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = {**json.loads(config.to_json_string()), **layout.config}
    write_json(folder / "config.json", {**described, "architectures": [layout.architecture]})
    return folder


def _config(layout: Layout, tokenizer: Any, hidden: int, layers: int) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        layout.model_type,
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _body(config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights of the decoder, by their published names."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        shapes = AutoModel.from_config(config).state_dict()
    return {
        f"model.{name}": _random(name, tensor.shape, generator) for name, tensor in shapes.items()
    }


def _random(name: str, shape: Any, generator: torch.Generator) -> torch.Tensor:
    import torch

    if "norm" in name:
        return torch.ones(shape) + 0.1 * torch.randn(shape, generator=generator)
    # Large enough that attention and scores differ from token to token, at any width.
    scale: float = 1.7 * shape[-1] ** -0.5
    return scale * torch.randn(shape, generator=generator)


def _head(
    head: Head, layout: Layout, config: Any, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Random weights of the head, by their published names."""
    hidden, vocabulary = config.hidden_size, config.vocab_size

    def layer(key: str, rows: int, bias: bool = True) -> dict[str, torch.Tensor]:
        made = {f"{key}.weight": _random(key, (rows, hidden), generator)}
        return made | ({f"{key}.bias": _random(key, (rows,), generator)} if bias else {})

    if isinstance(head, TokenRows | TokenShare):
        return layer("lm_head", vocabulary, bias=False)
    if isinstance(head, MeanRow):
        row = layer("lm_head", 1, bias=False)["lm_head.weight"]
        return {"lm_head.weight": row.repeat(vocabulary, 1)}
    if isinstance(head, Linear):
        extra = layer("lm_head", vocabulary, bias=False) if "v_head" in head.keys[0] else {}
        return extra | layer(head.keys[0], head.n_outputs, layout.bias)
    if isinstance(head, TwoLayers):
        return layer(head.first, hidden) | layer(head.second, head.n_outputs)
    tensors: dict[str, torch.Tensor] = {}
    shapes = ((hidden, 8), (8, 8), (8, 1))
    for key, (inputs, outputs) in zip(head.layers, shapes, strict=True):
        tensors[f"{key}.weight"] = _random(key, (ENSEMBLE, inputs, outputs), generator)
        tensors[f"{key}.bias"] = _random(key, (ENSEMBLE, outputs), generator)
    return tensors
