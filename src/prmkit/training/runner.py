"""The loop: `transformers.Trainer` over whole optimiser steps, in one process or in several.

Checkpoints are written aside, sealed and renamed by the first process; what they hold does not
depend on how many processes there are. Where the model is judged on the way, the best checkpoint
stays, and training ends when it has not been beaten for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.errors import InvalidSetting, PrmkitError
from prmkit.training import states
from prmkit.training.checkpoints import seal, sweep
from prmkit.training.loop import Steps
from prmkit.training.settings import LOWER_IS_BETTER

STATE_FILE = "trainer_state.json"
METRICS_FILE = "metrics.jsonl"
_MEAN_FILE = "mean.json"
"""What the next mean loss to be logged already adds up."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop runs; see `prmkit.training.trainer.TrainSettings` and its like."""

    n_steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    save_every: int
    seed: int
    bf16: bool
    checkpoint_gradients: bool
    sharded: bool
    report_to: tuple[str, ...]
    name: str
    eval_every: int = 0
    patience: int | None = None
    best_by: str = ""


Told = Callable[[int, int, Mapping[str, float]], None]
"""Told the steps done, of how many, and what was logged."""

Look = Callable[[Any], Mapping[str, float]]
"""Judges the model in training; all processes call it, and all get the figures."""

Entry = Mapping[str, float]
"""What was logged: step, and loss, learning_rate, grad_norm or figures of an evaluation."""


class Progress(NamedTuple):
    """How the judged steps went.

    Attributes:
        best: the step with the best figure, the first of equals; None before any was judged.
        stop: whether the figure has not been beaten for long enough.
    """

    best: int | None
    stop: bool


def progress_of(log: Iterable[Entry], best_by: str, patience: int | None) -> Progress:
    """The best judged step so far, and whether it has not been beaten `patience` times."""
    best, value, since = None, float("-inf"), 0
    sign = -1 if best_by in LOWER_IS_BETTER else 1
    for entry in log:
        if (told := entry.get(f"eval_{best_by}")) is None:
            continue
        since += 1
        figure = sign * told
        if figure > value:
            best, value, since = int(entry["step"]), figure, 0
    return Progress(best, patience is not None and since >= patience)


def log_of(checkpoint: Path) -> tuple[int, list[Entry]]:
    """The step of a checkpoint, and what had been logged until then."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return state["global_step"], state["log_history"]


def run(
    model: Any,
    steps: Steps,
    settings: LoopSettings,
    folder: Path,
    *,
    resume: Path | None = None,
    look: Look | None = None,
    on_progress: Told | None = None,
) -> None:
    """Train to the end; the checkpoints in `folder` are what comes of it.

    Args:
        model: made `trainable`.
        steps: what is done.
        settings: see `LoopSettings`.
        folder: of the checkpoints, and of ``metrics.jsonl``.
        resume: the checkpoint to go on from.
        look: judges the model on the way.
        on_progress: told how far it is.

    Raises:
        PrmkitError: if the loss is no finite number.
    """
    arguments = _arguments(settings, folder)
    trainer = _trainer(model, steps, settings, arguments, folder, look, on_progress, resume)
    if trainer.args.should_save:
        _cut_metrics(folder / METRICS_FILE, log_of(resume)[0] if resume else 0)
    with _patient_torch():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)


@contextlib.contextmanager
def _patient_torch() -> Iterator[None]:
    """Without warnings about the insides of torch and accelerate, which no user can heed."""
    with warnings.catch_warnings():
        for category in (FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|accelerate)\b.*")
        yield


def _trainer(
    model: Any,
    steps: Steps,
    settings: LoopSettings,
    arguments: Any,
    folder: Path,
    look: Look | None,
    on_progress: Told | None,
    resume: Path | None,
) -> Any:
    from transformers.trainer_callback import PrinterCallback

    trainer = _step_trainer()(
        model=model,
        args=arguments,
        train_dataset=steps,
        data_collator=lambda items: items[0],
        callbacks=[_listener(folder, on_progress)],
    )
    trainer.prmkit_folder, trainer.prmkit_settings = folder, settings
    trainer.prmkit_look, trainer.prmkit_looked = look, None
    trainer.prmkit_resume = resume
    trainer.remove_callback(PrinterCallback)
    return trainer


def _listener(folder: Path, on_progress: Told | None) -> Any:
    """Writes the metrics, and tells how far the training is."""
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # A resumed Trainer would go by the checkpoint's.
            state.save_steps = args.save_steps

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_progress is not None:
                on_progress(state.global_step, state.max_steps, {})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            if not logs or ("loss" not in logs and not any(k.startswith("eval_") for k in logs)):
                # A summary at the end, of this process' life alone.
                return
            if args.should_save:
                _append(folder / METRICS_FILE, {"step": state.global_step, **logs})
            if on_progress is not None:
                on_progress(state.global_step, state.max_steps, logs)

    return Listener()


def _append(file: Path, entry: Entry) -> None:
    """A line at the end of a file, in one write: a reader sees it whole."""
    line = (json.dumps(entry) + "\n").encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def _cut_metrics(file: Path, step: int) -> None:
    """Leave out what was logged after a step, which is done again, and what a kill cut off."""
    from prmkit.files import atomic_text

    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    with atomic_text(file) as out:
        out.writelines(f"{line}\n" for line in kept)


def _saving() -> type[Any]:
    """A Trainer whose checkpoints are sealed, and the same for any number of processes."""
    from transformers import Trainer

    class SavingTrainer(Trainer):
        prmkit_folder: Path
        prmkit_settings: LoopSettings
        prmkit_resume: Path | None

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            # Aside, then sealed and renamed: a checkpoint is whole or absent.
            del model, trial
            folder, first = self.prmkit_folder, self.args.should_save
            place = folder / ".aside" / f"checkpoint-{self.state.global_step}"
            if first:
                sweep(folder / ".aside")
                place.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            states.save(self.model, self._own_optimizer(), self.lr_scheduler, place, first=first)
            self._save_rng_state(str(place))
            # The mean over processes is the loss of the step; each goes on with it.
            mean = self.accelerator.gather(self._tr_loss).mean().item()
            if first:
                since = {"sum": mean, "since": self._globalstep_last_logged}
                (place / _MEAN_FILE).write_text(json.dumps(since), encoding="utf-8")
                self.state.save_to_json(str(place / STATE_FILE))
            self.accelerator.wait_for_everyone()
            if first:
                how = self.prmkit_settings
                best = progress_of(self.state.log_history, how.best_by, None).best
                seal(place, folder, keep=2, also=best)
            self.accelerator.wait_for_everyone()

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            states.load_weights(model or self.model, Path(resume_from_checkpoint))

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            if checkpoint is not None:
                own = self._own_optimizer()
                states.load_optimizer(self.model, own, self.lr_scheduler, Path(checkpoint))

        def _own_optimizer(self) -> Any:
            """The optimiser inside of accelerate's."""
            wrapped: Any = self.optimizer
            return wrapped.optimizer

        def _go_on_with_mean(self) -> None:
            """After a resume: the losses that the next mean adds up, as they were."""
            resume, self.prmkit_resume = self.prmkit_resume, None
            if resume is None:
                return
            mean = json.loads((resume / _MEAN_FILE).read_text(encoding="utf-8"))
            self._tr_loss += mean["sum"]
            self._globalstep_last_logged = mean["since"]

    return SavingTrainer


def _step_trainer() -> type[Any]:
    """The Trainer's class, made when transformers is needed."""
    import torch
    from torch.utils.data import SequentialSampler

    base: Any = _saving()

    class StepTrainer(base):  # type: ignore[misc]
        prmkit_look: Look | None
        prmkit_looked: int | None

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            del train_dataset
            steps: Any = self.train_dataset
            return SequentialSampler(steps)

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            del num_items_in_batch
            self._go_on_with_mean()
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

        def _maybe_log_save_evaluate(self, *told: Any, **more: Any) -> None:
            step, look = self.state.global_step, self.prmkit_look
            every = self.prmkit_settings.eval_every
            due = step == self.state.max_steps or (every and step % every == 0)
            if look is not None and due and step != self.prmkit_looked:
                self.prmkit_looked = step
                # Logging the figures must not stand for logging the loss.
                also, how = self.control.should_log, self.prmkit_settings
                figures = look(self.model)
                if how.best_by not in figures:
                    raise InvalidSetting(
                        f"best_by is {how.best_by!r}; the figures are {', '.join(figures)}"
                    )
                self.log({f"eval_{name}": value for name, value in figures.items()})
                self.control.should_log = also
                found = progress_of(self.state.log_history, how.best_by, how.patience)
                if found.stop or found.best == step:
                    self.control.should_save = True
                if found.stop:
                    self.control.should_training_stop = True
            super()._maybe_log_save_evaluate(*told, **more)

    return StepTrainer


def _arguments(settings: LoopSettings, folder: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    sharded: dict[str, Any] = {}
    if settings.sharded:
        sharded = {
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "activation_checkpointing": settings.checkpoint_gradients,
            },
        }
    recompute = settings.checkpoint_gradients and not settings.sharded
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.n_steps,
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.n_steps * settings.warmup),
        bf16=settings.bf16,
        activation_checkpointing=recompute,
        activation_checkpointing_kwargs={"use_reentrant": False} if recompute else None,
        logging_steps=max(1, settings.n_steps // 50),
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        seed=settings.seed,
        report_to=list(settings.report_to) or "none",
        project="prmkit",
        run_name=settings.name,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        accelerator_config={"dispatch_batches": False, "even_batches": False},
        **sharded,
    )
    # Several GPUs of one process are not several processes: start those with torchrun.
    if not torch.distributed.is_initialized():
        arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
