"""``prm train``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, bars, figures, out, print_json, say
from prmkit.cli.held_out import judged_by_outcomes
from prmkit.cli.names import model_folder
from prmkit.errors import FormatError, InvalidRecord, NothingToMeasure, UnknownName
from prmkit.formats.files import numbered_records
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Record, StepScores, Unscored
from prmkit.training.adapters import AdapterSettings
from prmkit.training.batches import BatchSettings
from prmkit.training.episodes import PromiseSettings
from prmkit.training.implicit import ImplicitSettings
from prmkit.training.kinds import KINDS
from prmkit.training.kinds import KindName as KindName
from prmkit.training.looks import Judge
from prmkit.training.losses import LossName as LossName
from prmkit.training.settings import EXTRA, MachineSettings, WatchSettings
from prmkit.training.targets import Weighting as Weighting
from prmkit.training.targets import taught_by
from prmkit.training.trainer import (
    HeldOut,
    Parts,
    TrainResult,
    TrainSettings,
    processes,
)
from prmkit.training.trainer import train as run


# The types of inherited options are looked up by their names in this module.
@dataclass(frozen=True, kw_only=True)
class _Settings(TrainSettings):
    __doc__ = TrainSettings.__doc__
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/train")


@dataclass(frozen=True, kw_only=True)
class _Batches(BatchSettings):
    __doc__ = BatchSettings.__doc__
    share: Annotated[bool, Parameter(negative="--no-share")] = True


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What the command does.

    Attributes:
        from_: format of the data; by default what its first rows say.
        eval: labelled solutions that are not trained on, by which the model is judged: first-error
            F1, and AUC within problems; with temporal targets episodes with outcomes: Brier score,
            temporal loss, and AUC within problems.
        learner: of the loss inverse: episodes of a learner, from which those that are trained on,
            demonstrations, are told; give it once per file, for all iterations so far.
        config: a TOML, JSON or YAML file of options by name; what is given here wins.
        dry_run: tell what would be trained, and load no weights.
        push: an id on the Hugging Face hub, ORG/NAME, where the finished model goes; the hub's
            token is that of `hf auth login`.
        json: print what was done as JSON.
    """

    from_: str | None = None
    eval: Path | None = None
    learner: Annotated[tuple[Path, ...], Parameter(name="--learner")] = ()
    config: Path | None = None
    dry_run: bool = False
    push: str | None = None
    json: bool = False


def train(
    data: Path,
    /,
    settings: Annotated[_Settings, Parameter(name="*")],
    *,
    task: Annotated[TaskSettings | None, Parameter(name="*")] = None,
    batches: Annotated[_Batches | None, Parameter(name="*")] = None,
    adapters: Annotated[AdapterSettings | None, Parameter(name="*")] = None,
    machine: Annotated[MachineSettings | None, Parameter(name="*")] = None,
    watch: Annotated[WatchSettings | None, Parameter(name="*")] = None,
    implicit: Annotated[ImplicitSettings | None, Parameter(name="*")] = None,
    promises: Annotated[PromiseSettings | None, Parameter(name="*")] = None,
    policy: Annotated[LabelPolicy | None, Parameter(name="*")] = None,
) -> int:
    """Train a model that scores steps, on labelled ones.

    Interrupted, it goes on from its last checkpoint when it is given again. Several processes are
    started by torchrun: torchrun --nproc-per-node 8 --no-python prm train …

    Args:
        data: labelled solutions, in any format that prm convert reads.
    """
    task, policy = task or TaskSettings(), policy or LabelPolicy()
    parts = Parts.of(batches, machine, adapters, watch, implicit, promises)
    parts.watch.curves()
    if task.push is not None:
        from prmkit.cli.push import check_hub

        check_hub(task.push)
    settings = replace(settings, base=str(model_folder(settings.base)))
    if (reference := parts.implicit.reference) is not None:
        found = replace(parts.implicit, reference=str(model_folder(reference)))
        parts = parts._replace(implicit=found)
    records = _records(data, task.from_, policy, settings, parts.promises)
    learner = [record for file in task.learner for _, record in numbered_records(file)]
    held_out = None
    if task.eval is not None:
        held_out = HeldOut(*_held_out(task.eval, policy, records, parts.promises))
        if parts.promises.temporal and parts.watch.best_by == WatchSettings.best_by:
            parts = parts._replace(watch=replace(parts.watch, best_by="brier"))
        _check_figure(held_out, parts.watch.best_by)
    parts.watch.check(held_out is not None)
    if task.dry_run:
        from prmkit.cli.rehearsal import rehearse

        return rehearse(records, settings, parts, held_out, learner, as_json=task.json)
    sources = [_source(data, policy), *(_source(file, policy) for file in task.learner)]
    sources += [_source(task.eval, None)] if task.eval else []
    result = _train(records, settings, parts, held_out, learner, sources, quiet=task.json)
    if processes()[1]:
        _tell(result, task, KINDS[settings.kind].unit)
    return INCOMPLETE if result.dropped else DONE


def _train(
    records: Sequence[Record],
    settings: TrainSettings,
    parts: Parts,
    held_out: HeldOut | None,
    learner: Sequence[Record],
    sources: Sequence[str],
    *,
    quiet: bool,
) -> TrainResult:
    notes: dict[str, str] = {}

    def told(done: int, total: int, logs: Mapping[str, float]) -> None:
        for name, shown in (("loss", "loss"), (f"eval_{parts.watch.best_by}", parts.watch.best_by)):
            if name in logs:
                notes[name] = f"{shown} {logs[name]:.3f}"
        progress("train", done, total, "  ".join(notes.values()))

    quiet = quiet or not processes()[1]
    if not quiet and parts.watch.report_to == "auto" and not parts.watch.curves():
        say(f"no live curves: trackio is not installed (the extra {EXTRA}); see metrics.jsonl")
    # Trackers greet on standard output, which is for results.
    with bars(quiet=quiet) as progress, redirect_stdout(sys.stderr):
        return run(
            records,
            settings,
            **parts._asdict(),
            learner=learner,
            held_out=held_out,
            sources=sources,
            on_progress=told,
        )


def _records(
    data: Path,
    form: str | None,
    policy: LabelPolicy,
    settings: TrainSettings,
    promises: PromiseSettings,
) -> list[Record]:
    """The records of a file with their labels by the policy; the first bad one is an error."""
    records = []
    # Of critiques and of whole episodes, labels teach nothing.
    by_labels = not (settings.kind == "generative" or promises.temporal)
    by_labels &= settings.loss != "inverse"
    for line, record in numbered_records(data, form):
        labels = record.labels
        found = record if labels is None else record.replace(labels=policy.apply(labels))
        try:
            if by_labels:
                taught_by(found, KINDS[settings.kind].what)
        except InvalidRecord as error:
            raise FormatError(str(error), data, line) from None
        records.append(found)
    if not records:
        raise NothingToMeasure(f"{data} holds no solution")
    return records


def _held_out(
    file: Path, policy: LabelPolicy, records: Sequence[Record], promises: PromiseSettings
) -> tuple[list[Record], Judge]:
    """Solutions of which none is trained on, and what judges by them: labels, or outcomes."""
    trained = {_content(record) for record in records}
    found = []
    for line, record in numbered_records(file):
        labels = record.labels
        if promises.temporal and record.trajectory.correct is None:
            raise FormatError("this episode has no outcome to be judged by", file, line)
        if not promises.temporal and labels is None:
            raise FormatError("this solution has no labels to be judged by", file, line)
        if _content(record) in trained:
            raise FormatError("this solution is also trained on; hold it out", file, line)
        found.append(record if labels is None else record.replace(labels=policy.apply(labels)))
    if not found:
        raise NothingToMeasure(f"{file} holds no solution")
    if promises.temporal:
        return found, partial(judged_by_outcomes, settings=promises)
    return found, judged


def _content(record: Record) -> tuple[str, ...]:
    trajectory = record.trajectory
    return (trajectory.problem.text, *(step.text for step in trajectory.steps))


def judged(records: Sequence[Record], scored: Sequence[StepScores | Unscored]) -> dict[str, float]:
    """Figures of held-out solutions; those that cannot be told are left out.

    The F1 of the first wrong step is ProcessBench's, at the natural threshold 0.5. The AUC is over
    pairs of a right and a wrong step of the same problem.
    """
    from prmkit.evaluation.calibration import calibration
    from prmkit.evaluation.first_error import processbench_f1
    from prmkit.evaluation.ranking import within_group_auc

    labels = [record.labels for record in records]
    score = processbench_f1(scored, [one.first_error if one else None for one in labels])
    told = {"first_error_f1": score.f1}
    for name, accuracy in (("wrong", score.accuracy_wrong), ("right", score.accuracy_right)):
        if accuracy is not None:
            told[f"accuracy_{name}"] = accuracy
    values: list[float] = []
    right: list[bool] = []
    problems: list[str] = []
    for record, own in zip(records, scored, strict=True):
        if record.labels is None or isinstance(own, Unscored):
            continue
        for value, label in zip(own.values, record.labels.values, strict=True):
            if label is not None:
                values.append(value)
                right.append(label > 0.5)
                problems.append(record.trajectory.problem.text)
    if any(right) and not all(right):
        # Perhaps no problem has steps of both kinds.
        with suppress(NothingToMeasure):
            told["auc_within_problems"] = within_group_auc(values, right, problems).auc
    if values and all(0 <= value <= 1 for value in values):
        fit = calibration(values, right)
        told |= {"calibration_error": fit.expected_error, "brier": fit.brier}
    return told | {"unscored": float(score.n_unscored)}


def _check_figure(held_out: HeldOut, name: str) -> None:
    """Refuse to choose by a figure that cannot be told of these solutions, whatever their scores.

    Raises:
        UnknownName: naming those that can.
    """
    even = [
        StepScores(values=(0.5,) * len(r.trajectory.steps), semantics="correctness", model="even")
        for r in held_out.records
    ]
    if name not in (known := held_out.judge(held_out.records, even)):
        raise UnknownName("figure of these held-out solutions", name, known)


def _source(file: Path, policy: LabelPolicy | None) -> str:
    """A line of a model's card on a file."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    use = "held out" if policy is None else "trained on"
    line = f"{use}: {file.name}, sha256 {digest}"
    if policy is None:
        return line
    ways: dict[str, Any] = {
        "neutral ratings": policy.neutral or "kept",
        "labels after the first wrong step": policy.after_error,
        "soft labels": "kept" if policy.threshold is None else f"right above {policy.threshold:g}",
    }
    return f"{line}; label policy: " + ", ".join(f"{name} {way}" for name, way in ways.items())


def _tell(result: TrainResult, task: TaskSettings, unit: str) -> None:
    dropped = result.dropped
    pushed = None
    if task.push is not None:
        from prmkit.cli.push import push

        pushed = push(result.out, task.push)
    if task.json:
        print_json(
            {
                "out": str(result.out),
                "examples": result.n_examples,
                "labels": result.n_labels,
                "unlabelled": dropped.unlabelled,
                "too_long": dropped.too_long,
                "cut": dropped.cut,
                "cut_labels": dropped.cut_labels,
                "disagree": dropped.disagree,
                "unreadable": dropped.unreadable,
                "losses": result.losses,
                "figures": result.figures,
                "step": result.best_step,
                "pushed": pushed,
            }
        )
        return
    rows: list[tuple[str, float]] = [
        ("solutions", result.n_examples),
        (unit, result.n_labels),
        ("left out: no label", dropped.unlabelled),
        ("left out: too long", dropped.too_long),
        ("without their last steps", dropped.cut),
    ]
    if dropped.disagree or dropped.unreadable:
        rows += [
            ("critiques that disagree", dropped.disagree),
            ("critiques without a verdict", dropped.unreadable),
        ]
    if result.losses:
        rows.append(("last loss", result.losses[-1][1]))
    if result.figures:
        rows.append(("weights of step", result.best_step))
        rows += [(name.replace("_", " "), value) for name, value in result.figures.items()]
    out().print(figures("prm train", rows))
    say(f"model: {result.out}")
    if pushed:
        say(f"pushed: {pushed}")
