"""Published weights to a body and a head: native classes alone, safetensors alone.

The body is the decoder that transformers has for the folder's model type, whatever class the
folder names. The head's tensors are read from the same files by their published names, and of an
output matrix only the rows that are needed.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.chat import Tokenizer, single_token
from prmkit.checkpoints import check_folder, default_device, load_config, load_native
from prmkit.errors import CheckpointError
from prmkit.scorers.backends import packed
from prmkit.scorers.families.heads import (
    Head,
    Linear,
    MeanRow,
    TokenRows,
    TokenShare,
    TwoLayers,
)

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_OUTPUT = ("lm_head.weight", "model.embed_tokens.weight", "embed_tokens.weight")
INDEX = "model.safetensors.index.json"


class Tensors:
    """The tensors of a folder by name, read when they are asked for.

    Args:
        folder: with one or more ``*.safetensors``.

    Raises:
        CheckpointError: if a file is damaged, or the index names a file that is not there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        for path in self._files():
            with self._open(path) as handle:
                self._file_of.update(dict.fromkeys(handle.keys(), path))

    def _files(self) -> list[Path]:
        files = sorted(self.folder.glob("*.safetensors"))
        index = self.folder / INDEX
        if index.is_file():
            try:
                named = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{index} is damaged: {error!r}") from None
            missing = named - {path.name for path in files}
            if missing:
                raise CheckpointError(
                    f"{index} names {sorted(missing)[0]}, which is not there ({len(missing)} of "
                    f"{len(named)} files are missing); the download is not complete"
                )
        return files

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as handle:
                yield handle
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error}); copy or download it again"
            ) from None

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def __getitem__(self, name: str) -> torch.Tensor:
        with self._open(self._path(name)) as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
            return tensor

    def rows(self, name: str, rows: list[int]) -> torch.Tensor:
        """A few rows of a matrix, without reading the rest."""
        import torch

        with self._open(self._path(name)) as handle:
            part = handle.get_slice(name)
            return torch.cat([part[row : row + 1] for row in rows])

    def get(self, name: str) -> torch.Tensor | None:
        """A tensor, or None where there is none of that name."""
        return self[name] if name in self._file_of else None

    def names(self) -> list[str]:
        """The names of all tensors."""
        return sorted(self._file_of)

    def _path(self, name: str) -> Path:
        if name not in self._file_of:
            raise CheckpointError(f"{self.folder} has no tensor {name!r}")
        return self._file_of[name]


def load_body(path: Path | str, device: str | None) -> tuple[Any, str]:
    """The decoder of a folder, without a head, on prmkit's packed attention; and its device.

    Args:
        path: the folder.
        device: see `prmkit.checkpoints.load_native`.

    Raises:
        CheckpointError: if it cannot be loaded, or its weights lack a part of the body.
        MissingDependency: if layers are to be spread, and accelerate is not installed.
    """
    path = check_folder(path)
    Tensors(path)  # Says which file is damaged or missing, before transformers says less.
    default_device()  # Says what to install where there is no torch.
    from transformers import AutoModel

    packed.install()
    model, device = load_native(AutoModel, path, device, "a decoder")
    reason = _unfit(model)
    if reason is not None:
        raise CheckpointError(
            f"{type(model).__name__} in {str(path)!r} cannot be run on packed sequences: {reason}"
        )
    return model, device


def _unfit(model: Any) -> str | None:
    """Why packed sequences would not be what the model itself makes of them, or None.

    Sets the model's attention. It is asked rather than known: a few tokens alone and behind others
    must have the hidden states that the stock class gives them.
    """
    import torch

    config = model.config
    ropes = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    if any("longrope" in str(rope) for rope in ropes):
        return "its positions depend on the longest sequence of a batch (longrope)"
    if getattr(config, "attention_chunk_size", None):
        return "its attention is cut into chunks"
    ids = [i % config.vocab_size for i in (5, 6, 7, 8, 9)]
    try:
        with torch.inference_mode():
            stock = model(torch.tensor([ids], device=model.device), use_cache=False)
        model.set_attn_implementation(packed.NAME)
    except Exception as error:
        # Whatever an unknown architecture raises, it does not fit.
        return f"{type(error).__name__}: {error}"
    expected = stock.last_hidden_state[0]
    reason = _differs(model, ids, expected)
    if reason is not None and packed.by_kernel(model):
        logger.warning(
            "torch's variable-length kernel does not fit %s (%s); sequences go one by one",
            type(model).__name__,
            reason,
        )
        packed.by_kernel(model, False)
        reason = _differs(model, ids, expected)
    return reason


def _differs(model: Any, ids: list[int], expected: torch.Tensor) -> str | None:
    """How the packed hidden states of a few tokens differ from those expected, or None."""
    try:
        alone = packed.run(model, [packed.Segment(ids)], keep=True)
        behind = packed.run(model, [packed.Segment(ids[::-1]), packed.Segment(ids)])
    except Exception as error:
        # As above: the reason is told, whatever it is.
        return f"{type(error).__name__}: {error}"
    if len(alone.caches[0].keys) != model.config.num_hidden_layers:
        return "not all of its layers are attention that can be chosen"
    # Between two kernels in bfloat16 a few percent are rounding.
    slack = 1e-3 if expected.element_size() > 2 else 0.1
    largest = max(expected.float().abs().max().item(), 1.0)
    for found in (alone.hidden, behind.hidden[len(ids) :]):
        off = (found.float() - expected.float()).abs().max().item()
        if not off <= slack * largest:
            return f"hidden states differ from those of the stock class by {off:.2g}"
    return None


def load_head(folder: Path, head: Head, tokenizer: Tokenizer, width: int) -> Any:
    """The head as a module from [N, H] hidden states to [N, K] numbers, in float32.

    Args:
        folder: with the published weights.
        head: which one.
        tokenizer: of the same folder, for heads that are named by tokens.
        width: H.

    Raises:
        CheckpointError: if the weights have no such head, or its shape is another one.
    """
    import torch

    from prmkit.scorers.backends.modules import Share, Stacked

    tensors = Tensors(folder)
    if isinstance(head, TokenRows):
        rows = [single_token(tokenizer, token) for token in head.tokens]
        return _some_logits(tensors, rows, width)
    if isinstance(head, TokenShare):
        return Share(load_logits(folder, dtype=torch.float32), single_token(tokenizer, head.token))
    if isinstance(head, MeanRow):
        return _mean_logit(tensors, width)
    if isinstance(head, Linear):
        key = next((k for k in head.keys if f"{k}.weight" in tensors), None)
        if key is None:
            raise CheckpointError(_no_head(tensors, [f"{k}.weight" for k in head.keys]))
        layer = _layer(tensors, key, width)
        return _checked(layer, layer.out_features, head.n_outputs, key)
    if isinstance(head, TwoLayers):
        return _two(tensors, head.first, head.second, head.n_outputs, width)
    return Stacked([_stacked(tensors, key) for key in head.layers])


def _stacked(tensors: Tensors, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    if f"{key}.weight" not in tensors or f"{key}.bias" not in tensors:
        raise CheckpointError(_no_head(tensors, [f"{key}.weight", f"{key}.bias"]))
    return tensors[f"{key}.weight"], tensors[f"{key}.bias"]


class LogitRule(NamedTuple):
    """What a model does to its logits before they are used.

    Attributes:
        factor: they are multiplied by it.
        cap: they are capped by cap · tanh(logit / cap); None where they are not.
        tied: whether the output matrix is that of the embeddings.
    """

    factor: float
    cap: float | None
    tied: bool


def logit_rule(config: Any) -> LogitRule:
    """What a model of this configuration does to its logits."""
    divisor = getattr(config, "logits_scaling", None) or 1.0
    factor = getattr(config, "logit_scale", None) or 1.0
    cap = getattr(config, "final_logit_softcapping", None)
    return LogitRule(factor / divisor, cap, bool(getattr(config, "tie_word_embeddings", False)))


def load_logits(folder: Path, dtype: Any) -> Any:
    """The logits of a language model as a module from [N, H] hidden states to [N, V].

    Raises:
        CheckpointError: if the weights have no output matrix.
    """
    from prmkit.scorers.backends.modules import Logits

    tensors, rule = Tensors(folder), logit_rule(load_config(folder))
    bias = tensors.get("lm_head.bias")
    return Logits(
        tensors[_output(tensors, rule)].to(dtype),
        None if bias is None else bias.float(),
        rule.factor,
        rule.cap,
    )


def _some_logits(tensors: Tensors, rows: list[int], width: int) -> Any:
    """The logits of a few tokens; one linear layer where the model does not cap them."""
    from prmkit.scorers.backends.modules import Logits

    rule = logit_rule(load_config(tensors.folder))
    weight = tensors.rows(_output(tensors, rule), rows).float()
    bias = tensors["lm_head.bias"][rows].float() if "lm_head.bias" in tensors else None
    if rule.cap is not None:
        return Logits(weight, bias, rule.factor, rule.cap)
    return _linear(weight * rule.factor, None if bias is None else bias * rule.factor, width)


def _mean_logit(tensors: Tensors, width: int) -> Any:
    """The mean logit of the vocabulary, which is one row."""
    rule = logit_rule(load_config(tensors.folder))
    if rule.cap is not None or "lm_head.bias" in tensors:
        raise CheckpointError(
            f"{str(tensors.folder)!r} caps its logits or has a bias for them; their mean is no "
            "single row, as it is in this family's checkpoints"
        )
    matrix = tensors[_output(tensors, rule)].float()
    return _linear(rule.factor * matrix.mean(0, keepdim=True), None, width)


def _output(tensors: Tensors, rule: LogitRule) -> str:
    """The name of the output matrix; that of the embeddings where the model says they are tied."""
    names = _OUTPUT if rule.tied else _OUTPUT[:1]
    name = next((name for name in names if name in tensors), None)
    if name is None:
        raise CheckpointError(_no_head(tensors, list(names)))
    return name


def _no_head(tensors: Tensors, wanted: list[str]) -> str:
    heads = [name for name in tensors.names() if ".layers." not in name]
    return (
        f"the weights in {str(tensors.folder)!r} have no head of this family: expected "
        f"{' or '.join(wanted)}, found {', '.join(heads[:8]) or 'none outside of the layers'}"
    )


def _layer(tensors: Tensors, key: str, width: int) -> Any:
    if f"{key}.weight" not in tensors:
        raise CheckpointError(_no_head(tensors, [f"{key}.weight"]))
    bias = tensors.get(f"{key}.bias")
    return _linear(tensors[f"{key}.weight"], bias, width, key)


def _linear(
    weight: torch.Tensor, bias: torch.Tensor | None, width: int, key: str = "the head"
) -> Any:
    from torch import nn

    if weight.ndim != 2 or weight.shape[1] != width:
        raise CheckpointError(
            f"{key} has the shape {tuple(weight.shape)}; the model's hidden states have {width}"
        )
    layer = nn.Linear(width, weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.float()
    if bias is not None:
        layer.bias.data = bias.float()
    return layer


def _two(tensors: Tensors, first: str, second: str, n_outputs: int, width: int) -> Any:
    from torch import nn

    inner = _layer(tensors, first, width)
    outer = _layer(tensors, second, inner.out_features)
    return _checked(nn.Sequential(inner, nn.ReLU(), outer), outer.out_features, n_outputs, second)


def _checked(head: Any, found: int, expected: int, key: str) -> Any:
    if found != expected:
        raise CheckpointError(f"{key} gives {found} numbers; this family's head gives {expected}")
    return head
