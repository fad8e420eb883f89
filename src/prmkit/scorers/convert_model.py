"""One layout of weights to another, without loss: adapters merged, heads folded.

A head that is one linear map of the hidden state, whatever its published layout (rows of an output
matrix, a row repeated over the vocabulary, a value head), is the same map as the ``score`` layer of
transformers' token classifiers. Folded into that layout it loads everywhere, is smaller by the
rest of the output matrix, and can be served. Where the score is the softmax share of one of two
numbers, their difference alone is enough: sigmoid(right - wrong), a head with one output.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from prmkit.checkpoints import (
    NOTE_FILE,
    check_folder,
    find_checkpoint,
    load_config,
    load_tokenizer,
    quiet_transformers,
)
from prmkit.errors import CheckpointError, MissingDependency
from prmkit.files import whole_folder, write_json
from prmkit.scorers.backends.weights import Tensors, load_head
from prmkit.scorers.families import Discriminative
from prmkit.scorers.families.heads import Linear, MeanRow, TokenRows, n_numbers
from prmkit.scorers.families.reading import first_of_two, second_of_two, sigmoid_of_one

if TYPE_CHECKING:
    import torch

Layout = Literal["token_classifier", "scalar"]
ADAPTER = "adapter_config.json"
_OLD_HEADS = ("lm_head.", "v_head.", "score", "value_head", "reward_head", "classifier")
_KEPT = ("*.jinja", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_*")


def fold(
    source: Path | str,
    target: Path | str,
    family: Discriminative,
    layout: Layout = "token_classifier",
) -> None:
    """Write a checkpoint whose head is one linear map as a token classifier, in safetensors.

    Args:
        source: folder of the checkpoint.
        target: where it is written, whole or not at all.
        family: of the checkpoint.
        layout: ``token_classifier`` keeps the K numbers of the head; ``scalar`` makes one of two.

    Raises:
        CheckpointError: if the family's head is no single linear map, or has other than two numbers
            where a scalar is wanted, or the folder is not such a checkpoint.
    """
    from torch import nn

    folder = check_folder(source)
    if not isinstance(family.head, TokenRows | MeanRow | Linear):
        raise CheckpointError(
            f"the head of {family.name!r} is {type(family.head).__name__}, which is no single "
            "linear layer; there is no token classifier that is the same"
        )
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = load_config(folder)
    head = load_head(folder, family.head, load_tokenizer(folder), known.hidden_size)
    if not isinstance(head, nn.Linear):
        raise CheckpointError(f"{str(folder)!r} caps its logits; no linear layer gives the same")
    weight, bias = head.weight.detach(), head.bias.detach() if head.bias is not None else None
    if layout == "scalar":
        right, wrong = _two(family)
        weight = weight[right : right + 1] - weight[wrong : wrong + 1]
        bias = None if bias is None else bias[right : right + 1] - bias[wrong : wrong + 1]
    tensors = Tensors(folder)
    kept = {name: tensors[name] for name in tensors.names() if not name.startswith(_OLD_HEADS)}
    prefix = "" if any(name.startswith("model.") for name in kept) else "model."
    weights = {f"{prefix}{name}": tensor for name, tensor in kept.items()}
    n_outputs = len(weight)
    # In float32: a head is small, and may have more digits than the body around it.
    weights["score.weight"] = weight.float()
    weights["score.bias"] = (weight.new_zeros(n_outputs) if bias is None else bias).float()
    config = {k: v for k, v in described.items() if k not in ("auto_map", "architectures")}
    config |= {
        "architectures": [_classifier(known.model_type)],
        "num_labels": n_outputs,
        "id2label": {str(i): f"LABEL_{i}" for i in range(n_outputs)},
        "label2id": {f"LABEL_{i}": i for i in range(n_outputs)},
        "tie_word_embeddings": False,
    }
    with whole_folder(target) as place:
        _save(weights, place / "model.safetensors")
        write_json(place / "config.json", config)
        write_json(place / NOTE_FILE, {"family": family.name, "head": layout})
        _copy_tokenizer(folder, place)


def folded(family: Discriminative, layout: Layout) -> Discriminative:
    """The family of a checkpoint whose head was folded; it gives the same scores."""
    if layout == "scalar":
        return replace(family, head=Linear(1), read=sigmoid_of_one)
    return replace(family, head=Linear(n_numbers(family.head) or 1))


def layout_of(note: Mapping[str, Any]) -> Layout | None:
    """The layout that a head was folded into, as the note beside the model says."""
    return next((layout for layout in get_args(Layout) if layout == note.get("head")), None)


def _two(family: Discriminative) -> tuple[int, int]:
    """Which of a head's two numbers speaks for right, and which for wrong."""
    if family.read is first_of_two:
        return 0, 1
    if family.read is second_of_two:
        return 1, 0
    raise CheckpointError(
        f"the scores of {family.name!r} are no softmax share of one of two numbers, so no scalar "
        "head gives them; fold it into a token_classifier"
    )


def _classifier(model_type: str) -> str:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES as NAMES,
    )

    if model_type not in NAMES:
        raise CheckpointError(f"transformers has no token classifier for {model_type!r}")
    return str(NAMES[model_type])


def _save(weights: dict[str, torch.Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in weights.items()}, file, metadata={"format": "pt"})


def _copy_tokenizer(source: Path, target: Path) -> None:
    for pattern in _KEPT:
        for file in source.glob(pattern):
            shutil.copy2(file, target / file.name)


def is_adapter(path: Path | str) -> bool:
    """Whether a folder holds an adapter to a model, not a model."""
    return (Path(path) / ADAPTER).is_file() and not (Path(path) / "config.json").is_file()


def merge_adapter(source: Path | str, target: Path | str, base: Path | str | None = None) -> None:
    """Write the model that an adapter and its base make together, as an ordinary folder.

    Args:
        source: the adapter's folder.
        target: where the model is written, whole or not at all.
        base: folder or id of the base; by default what the adapter names.

    Raises:
        CheckpointError: if there is no base, or it does not fit.
        MissingDependency: if peft is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingDependency("peft", "adapters", "merging an adapter") from None
    from transformers import AutoModelForCausalLM

    path = Path(source)
    try:
        named: Any = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
        task, named = named.get("task_type"), named["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / ADAPTER} is damaged: {error!r}") from None
    if task not in (None, "CAUSAL_LM"):
        raise CheckpointError(
            f"{str(path)!r} adapts a model of the kind {task}; only adapters of language models "
            "(CAUSAL_LM) are merged here, since others bring heads of their own"
        )
    if base is None and not isinstance(named, str):
        raise CheckpointError(f"{path / ADAPTER} names no base; name it with base=… (--base)")
    if not any(path.glob("adapter_model*.safetensors")):
        raise CheckpointError(
            f"{str(path)!r} has no adapter_model.safetensors; pickles are refused"
        )
    folder = find_checkpoint(base or named)
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto",
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            whole, info = loaded
            if info["missing_keys"]:
                raise ValueError(f"its weights lack {', '.join(sorted(info['missing_keys'])[:4])}")
            merged = peft.PeftModel.from_pretrained(whole, path).merge_and_unload()
    except Exception as error:
        # Whatever the libraries below raise on a folder that does not fit.
        raise CheckpointError(
            f"the adapter in {str(path)!r} cannot be merged into {str(folder)!r}: {error}"
        ) from None
    with whole_folder(target) as place:
        with quiet_transformers():
            merged.save_pretrained(place)
        _copy_tokenizer(path if (path / "tokenizer.json").is_file() else folder, place)
