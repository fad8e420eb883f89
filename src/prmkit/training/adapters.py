"""Low-rank adapters: few weights are trained, and merged into the others at the end.

A linear layer W becomes W + α/r · B A, with A of r rows and B of r columns. The new head is trained
whole; a head made of rows of a language model's output matrix stays as it is.

Reference: Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prmkit.errors import InvalidSetting, MissingDependency
from prmkit.settings import above, at_least


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Whether low-rank adapters are trained instead of all weights.

    Attributes:
        lora_rank: r; 0 trains all weights.
        lora_alpha: α; by default twice the rank.
        lora_targets: names of the linear layers that get one, such as q_proj; by default all but
            the head.
    """

    lora_rank: int = 0
    lora_alpha: int | None = None
    lora_targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least(0, lora_rank=self.lora_rank)
        if self.lora_alpha is not None:
            above(0, lora_alpha=self.lora_alpha)
        if not self.lora_rank and (self.lora_alpha is not None or self.lora_targets):
            raise InvalidSetting("lora_alpha and lora_targets have no meaning without lora_rank")


def adapted(model: Any, settings: AdapterSettings) -> Any:
    """A model with adapters, which alone are trained, with its head; `merged` undoes it.

    It stays the class that it is.

    Args:
        model: of transformers.
        settings: with a rank above 0.

    Raises:
        InvalidSetting: if no layer has such a name.
        MissingDependency: if peft is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError:
        raise MissingDependency("peft", "adapters", "training adapters") from None
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        target_modules=list(settings.lora_targets) or "all-linear",
        exclude_modules=["score"],
    )
    try:
        tuner = LoraModel(model, config, "default")
    except ValueError as error:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if type(module).__name__ == "Linear" and name != "score"
        }
        raise InvalidSetting(
            f"lora_targets are {', '.join(settings.lora_targets)}; the linear layers of this "
            f"model are {', '.join(sorted(linear))}"
        ) from error
    if hasattr(model, "score"):
        model.score.requires_grad_(True)
    # Not among the model's parts, of which it is the owner.
    object.__setattr__(model, "prmkit_tuner", tuner)
    return model


def merged(model: Any) -> Any:
    """The model without adapters, whose weights do what they did together."""
    tuner = model.prmkit_tuner
    object.__delattr__(model, "prmkit_tuner")
    return tuner.merge_and_unload(progressbar=False)
