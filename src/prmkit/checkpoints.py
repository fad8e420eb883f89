"""Model folders: loaded without running their code, saved whole.

A folder holds ``config.json``, ``*.safetensors`` and a fast tokenizer, in the ordinary layout of
Hugging Face. Nothing of it is executed: remote code is refused, pickled weights are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prmkit.errors import CheckpointError, MissingDependency
from prmkit.files import whole_folder

logger = logging.getLogger(__name__)

NOTE_FILE = "prmkit.json"
"""What prmkit writes beside the weights of a model that it trained: how it reads its input."""


def default_device() -> str:
    """``"cuda"`` where torch sees a GPU, else ``"cpu"``."""
    torch = _torch()
    return "cuda" if torch.cuda.is_available() else "cpu"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", "hf", "running a model") from None
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise MissingDependency("transformers", "hf", "running a model") from None
    return torch


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")


def is_hub_id(name: Path | str) -> bool:
    """Whether a name could be an id on the Hugging Face hub: an owner, a slash and a name."""
    return _HUB_ID.fullmatch(str(name)) is not None


def find_checkpoint(name: Path | str) -> Path:
    """The folder of a model: `name` itself, or the local copy of a model of the Hugging Face hub.

    Raises:
        CheckpointError: if there is no such folder and the hub does not give it.
    """
    path = Path(name)
    if path.is_dir() or not is_hub_id(name):
        return check_folder(path)
    _torch()
    from huggingface_hub import snapshot_download

    try:
        with quiet_transformers():
            folder = snapshot_download(str(name), allow_patterns=list(_HUB_FILES))
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"there is no folder {str(name)!r}, and the Hugging Face hub did not give a model of "
            f"that id: {first}"
        ) from None
    return check_folder(folder)


_HASHED = 1 << 30


def fingerprint(path: Path | str) -> str:
    """A digest that changes when a model's files do.

    Up to a GiB all contents count; of larger models names, sizes and times of change.
    """
    folder = Path(path)
    files = sorted(f for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else []
    told = hashlib.sha256()
    small = sum(f.stat().st_size for f in files) <= _HASHED
    for file in files:
        told.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
        if small:
            with file.open("rb") as content:
                told.update(hashlib.file_digest(content, "sha256").digest())
        else:
            told.update(str(file.stat().st_mtime_ns).encode())
    return told.hexdigest()


def check_folder(path: Path | str) -> Path:
    """The folder, if it holds a model that can be loaded without running its code.

    Raises:
        CheckpointError: saying what is missing and what to do.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            f"{str(path)!r} is not a folder. Give the folder of a model in Hugging Face layout "
            "(config.json, *.safetensors, tokenizer.json)"
        )
    config_file = path / "config.json"
    if not config_file.is_file():
        seen = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"{str(path)!r} has no config.json; it holds {seen}")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{config_file} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{config_file} holds a {type(config).__name__}, not an object")
    if config.get("auto_map") and not _is_known(config.get("model_type")):
        raise CheckpointError(
            f"{config_file} asks for code of its own ('auto_map') for the model type "
            f"{config.get('model_type')!r}, which transformers does not have. prmkit never runs a "
            "model's own code; convert the model to a class that transformers has"
        )
    if not any(path.glob("*.safetensors")):
        pickled = sorted(p.name for p in path.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
        hint = f" {pickled[0]} is a pickle, which can run code; convert it." if pickled else ""
        raise CheckpointError(f"{str(path)!r} has no *.safetensors.{hint}")
    return path


def _is_known(model_type: object) -> bool:
    """Whether transformers has the architecture itself, so that no code of a folder is needed."""
    _torch()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return isinstance(model_type, str) and model_type in CONFIG_MAPPING


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the screen: a library is silent.

    What the reports say is checked by the caller.
    """
    from transformers.utils import logging as hf_logging

    theirs: Any = hf_logging
    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def load_tokenizer(path: Path | str) -> Any:
    """The fast tokenizer of a model folder."""
    _torch()
    from transformers import AutoTokenizer

    path = check_folder(path)
    if not (path / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{str(path)!r} has no tokenizer.json (a fast tokenizer). Save one there with "
            "AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(folder)"
        )
    try:
        return AutoTokenizer.from_pretrained(
            path, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        # A damaged tokenizer raises what the libraries below happen to raise.
        raise CheckpointError(
            f"the tokenizer in {str(path)!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from None


def load_config(path: Path | str) -> Any:
    """The configuration of a model folder, of a class of transformers' own.

    Raises:
        CheckpointError: if it cannot be loaded.
    """
    _torch()
    from transformers import AutoConfig

    path = check_folder(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        # Each architecture checks its own entries, and raises what it likes.
        raise CheckpointError(
            f"{path / 'config.json'} is no configuration that transformers reads: {error}"
        ) from None


def load_causal_lm(path: Path | str, device: str | None = None) -> tuple[Any, str]:
    """A causal language model, ready to run, and the device it is on."""
    _torch()
    from transformers import AutoModelForCausalLM

    return load_native(AutoModelForCausalLM, path, device, "a causal language model")


def start_token_classifier(path: Path | str, n_classes: int) -> Any:
    """A token classifier to train, in float32 on the CPU.

    Its body comes from the folder; so does its head if the folder has one, else it is new.
    """
    _torch()
    from transformers import AutoModelForTokenClassification

    model, _ = load_native(
        AutoModelForTokenClassification,
        path,
        "cpu",
        "a model to train from",
        may_lack="score.",
        num_labels=n_classes,
    )
    return model


def start_causal_lm(path: Path | str) -> Any:
    """A causal language model to train, in float32 on the CPU."""
    _torch()
    from transformers import AutoModelForCausalLM

    return load_native(AutoModelForCausalLM, path, "cpu", "a causal language model to train from")[
        0
    ]


def load_native(
    auto_class: Any,
    path: Path | str,
    device: str | None,
    kind: str,
    may_lack: str | None = None,
    **settings: Any,
) -> tuple[Any, str]:
    """A model of a class of transformers' own, and its device.

    Args:
        auto_class: such as ``AutoModel``.
        path: the folder.
        device: ``"cpu"``, ``"cuda"``, …, by default a GPU where there is one; ``"auto"`` spreads
            the layers over all GPUs, and the device returned is that of the first.
        kind: what it is loaded as, for messages.
        may_lack: how the names of weights begin that need not be there.
        settings: more arguments of ``from_pretrained``.

    Raises:
        CheckpointError: if it cannot be loaded, or its weights lack a part.
        MissingDependency: if layers are to be spread, and accelerate is not installed.
    """
    torch = _torch()
    path = check_folder(path)
    spread = device == "auto"
    if spread and find_spec("accelerate") is None:
        raise MissingDependency("accelerate", "train", "spreading a model over GPUs")
    device = default_device() if spread or device is None else device
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        with quiet_transformers():
            model, info = auto_class.from_pretrained(
                path,
                dtype=dtype,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                device_map="auto" if spread else None,
                **settings,
            )
    except Exception as error:
        # What a damaged or unusual folder raises depends on what is wrong with it.
        raise CheckpointError(f"{str(path)!r} cannot be loaded as {kind}: {error}") from None
    missing = [
        key for key in sorted(info["missing_keys"]) if not (may_lack and key.startswith(may_lack))
    ]
    if missing:
        raise CheckpointError(
            f"{str(path)!r} is not {kind}: its weights lack {', '.join(missing[:4])}. "
            "They would have been random numbers"
        )
    if spread:
        return model.eval(), str(next(model.parameters()).device)
    return model.to(device).eval(), device


def find_note(path: Path | str) -> dict[str, Any]:
    """What prmkit noted beside a model; nothing where there is no note.

    Raises:
        CheckpointError: if there is one, and it is damaged.
    """
    file = Path(path) / NOTE_FILE
    if not file.is_file():
        return {}
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is no JSON: {error}") from None
    if not isinstance(note, dict) or not isinstance(note.get("family"), str):
        raise CheckpointError(f"{file} does not name a 'family'")
    return note


def read_note(path: Path | str) -> dict[str, Any]:
    """What prmkit noted beside a model that it trained.

    Raises:
        CheckpointError: if there is no such note.
    """
    note = find_note(check_folder(path))
    if not note:
        raise CheckpointError(
            f"{str(path)!r} has no {NOTE_FILE}, which says how the model reads its steps. "
            "`prm train` writes it"
        )
    return note


def save_model(
    folder: Path | str,
    model: Any,
    tokenizer: Any,
    note: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder whole: under a temporary name, synced, then renamed.

    Args:
        folder: where; an older model there is replaced.
        model: a transformers model.
        tokenizer: its tokenizer.
        note: what `read_note` will give back.
        files: texts that go beside the weights, by name.
    """
    with whole_folder(folder) as place:
        with quiet_transformers():
            model.save_pretrained(place)
            tokenizer.save_pretrained(place)
        (place / NOTE_FILE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (place / name).write_text(text, encoding="utf-8")
