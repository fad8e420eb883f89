"""Trains models that score steps: records in, a model folder out.

The loop is `transformers.Trainer`; what is ours is the rendering (the scorer's), the losses, their
normalisation, which solutions make a step, and checkpoints that are whole or absent.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.checkpoints import (
    find_checkpoint,
    fingerprint,
    load_config,
    load_tokenizer,
    quiet_transformers,
    save_model,
)
from prmkit.errors import MissingDependency, NothingToMeasure, RunFolderError
from prmkit.files import write_json
from prmkit.records import Record
from prmkit.settings import above, at_least
from prmkit.training import loop
from prmkit.training.batches import BatchSettings, plan_steps, steps_of_an_epoch
from prmkit.training.checkpoints import newest, sweep
from prmkit.training.implicit import ImplicitSettings
from prmkit.training.kinds import Family, KindName, examples_of, family_of, objective
from prmkit.training.losses import LossName
from prmkit.training.objective import Objective, Place
from prmkit.training.targets import Dropped, Example, Weighting

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained, and how.

    Attributes:
        base: folder, or id on the hub, of the language model (or earlier model) to start from.
        out: folder of the model; checkpoints lie beside it in ``OUT.checkpoints``.
        kind: step (two classes), value (one number), tokens (two tokens of the language model),
            classes (human ratings), rank (PQM), pairs (alternatives of a step), outcome (an
            outcome reward model), outcome_tokens (one at every token), implicit (a log-ratio to a
            reference, from outcomes) or generative (critiques that agree with labels).
        family: how the model will read steps; by default the kind's own.
        loss: by default the kind's own; step, value, tokens and outcome also take squared_error,
            outcome_tokens cross_entropy, implicit preference (DPO).
        weighting: certainty weighs each label by how sure its maker was.
        epochs: passes over the data.
        learning_rate: peak of the cosine schedule.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        max_tokens: longer solutions lose their last steps, and are counted; by default the
            model's limit.
        checkpoint_gradients: compute activations again instead of keeping them.
        save_every: optimiser steps between checkpoints.
        seed: of the head's first weights and of the order.
    """

    base: str
    out: Path = Path("runs/train")
    kind: KindName = "step"
    family: str | None = None
    loss: LossName | None = None
    weighting: Weighting = "none"
    epochs: float = 1.0
    learning_rate: float = 1e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_tokens: int | None = None
    checkpoint_gradients: bool = False
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        above(0, epochs=self.epochs, learning_rate=self.learning_rate)
        at_least(1, save_every=self.save_every)
        at_least(0, warmup=self.warmup, weight_decay=self.weight_decay)
        if self.max_tokens is not None:
            at_least(1, max_tokens=self.max_tokens)


class TrainResult(NamedTuple):
    """What a training run did.

    Attributes:
        out: the folder of the model.
        n_examples: solutions trained on.
        n_labels: labels among them: of steps, or of tokens where those are taught.
        dropped: what was not trained on.
        losses: (optimiser step, mean loss of an item) as logged.
    """

    out: Path
    n_examples: int
    n_labels: int
    dropped: Dropped
    losses: list[tuple[int, float]]


class Prepared(NamedTuple):
    """What will be trained, before a model is loaded.

    Attributes:
        family: how it reads.
        objective: what it learns.
        examples: from what.
        dropped: what is left out.
        tokenizer: of the base.
        limit: tokens of a sequence at most.
    """

    family: Family
    objective: Objective
    examples: list[Example]
    dropped: Dropped
    tokenizer: Any
    limit: int | None


def prepare(
    records: Sequence[Record],
    settings: TrainSettings,
    implicit: ImplicitSettings | None = None,
) -> Prepared:
    """Render what will be trained on; no weights are loaded.

    Args:
        records: see `train`.
        settings: see `TrainSettings`.
        implicit: of the kind implicit.

    Raises:
        CheckpointError: if the base has no tokenizer, or it lacks a token that is needed.
        InvalidRecord: if a record has no labels, or of another kind.
        InvalidSetting: if kind, family, loss and other settings do not go together.
        NothingToMeasure: if no record gives an example, or there is nothing to tell apart.
        UnknownName: if there is no such family.
    """
    kind, weighting = settings.kind, settings.weighting
    base = find_checkpoint(settings.base)
    family = family_of(kind, settings.family)
    tokenizer = load_tokenizer(base)
    limit = settings.max_tokens or getattr(load_config(base), "max_position_embeddings", None)
    aim = objective(kind, family, tokenizer, settings.loss, implicit=implicit, weighting=weighting)
    examples, dropped = examples_of(records, kind, family, tokenizer, limit, weighting)
    if not examples:
        why = [
            f"{n} {what}"
            for n, what in (
                (dropped.unlabelled, "have no label"),
                (dropped.too_long, f"do not fit into {limit} tokens"),
                (dropped.disagree, "critiques disagree with the labels"),
                (dropped.unreadable, "critiques have no verdict"),
            )
            if n
        ]
        raise NothingToMeasure(
            f"none of {len(records)} records can be trained on: {', '.join(why) or 'there is none'}"
        )
    targets = {target for example in examples for target in example.targets}
    if len(targets) == 1 and kind != "generative":
        raise NothingToMeasure(
            f"all labels are {targets.pop():g}: there is nothing to tell apart. Are the labels "
            "those of --threshold and --neutral that you mean?"
        )
    if not aim.items(examples):
        raise NothingToMeasure(
            f"the loss {aim.loss} has nothing to compare: no two of {len(examples)} solutions are "
            "a better and a worse one of the same problem (of the same prefix, where steps are "
            "compared)"
        )
    return Prepared(family, aim, examples, dropped, tokenizer, limit)


def train(
    records: Sequence[Record],
    settings: TrainSettings,
    *,
    batches: BatchSettings | None = None,
    implicit: ImplicitSettings | None = None,
    on_progress: loop.Told | None = None,
) -> TrainResult:
    """Train a model and write it, whole, to ``settings.out``.

    Interrupted, it resumes from the newest checkpoint when called again with the same settings.
    Started by torchrun it runs as one of several processes, which learn what one would.

    Args:
        records: with labels of the kind; with outcomes (``trajectory.correct``, or the label of
            the last labelled step) or with critiques (`prmkit.training.critiques`) where those
            are learnt.
        settings: see `TrainSettings`.
        batches: see `BatchSettings`.
        implicit: of the kind implicit; see `ImplicitSettings`.
        on_progress: told the optimiser steps done, their total, and what is logged.

    Raises:
        CheckpointError: if the model to start from cannot be loaded.
        RunFolderError: if the checkpoints beside ``out`` belong to other settings or data, or
            are damaged.
        PrmkitError: as `prepare`, or if the loss is no finite number.
    """
    batches = batches or BatchSettings()
    implicit = implicit or ImplicitSettings()
    prepared = prepare(records, settings, implicit)
    if prepared.dropped:
        logger.warning("left out: %s", prepared.dropped)
    n_solutions = len({example.solution for example in prepared.examples})
    n_steps = max(1, round(settings.epochs * steps_of_an_epoch(n_solutions, batches)))
    folder = settings.out.with_name(settings.out.name + ".checkpoints")
    world, rank = _processes()
    first = rank == 0
    if first:
        sweep(folder / ".aside")
        _claim(folder, settings, batches, implicit, prepared.examples)
    model = loop.trainable(_start(settings, prepared.objective), prepared.objective)
    place = Place(find_checkpoint(settings.base), folder, batches, rank, world)
    examples = prepared.objective.complete(prepared.examples, model, place)
    plans = plan_steps(
        examples,
        n_steps,
        batches,
        world=world,
        seed=settings.seed,
        together=prepared.objective.together,
    )
    steps = loop.Steps(examples, plans, prepared.objective, batches.share)
    with quiet_transformers():
        logged = loop.run(
            model, steps, _loop_settings(settings, n_steps), folder,
            resume=newest(folder), on_progress=on_progress,
        )  # fmt: skip
    if first:
        note = {
            "family": prepared.family.name,
            "trained_from": Path(settings.base).name,
            "kind": settings.kind,
            "loss": prepared.objective.loss,
            **prepared.objective.note(_found_again(settings.base)),
        }
        save_model(settings.out, loop.released(model), prepared.tokenizer, note)
        shutil.rmtree(folder)
    n_labels = sum(len(example.targets) for example in prepared.examples)
    losses = [(step, entry["loss"]) for step, entry in logged]
    return TrainResult(settings.out, n_solutions, n_labels, prepared.dropped, losses)


def _found_again(name: str) -> str:
    """A model as it is found from another folder too."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _processes() -> tuple[int, int]:
    """How many processes train, and which of them this is."""
    return int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def _start(settings: TrainSettings, aim: Objective) -> Any:
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise MissingDependency("accelerate", "train", "training") from None
    from transformers import set_seed

    set_seed(settings.seed)
    return aim.start(find_checkpoint(settings.base)).train()


def _loop_settings(settings: TrainSettings, n_steps: int) -> loop.LoopSettings:
    import torch

    return loop.LoopSettings(
        n_steps=n_steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        save_every=settings.save_every,
        seed=settings.seed,
        bf16=torch.cuda.is_available(),
        checkpoint_gradients=settings.checkpoint_gradients,
        report_to=(),
    )


_FREE = ("out", "save_every")
"""Settings on which what is learnt does not depend."""


def _claim(
    folder: Path,
    settings: TrainSettings,
    batches: BatchSettings,
    implicit: ImplicitSettings,
    examples: Sequence[Example],
) -> None:
    """Mark the checkpoint folder with what it belongs to, or refuse another's."""
    told = {k: v for k, v in asdict(settings).items() if k not in _FREE} | asdict(implicit)
    claim = {
        "settings": {key: str(value) for key, value in told.items()},
        "batch_size": batches.batch_size,
        "group": batches.group,
        "base": fingerprint(find_checkpoint(settings.base)),
        "examples": _digest(examples),
    }
    file = folder / "claim.json"
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there != claim:
            names = [k for k in claim if there.get(k) != claim[k]]
            raise RunFolderError(
                f"{folder} holds checkpoints of a run with other settings or data (different: "
                f"{', '.join(names)}). Give another output folder, or remove it"
            )
        return
    write_json(file, claim)


def _digest(examples: Sequence[Example]) -> str:
    import hashlib

    told = hashlib.sha256()
    for example in examples:
        told.update(json.dumps([getattr(example, f) for f in example._fields]).encode())
    return told.hexdigest()
