"""Settings of training that say nothing of what is learnt: on what, and how it is watched."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from prmkit.errors import InvalidSetting
from prmkit.settings import at_least

logger = logging.getLogger(__name__)

EXTRA = "curves"
"""The extra of prmkit that brings trackio."""

LOWER_IS_BETTER = ("calibration_error", "brier", "temporal_loss", "unscored")
"""Figures of which the lowest is the best."""

Curves = Literal["auto", "none", "trackio", "wandb", "tensorboard"]


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """How a model is trained on the processes that there are.

    Attributes:
        parallel: replicated gives each process a whole model; sharded spreads weights, gradients
            and the optimiser's state over them (FSDP2). Several processes are started by torchrun.
        precision: of the passes; weights and the optimiser's state are float32 in any case. auto
            is bfloat16 on a GPU, else float32.
    """

    parallel: Literal["replicated", "sharded"] = "replicated"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def check(self, world: int) -> None:
        """Refuse what `world` processes cannot do.

        Raises:
            InvalidSetting: saying how to start several.
        """
        if self.parallel == "sharded" and world == 1:
            raise InvalidSetting(
                "parallel is sharded, and there is one process to spread the model over; start "
                "several (torchrun --nproc-per-node N --no-python prm train …), or leave it at "
                "replicated"
            )

    @property
    def bf16(self) -> bool:
        """Whether passes are in bfloat16."""
        import torch

        if self.precision == "auto":
            return torch.cuda.is_available()
        return self.precision == "bfloat16"


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """How training is watched, and when it ends early.

    Attributes:
        eval_every: optimiser steps between evaluations on the held-out solutions; 0 evaluates at
            the end alone.
        patience: end after so many evaluations in a row without a better figure; the model is the
            one of the best evaluation in any case.
        best_by: the figure that says which is the best: the highest one, but of errors
            (calibration_error, brier, temporal_loss, unscored) the lowest. Of temporal targets it
            is brier, if nothing else is said.
        report_to: where live curves go; auto is trackio where it is installed (the extra curves).
            metrics.jsonl is written in any case.
    """

    eval_every: int = 0
    patience: int | None = None
    best_by: str = "first_error_f1"
    report_to: Curves = "auto"

    def __post_init__(self) -> None:
        at_least(0, eval_every=self.eval_every)
        if self.patience is not None:
            at_least(1, patience=self.patience)
            if not self.eval_every:
                raise InvalidSetting("patience has no meaning without eval_every")

    def check(self, has_held_out: bool) -> None:
        """Refuse evaluations of nothing.

        Raises:
            InvalidSetting: saying what is missing.
        """
        if not has_held_out and self.best_by != WatchSettings.best_by:
            raise InvalidSetting(
                "best_by has no meaning without held-out solutions to evaluate on (--eval FILE)"
            )
        if self.eval_every and not has_held_out:
            raise InvalidSetting(
                "eval_every has no meaning without held-out solutions to evaluate on (--eval FILE)"
            )

    def curves(self) -> tuple[str, ...]:
        """Where live curves go.

        Raises:
            InvalidSetting: if that is not installed.
        """
        if self.report_to == "none":
            return ()
        name = "trackio" if self.report_to == "auto" else self.report_to
        if find_spec(name) is not None:
            return (name,)
        if self.report_to == "auto":
            logger.info("no live curves: trackio is not installed; the figures are in a file")
            return ()
        how = f"'prmkit[{EXTRA}]'" if name == "trackio" else name
        raise InvalidSetting(
            f"report_to is {name}, which is not installed. Install it with: pip install {how}; or "
            "leave it out: metrics.jsonl is written in any case"
        )
