"""Trains a discriminative PRM: a two-class head on a language model, read at the steps' ends.

The loop is `transformers.Trainer`: checkpoints, resuming, mixed precision and many GPUs are its
own. What is ours is the rendering (the scorer's), the loss, and its normalisation: the sum over
labelled steps, divided by the number of labelled steps of the whole optimiser step.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.checkpoints import (
    load_tokenizer,
    quiet_transformers,
    save_model,
    start_token_classifier,
)
from prmkit.errors import (
    MissingDependency,
    NothingToMeasure,
    PrmkitError,
    RunFolderError,
)
from prmkit.files import atomic_text
from prmkit.records import Record
from prmkit.scorers.families import discriminative
from prmkit.scorers.families.heads import Linear
from prmkit.settings import above, at_least
from prmkit.training.losses import two_class_cross_entropy
from prmkit.training.targets import Dropped, Example, make_examples

logger = logging.getLogger(__name__)

IGNORED = -100.0
"""Marks padding among targets; the Trainer counts what is not this."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a PRM is trained.

    Attributes:
        model: folder of the language model (or earlier PRM) to start from.
        out: folder of the PRM; checkpoints lie beside it in ``OUT.checkpoints``.
        family: how the model will read steps.
        epochs: passes over the data.
        learning_rate: peak of the cosine schedule.
        batch_size: trajectories in one forward pass.
        accumulate: forward passes per optimiser step.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        max_tokens: longer trajectories are left out, and counted; by default the model's limit.
        save_every: optimiser steps between checkpoints.
        seed: of the head's first weights and of the order.
    """

    model: Path
    out: Path
    family: str = "step_end"
    epochs: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 16
    accumulate: int = 1
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_tokens: int | None = None
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        above(0, epochs=self.epochs, learning_rate=self.learning_rate)
        at_least(1, batch_size=self.batch_size, accumulate=self.accumulate)
        at_least(1, save_every=self.save_every)
        at_least(0, warmup=self.warmup, weight_decay=self.weight_decay)
        if self.max_tokens is not None:
            at_least(1, max_tokens=self.max_tokens)


class TrainResult(NamedTuple):
    """What a training run did.

    Attributes:
        out: the folder of the PRM.
        n_examples: trajectories trained on.
        n_labels: labelled steps among them.
        dropped: records that gave no example.
        losses: (optimiser step, mean loss per labelled step) as logged.
    """

    out: Path
    n_examples: int
    n_labels: int
    dropped: Dropped
    losses: list[tuple[int, float]]


def train(
    records: Sequence[Record],
    settings: TrainSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Train a discriminative PRM and write it, whole, to ``settings.out``.

    Interrupted, it resumes from the last whole checkpoint when called again with the same
    settings; a half-written one is passed over.

    Args:
        records: with hard or soft labels.
        settings: see `TrainSettings`.
        on_progress: told the optimiser steps done and their total.

    Raises:
        CheckpointError: if the model to start from cannot be loaded.
        NothingToMeasure: if no record gives an example.
        RunFolderError: if the checkpoints beside ``out`` belong to other settings.
        PrmkitError: if started as one of several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PrmkitError(
            "this trainer runs as one process; it was started as one of "
            f"{os.environ['WORLD_SIZE']}. Start it without torchrun"
        )
    model, tokenizer = _start_model(settings)
    family = discriminative(settings.family)
    limit = settings.max_tokens or getattr(model.config, "max_position_embeddings", None)
    examples, dropped = make_examples(records, family, tokenizer, limit)
    if dropped.too_long or dropped.unlabelled:
        logger.warning("left out: %s", dropped)
    if not examples:
        raise NothingToMeasure(
            f"none of {len(records)} records can be trained on: {dropped.unlabelled} have no "
            f"label, {dropped.too_long} are longer than {limit} tokens"
        )
    folder = settings.out.with_name(settings.out.name + ".checkpoints")
    _claim(folder, settings, examples)
    trainer = _make_trainer(model, examples, settings, folder, on_progress)
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
    note = {"family": settings.family, "trained_from": settings.model.name}
    save_model(settings.out, model, tokenizer, note)
    losses = [(e["step"], e["loss"]) for e in trainer.state.log_history if "loss" in e]
    shutil.rmtree(folder)
    n_labels = sum(len(example.targets) for example in examples)
    return TrainResult(settings.out, len(examples), n_labels, dropped, losses)


def _start_model(settings: TrainSettings) -> tuple[Any, Any]:
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise MissingDependency("accelerate", "train", "training") from None
    from transformers import set_seed

    tokenizer = load_tokenizer(settings.model)
    set_seed(settings.seed)
    head = discriminative(settings.family).head
    if not isinstance(head, Linear):
        raise PrmkitError(
            f"this trainer trains families with one linear head; {settings.family!r} has "
            f"{type(head).__name__}"
        )
    return start_token_classifier(settings.model, head.n_outputs).train(), tokenizer


def _claim(folder: Path, settings: TrainSettings, examples: Sequence[Example]) -> None:
    """Mark the checkpoint folder with what it belongs to, or refuse another's."""
    claim = {
        "settings": {key: str(value) for key, value in asdict(settings).items()},
        "n_examples": len(examples),
        "n_tokens": sum(len(example.ids) for example in examples),
        "sum_of_targets": sum(sum(example.targets) for example in examples),
    }
    file = folder / "claim.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != claim:
        raise RunFolderError(
            f"{folder} holds checkpoints of a run with other settings or data. Give another "
            "output folder, or remove it"
        )
    with atomic_text(file) as out:
        json.dump(claim, out, indent=1)


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with all its parts; the Trainer would take a half-written one."""
    parts = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    whole = [
        path
        for path in folder.glob("checkpoint-*")
        # The Trainer writes its state last.
        if (path / "trainer_state.json").is_file() and all((path / p).is_file() for p in parts)
    ]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """Pad examples on the right: ids [N, T], positions [N, L] and labels [N, L]."""
    import torch

    width = max(len(example.ids) for example in examples)
    n_labels = max(len(example.targets) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    positions = torch.zeros(len(examples), n_labels, dtype=torch.long)
    labels = torch.full((len(examples), n_labels), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        positions[row, : len(example.positions)] = torch.tensor(example.positions)
        labels[row, : len(example.targets)] = torch.tensor(example.targets)
    return {"input_ids": ids, "positions": positions, "labels": labels}


def batch_loss(model: Any, inputs: dict[str, Any], n_labels: Any) -> Any:
    """The loss of one collated batch, divided by the labelled steps of the whole step."""
    import torch

    body = getattr(model, model.base_model_prefix)
    # Padding is on the right of a causal model: nothing before it can see it.
    hidden = body(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
    kept = inputs["labels"] != IGNORED
    rows = torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(kept)[kept]
    logits = model.score(hidden[rows, inputs["positions"][kept]])
    return two_class_cross_entropy(logits, inputs["labels"][kept]) / n_labels


def _make_trainer(
    model: Any,
    examples: list[Example],
    settings: TrainSettings,
    folder: Path,
    on_progress: Callable[[int, int], None] | None,
) -> Any:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class PRMTrainer(Trainer):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            n_labels = num_items_in_batch
            if n_labels is None:
                n_labels = (inputs["labels"] != IGNORED).sum()
            loss = batch_loss(self.accelerator.unwrap_model(model), inputs, n_labels)
            return (loss, {}) if return_outputs else loss

    class Progress(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_progress is not None:
                on_progress(state.global_step, state.max_steps)

    n_steps = -(-len(examples) // (settings.batch_size * settings.accumulate)) * settings.epochs
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=int(n_steps * settings.warmup),
        bf16=torch.cuda.is_available(),
        logging_steps=max(1, int(n_steps // 50)),
        save_steps=settings.save_every,
        save_total_limit=2,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # One device: the loss reads the model's parts, which a data-parallel wrapper would hide.
    arguments._n_gpu = min(1, arguments.n_gpu)
    trainer = PRMTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=collate,
        callbacks=[Progress()],
    )
    # The loss is already divided by the labelled steps of the whole optimiser step; without
    # this the Trainer would divide it by the number of forward passes as well.
    trainer.model_accepts_loss_kwargs = True
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer
