"""The settings of a reward model; light, so that the command line's help loads no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnSeparator = Literal["escape", "error"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which reward model, and where it runs.

    Attributes:
        model: folder of a reward model, its id on the Hugging Face hub, or embedded/prm.
        family: how it reads steps (see prm models); by default what is known of the model.
        reference: of implicit families: the model that it is compared with, folder or id.
        device: cpu or cuda; by default a GPU where there is one; auto spreads a model over all
            GPUs.
        server: instead of this process, a server with the model: vllm=URL or sglang=URL; the
            model's folder is still needed for its tokenizer.
        served_as: the model's name on the server; by default that of its folder.
        on_separator: text that spells the token where steps end: escape it, or leave the
            solution unscored (error).
        samples: of generative families: critiques of each solution.
        critique_tokens: of generative families: tokens of one stretch of a critique at most.
        allow_code: of gen_prm_code: run programs that the model writes, in a sandbox.
        uncalibrated: leave a calibration beside the model aside.
    """

    model: str = "embedded/prm"
    family: str | None = None
    reference: str | None = None
    device: str | None = None
    server: str | None = None
    served_as: str | None = None
    on_separator: OnSeparator = "escape"
    samples: int | None = None
    critique_tokens: int | None = None
    allow_code: bool = False
    uncalibrated: bool = False
