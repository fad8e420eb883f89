"""Trains models that score steps: records in, a model folder out.

The loop is `transformers.Trainer`; what is ours is the rendering (the scorer's), the losses, their
normalisation, which solutions make a step, and checkpoints that are whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.checkpoints import (
    find_checkpoint,
    fingerprint,
    load_config,
    load_tokenizer,
    quiet_transformers,
    read_note,
    save_model,
)
from prmkit.errors import InvalidSetting, MissingDependency, NothingToMeasure, PrmkitError
from prmkit.records import Record
from prmkit.scorers.families.base import Discriminative
from prmkit.settings import above, at_least
from prmkit.training import loop, runner, states
from prmkit.training.adapters import AdapterSettings, adapted, merged
from prmkit.training.batches import BatchSettings, StepPlan, plan_steps, steps_of_an_epoch
from prmkit.training.card import card
from prmkit.training.checkpoints import (
    Claim,
    alone,
    check_free,
    checked,
    discard,
    folder_of,
    is_finished,
    meet,
    newest,
    tidy,
)
from prmkit.training.episodes import PromiseSettings, make_episodes, make_transitions
from prmkit.training.implicit import ImplicitSettings
from prmkit.training.kinds import Family, KindName, examples_of, family_of, objective
from prmkit.training.looks import Judge, Looks
from prmkit.training.losses import LossName
from prmkit.training.objective import Objective, Place
from prmkit.training.settings import MachineSettings, WatchSettings
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
            value progress (agents' promise, and what each step gained) and inverse (what a turn
            changed tells demonstrations from a learner's episodes), outcome_tokens cross_entropy,
            implicit preference (DPO).
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
        if self.warmup > 1:
            raise InvalidSetting(f"warmup is {self.warmup!r}; it is a share of the steps, up to 1")
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
        figures: of the held-out solutions, by the model that was kept; empty without any.
        best_step: the optimiser step of that model.
    """

    out: Path
    n_examples: int
    n_labels: int
    dropped: Dropped
    losses: list[tuple[int, float]]
    figures: dict[str, float]
    best_step: int


class Prepared(NamedTuple):
    """What will be trained, before a model is loaded.

    Attributes:
        family: how it reads.
        objective: what it learns.
        examples: from what.
        dropped: what is left out.
        tokenizer: of the base.
        limit: tokens of a sequence at most.
        told: what else is worth knowing of the examples, in words.
    """

    family: Family
    objective: Objective
    examples: list[Example]
    dropped: Dropped
    tokenizer: Any
    limit: int | None
    told: tuple[str, ...] = ()


def prepare(
    records: Sequence[Record],
    settings: TrainSettings,
    implicit: ImplicitSettings | None = None,
    promises: PromiseSettings | None = None,
    learner: Sequence[Record] = (),
) -> Prepared:
    """Render what will be trained on; no weights are loaded.

    Args:
        records: see `train`.
        settings: see `TrainSettings`.
        implicit: of the kind implicit.
        promises: of the kind value.
        learner: episodes, of the loss inverse.

    Raises:
        CheckpointError: if the base has no tokenizer, or it lacks a token that is needed.
        InvalidRecord: if a record has no labels, or of another kind.
        InvalidSetting: if kind, family, loss and other settings do not go together.
        NothingToMeasure: if no record gives an example, or there is nothing to tell apart.
        UnknownName: if there is no such family.
    """
    kind, weighting = settings.kind, settings.weighting
    base = find_checkpoint(settings.base)
    family = family_of(kind, settings.family, settings.loss)
    tokenizer = load_tokenizer(base)
    limit: int | None = getattr(load_config(base), "max_position_embeddings", None)
    if limit is not None and settings.max_tokens is not None and settings.max_tokens > limit:
        raise InvalidSetting(
            f"max_tokens is {settings.max_tokens}, and the model in {str(base)!r} reads {limit}"
        )
    limit = settings.max_tokens or limit
    promises = promises or PromiseSettings()
    aim = objective(
        kind, family, tokenizer, settings.loss,
        implicit=implicit, promises=promises, weighting=weighting,
    )  # fmt: skip
    if bool(learner) != (aim.loss == "inverse"):
        raise InvalidSetting(
            "the loss inverse tells demonstrations from episodes of a learner, and no other loss "
            f"takes those (--learner); given are {len(learner)} with the loss {aim.loss}"
        )
    told: tuple[str, ...] = ()
    if promises.temporal or aim.loss == "inverse":
        assert isinstance(family, Discriminative)
        examples, dropped, told = (
            make_episodes(records, family, tokenizer, limit, promises)
            if promises.temporal
            else make_transitions(records, learner, family, tokenizer, limit)
        )
    else:
        examples, dropped = examples_of(records, kind, family, tokenizer, limit, weighting)
    if not examples:
        raise NothingToMeasure(_why_nothing(dropped, len(records), limit, promises))
    targets = {target for example in examples for target in example.targets}
    if kind != "generative" and (len(targets) == 1 or max(targets) <= 0):
        shown = ", ".join(f"{target:g}" for target in sorted(targets))
        raise NothingToMeasure(
            f"all labels are {shown}: there is nothing to tell apart. Are the labels those of "
            "--threshold and --neutral that you mean?"
        )
    if not aim.items(examples):
        raise NothingToMeasure(
            f"the loss {aim.loss} has nothing to compare: no two of {len(examples)} solutions are "
            "a better and a worse one of the same problem (of the same prefix, where steps are "
            "compared)"
        )
    return Prepared(family, aim, examples, dropped, tokenizer, limit, told)


def _why_nothing(dropped: Dropped, n: int, limit: int | None, promises: PromiseSettings) -> str:
    missing = "have no known outcome" if promises.temporal else "have no label"
    why = [
        f"{count} {what}"
        for count, what in (
            (dropped.unlabelled, missing),
            (dropped.too_long, f"do not fit into {limit} tokens"),
            (dropped.disagree, "critiques disagree with the labels"),
            (dropped.unreadable, "critiques have no verdict"),
        )
        if count
    ]
    return f"none of {n} records can be trained on: {', '.join(why) or 'there is none'}"


class HeldOut(NamedTuple):
    """What a model in training is judged by.

    Attributes:
        records: labelled solutions that it is not trained on.
        judge: figures of how they were scored.
    """

    records: Sequence[Record]
    judge: Judge


class Parts(NamedTuple):
    """The settings of a run beside `TrainSettings`."""

    batches: BatchSettings = BatchSettings()
    machine: MachineSettings = MachineSettings()
    adapters: AdapterSettings = AdapterSettings()
    watch: WatchSettings = WatchSettings()
    implicit: ImplicitSettings = ImplicitSettings()
    promises: PromiseSettings = PromiseSettings()

    @classmethod
    def of(
        cls,
        batches: BatchSettings | None = None,
        machine: MachineSettings | None = None,
        adapters: AdapterSettings | None = None,
        watch: WatchSettings | None = None,
        implicit: ImplicitSettings | None = None,
        promises: PromiseSettings | None = None,
    ) -> Parts:
        """The settings that are given, and defaults for the others."""
        return cls(
            batches or BatchSettings(),
            machine or MachineSettings(),
            adapters or AdapterSettings(),
            watch or WatchSettings(),
            implicit or ImplicitSettings(),
            promises or PromiseSettings(),
        )


def train(
    records: Sequence[Record],
    settings: TrainSettings,
    *,
    batches: BatchSettings | None = None,
    machine: MachineSettings | None = None,
    adapters: AdapterSettings | None = None,
    watch: WatchSettings | None = None,
    implicit: ImplicitSettings | None = None,
    promises: PromiseSettings | None = None,
    learner: Sequence[Record] = (),
    held_out: HeldOut | None = None,
    sources: Sequence[str] = (),
    on_progress: runner.Told | None = None,
) -> TrainResult:
    """Train a model and write it, whole, to ``settings.out``.

    Interrupted, it resumes from the newest checkpoint when called again with the same settings;
    finished, it returns at once. Started by torchrun it runs as one of several processes, which
    learn what one would; how many there are may change on the way.

    Args:
        records: with labels of the kind; with outcomes (``trajectory.correct``, or the label of
            the last labelled step) or with critiques (`prmkit.training.critiques`) where those
            are learnt; episodes with outcomes where targets are temporal, demonstrations where the
            loss is inverse.
        settings: see `TrainSettings`.
        batches: see `BatchSettings`.
        machine: see `MachineSettings`.
        adapters: see `AdapterSettings`.
        watch: see `WatchSettings`.
        implicit: of the kind implicit; see `ImplicitSettings`.
        promises: of the kind value; see `PromiseSettings`.
        learner: of the loss inverse: episodes of learners so far.
        held_out: what the model is judged by on the way and at the end.
        sources: where the records are from, a line each, for the model's card.
        on_progress: told the optimiser steps done, their total, and what is logged.

    Raises:
        CheckpointError: if the model to start from cannot be loaded.
        RunFolderError: if there is something else at ``out``; or the checkpoints beside it belong
            to other settings or data, or are damaged, or another process is at work there.
        PrmkitError: as `prepare`, or if the loss is no finite number.
    """
    parts = Parts.of(batches, machine, adapters, watch, implicit, promises)
    world, first = processes()
    parts.machine.check(world)
    parts.watch.check(held_out is not None)
    curves = parts.watch.curves()
    prepared = prepare(records, settings, parts.implicit, parts.promises, learner)
    if prepared.dropped and first:
        logger.warning("left out: %s", prepared.dropped)
    look = looks_of(held_out, prepared, parts.batches)
    n_steps = n_steps_of(prepared, settings, parts.batches)
    claim = _claim(settings, parts, prepared.examples, held_out)
    _check_installed()
    folder = folder_of(settings.out)
    if is_finished(settings.out, claim):
        if first:
            tidy(folder, claim)
        if on_progress is not None:
            on_progress(n_steps, n_steps, {})
        return _result(settings.out, prepared)
    check_free(settings.out, _models(settings, parts))
    with alone(folder, claim, first=first):
        resume = newest(folder)
        if resume is None or not _is_last(resume, n_steps, parts.watch):
            how = _loop_settings(settings, parts, n_steps, curves, claim)
            _run(prepared, settings, parts, how, folder, world, resume, look, on_progress)
        # All have looked at the checkpoints before they go, and the model is there for all.
        meet()
        if first:
            _export(settings, parts, prepared, folder, claim, sources)
        meet()
    return _result(settings.out, prepared)


def _models(settings: TrainSettings, parts: Parts) -> list[Path]:
    """The folders of the models that a training reads."""
    names = (settings.base, parts.implicit.reference)
    return [find_checkpoint(name) for name in names if name is not None]


def processes() -> tuple[int, bool]:
    """How many processes train, and whether this is the first."""
    return int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"


def n_steps_of(prepared: Prepared, settings: TrainSettings, batches: BatchSettings) -> int:
    """The optimiser steps of a run."""
    n_solutions = len({example.solution for example in prepared.examples})
    return max(1, round(settings.epochs * steps_of_an_epoch(n_solutions, batches)))


def plans_of(
    prepared: Prepared, settings: TrainSettings, batches: BatchSettings, n_steps: int, world: int
) -> list[StepPlan]:
    """The optimiser steps of a run, with what each process does in them."""
    return plan_steps(
        prepared.examples,
        n_steps,
        batches,
        world=world,
        seed=settings.seed,
        together=prepared.objective.together,
    )


def _run(
    prepared: Prepared,
    settings: TrainSettings,
    parts: Parts,
    how: runner.LoopSettings,
    folder: Path,
    world: int,
    resume: Path | None,
    look: runner.Look | None,
    on_progress: runner.Told | None,
) -> None:
    model = loop.trainable(_start(settings, parts, prepared), prepared.objective)
    rank = int(os.environ.get("RANK", "0"))
    base = find_checkpoint(settings.base)
    place = Place(base, folder, parts.batches, rank, world, parts.machine.bf16)
    examples = prepared.objective.complete(prepared.examples, model, place)
    plans = plans_of(prepared, settings, parts.batches, how.n_steps, world)
    steps = loop.Steps(examples, plans, prepared.objective, parts.batches.share)
    with quiet_transformers():
        runner.run(
            model, steps, how, folder, resume=resume, look=look, on_progress=on_progress
        )  # fmt: skip


def _check_installed() -> None:
    if find_spec("accelerate") is None:
        raise MissingDependency("accelerate", "train", "training")


def looks_of(
    held_out: HeldOut | None, prepared: Prepared, batches: BatchSettings
) -> runner.Look | None:
    """What judges a model in training; None where nothing is held out.

    Raises:
        InvalidSetting: if models of the kind cannot be judged on the way.
    """
    if held_out is None:
        return None
    if not isinstance(prepared.family, Discriminative):
        raise InvalidSetting(
            f"models of the family {prepared.family.name} are not read by a head, so held-out "
            "solutions cannot be scored on the way; leave out --eval, and evaluate the model after"
        )
    return Looks(
        held_out.records,
        prepared.family,
        prepared.tokenizer,
        prepared.limit,
        held_out.judge,
        batches.pass_tokens,
    )


def _start(settings: TrainSettings, parts: Parts, prepared: Prepared) -> Any:
    """The model before its training, the same in each process."""
    from transformers import set_seed

    set_seed(settings.seed)
    model = prepared.objective.start(find_checkpoint(settings.base))
    return adapted(model, parts.adapters) if parts.adapters.lora_rank else model


def _is_last(checkpoint: Path, n_steps: int, watch: WatchSettings) -> bool:
    """Whether training ended with a checkpoint."""
    step, log = runner.log_of(checkpoint)
    return step >= n_steps or runner.progress_of(log, watch.best_by, watch.patience).stop


def _export(
    settings: TrainSettings,
    parts: Parts,
    prepared: Prepared,
    folder: Path,
    claim: Claim,
    sources: Sequence[str],
) -> None:
    """Write the model of the best checkpoint, or of the last one, and leave nothing beside it."""
    last = newest(folder)
    assert last is not None
    _, log = runner.log_of(last)
    best = runner.progress_of(log, parts.watch.best_by, None).best
    chosen = last if best is None else checked(folder / f"checkpoint-{best}")
    model = _start(settings, parts, prepared)
    states.load_weights(model, chosen)
    if parts.adapters.lora_rank:
        model = merged(model)
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise PrmkitError(
            f"the weights of {chosen} are no finite numbers; remove {folder}, and give a lower "
            "learning rate"
        )
    step = int(chosen.name.removeprefix("checkpoint-"))
    note = {
        "family": prepared.family.name,
        "trained_from": Path(settings.base).name,
        "kind": settings.kind,
        "loss": prepared.objective.loss,
        "step": step,
        "run": claim.digest,
        **prepared.objective.note(settings.base),
    }
    files = {
        runner.METRICS_FILE: (folder / runner.METRICS_FILE).read_text(encoding="utf-8"),
        "README.md": card(
            settings, parts, prepared, figures_at(log, step), step, sources
        ),
    }  # fmt: skip
    save_model(settings.out, model, prepared.tokenizer, note, files)
    discard(folder)


def figures_at(log: Iterable[Mapping[str, float]], step: int) -> dict[str, float]:
    """The figures of an evaluation."""
    return {
        name.removeprefix("eval_"): value
        for entry in log
        if entry["step"] == step
        for name, value in entry.items()
        if name.startswith("eval_")
    }


def _result(out: Path, prepared: Prepared) -> TrainResult:
    text = (out / runner.METRICS_FILE).read_text(encoding="utf-8")
    log = [json.loads(line) for line in text.splitlines()]
    step = int(read_note(out)["step"])
    return TrainResult(
        out,
        len({example.solution for example in prepared.examples}),
        sum(len(example.targets) for example in prepared.examples),
        prepared.dropped,
        [(entry["step"], entry["loss"]) for entry in log if "loss" in entry],
        figures_at(log, step),
        step,
    )


def _loop_settings(
    settings: TrainSettings, parts: Parts, n_steps: int, curves: tuple[str, ...], claim: Claim
) -> runner.LoopSettings:
    return runner.LoopSettings(
        n_steps=n_steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        save_every=settings.save_every,
        seed=settings.seed,
        bf16=parts.machine.bf16,
        checkpoint_gradients=settings.checkpoint_gradients,
        sharded=parts.machine.parallel == "sharded",
        report_to=curves,
        # Trackers go on with a run of the same name: this one's, interrupted, and no other's.
        name=f"{settings.out.name}-{claim.digest[:8]}",
        eval_every=parts.watch.eval_every,
        patience=parts.watch.patience,
        best_by=parts.watch.best_by,
    )


_FREE = ("base", "out", "save_every", "checkpoint_gradients")
"""Settings on which what is learnt does not depend; the files of models count, not their place."""


def _claim(
    settings: TrainSettings,
    parts: Parts,
    examples: Sequence[Example],
    held_out: HeldOut | None,
) -> Claim:
    """What the checkpoints of a run belong to."""
    told = {k: v for k, v in asdict(settings).items() if k not in _FREE}
    told |= asdict(parts.implicit) | asdict(parts.adapters) | asdict(parts.promises)
    told["precision"] = "bf16" if parts.machine.bf16 else "float32"
    if parts.implicit.reference is not None:
        told["reference"] = fingerprint(find_checkpoint(parts.implicit.reference))
    if held_out is not None:
        told |= {k: v for k, v in asdict(parts.watch).items() if k != "report_to"}
    judged = held_out.records if held_out else ()
    return Claim(
        {
            "settings": {key: str(value) for key, value in told.items()},
            "batch_size": parts.batches.batch_size,
            "group": parts.batches.group,
            "base": fingerprint(find_checkpoint(settings.base)),
            "examples": _digest([getattr(e, f) for f in e._fields] for e in examples),
            "held out": _digest(record.model_dump(mode="json") for record in judged),
        }
    )


def _digest(items: Iterable[Any]) -> str:
    told = hashlib.sha256()
    for item in items:
        told.update(json.dumps(item).encode())
    return told.hexdigest()
