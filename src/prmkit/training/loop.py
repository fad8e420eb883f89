"""The loop: `transformers.Trainer`, given whole optimiser steps instead of batches.

An item of the data is what one process does in one optimiser step: some passes, and by what their
losses are divided, which is the same number for all of them. So what a step learns depends neither
on how it is cut into passes nor on how many processes share it; the Trainer's own accumulation,
which would divide by the number of passes, is not used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.errors import PrmkitError
from prmkit.training import forward
from prmkit.training.batches import StepPlan
from prmkit.training.checkpoints import seal, sweep
from prmkit.training.objective import Objective
from prmkit.training.parts import Part, make_part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor


class Share(NamedTuple):
    """What one process does in one step.

    Attributes:
        parts: its passes.
        items: of the whole step, over all processes.
    """

    parts: list[Part]
    items: float


class Steps:
    """The steps of a run as a data set: item ``step * world + rank`` is a process' share.

    Args:
        examples: what is trained on.
        plans: the steps.
        objective: counts the items.
        share: whether what sequences have in common is computed once.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        plans: Sequence[StepPlan],
        objective: Objective,
        share: bool,
    ):
        self._examples, self._plans = examples, plans
        self._objective, self._share = objective, share
        self._world = len(plans[0].shares)

    def __len__(self) -> int:
        return len(self._plans) * self._world

    def __getitem__(self, index: int) -> Share:
        plan = self._plans[index // self._world]
        rank = index % self._world
        chosen = [[[self._examples[i] for i in one] for one in share] for share in plan.shares]
        items = math.fsum(self._objective.items(one) for share in chosen for one in share)
        return Share([make_part(one, self._share) for one in chosen[rank]], items)


def trainable(model: Any, objective: Objective) -> Any:
    """Make a model's call compute the sum of a loss over one pass; `released` undoes it.

    It stays the class that it is, with its name and its parts, so that what wraps models (data
    parallel, sharded, adapters) finds what it looks for.
    """
    forward.install()
    original = type(model)

    def step_loss(self: Any, part: Part) -> Tensor:
        return part_loss(self, part, objective)

    model.__class__ = type(original.__name__, (original,), {"forward": step_loss})
    model.prmkit_original = original
    model.prmkit_attention = model.config._attn_implementation
    model.set_attn_implementation(forward.NAME)
    return model


def released(model: Any) -> Any:
    """The model as it was before `trainable`, with the weights that it has now."""
    model.set_attn_implementation(model.prmkit_attention)
    model.__class__ = model.prmkit_original
    del model.prmkit_original, model.prmkit_attention
    return model


def part_loss(model: Any, part: Part, objective: Objective) -> Tensor:
    """The sum of the loss over one pass.

    Args:
        model: a transformers model with a decoder and the head of the objective.
        part: the pass.
        objective: the loss.
    """
    body = getattr(model, model.base_model_prefix)
    hidden = forward.hidden_states(body, part.forest)
    if not len(part.places):
        # Nothing to learn here, but other processes wait for this one's gradients.
        nothing: Tensor = hidden.sum() * 0
        for weights in objective.head(model).parameters():
            nothing = nothing + weights.sum() * 0
        return nothing
    rows = hidden[part.places.to(hidden.device)]
    return objective(model, rows, part)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop runs; see `prmkit.training.trainer.TrainSettings`."""

    n_steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    save_every: int
    seed: int
    bf16: bool
    checkpoint_gradients: bool
    report_to: tuple[str, ...]
    evaluate_every: int | None = None
    patience: int | None = None


Told = Callable[[int, int, Mapping[str, float]], None]
"""Told the steps done, of how many, and what was logged."""


def run(
    model: Any,
    steps: Steps,
    settings: LoopSettings,
    folder: Path,
    *,
    resume: Path | None = None,
    on_progress: Told | None = None,
) -> list[tuple[int, dict[str, float]]]:
    """Train; checkpoints go to `folder`, each whole or absent.

    Args:
        model: made `trainable`.
        steps: what is done.
        settings: see `LoopSettings`.
        folder: of the checkpoints.
        resume: the checkpoint to go on from.
        on_progress: told how far it is.

    Returns:
        What was logged, by step.

    Raises:
        PrmkitError: if the loss is no finite number.
    """
    trainer = _trainer(model, steps, settings, folder, on_progress)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return [
        (entry["step"], {k: v for k, v in entry.items() if isinstance(v, float)})
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


def _trainer(
    model: Any, steps: Steps, settings: LoopSettings, folder: Path, on_progress: Told | None
) -> Any:
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class StepTrainer(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            del train_dataset
            return SequentialSampler(steps)

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            del num_items_in_batch
            model.train()
            # Gradients are averaged over processes; ours is a sum over all of them.
            factor = self.accelerator.num_processes / max(inputs.items, 1e-12)
            total = torch.zeros((), device=self.args.device)
            for number, part in enumerate(inputs.parts, 1):
                last = number == len(inputs.parts)
                waits = contextlib.nullcontext() if last else self.accelerator.no_sync(model)
                with waits, self.compute_loss_context_manager():
                    loss = model(part) * factor
                    self.accelerator.backward(loss)
                total += loss.detach()
            if not torch.isfinite(total):
                raise PrmkitError(
                    f"the loss of step {self.state.global_step + 1} is {total.item()}; a lower "
                    "learning rate may help, or there are weights that are no numbers"
                )
            return total

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            # Aside, then sealed and renamed: a checkpoint is whole or absent.
            true, aside = self.args.output_dir, folder / ".aside"
            if self.args.should_save:
                sweep(aside)
            self.accelerator.wait_for_everyone()
            self.args.output_dir = str(aside)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = true
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(aside / f"checkpoint-{self.state.global_step}", folder, keep=2)
            self.accelerator.wait_for_everyone()

    class Progress(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_progress is not None:
                on_progress(state.global_step, state.max_steps, {})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            if on_progress is not None and logs:
                on_progress(state.global_step, state.max_steps, logs)

    trainer = StepTrainer(
        model=model,
        args=_arguments(settings, folder),
        train_dataset=steps,
        data_collator=lambda items: items[0],
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: LoopSettings, folder: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.n_steps,
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.n_steps * settings.warmup),
        bf16=settings.bf16,
        activation_checkpointing=settings.checkpoint_gradients,
        logging_steps=max(1, settings.n_steps // 50),
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        seed=settings.seed,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        accelerator_config={"dispatch_batches": False, "even_batches": False},
    )
    # Several GPUs of one process are not several processes: start those with torchrun.
    if not torch.distributed.is_initialized():
        arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
