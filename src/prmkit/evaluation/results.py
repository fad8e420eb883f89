"""The folder of an evaluation: what a stranger, a program and `prm compare` read.

    cases.jsonl    the cases with the truth
    scores.jsonl   what each judge says of each case
    metrics.json   all figures with intervals
    table.md, table.tex   the main figures beside published rows

No time and no machine is in these files: the same judgements give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.errors import MissingDependency, RunFolderError
from prmkit.evaluation import tables
from prmkit.evaluation.cases import UNREADABLE, Benchmark, Case, digest, good_rows
from prmkit.evaluation.judgements import Judgement, from_json, to_json
from prmkit.evaluation.run import Evaluation, MeasureSettings
from prmkit.files import atomic_text, write_json
from prmkit.records import Record

CASES, SCORES, METRICS = "cases.jsonl", "scores.jsonl", "metrics.json"


def write_run(folder: Path, evaluation: Evaluation, more: Mapping[str, Any]) -> None:
    """Write all files of an evaluation, each whole or not at all.

    Args:
        folder: of the run.
        evaluation: what was measured.
        more: what else belongs into ``metrics.json``.
    """
    table = tables.table_of(evaluation)
    texts = {"table.md": tables.markdown(table), "table.tex": tables.latex(table)}
    with atomic_text(folder / CASES) as out:
        for case in evaluation.cases:
            row = {"id": case.id, "split": case.split, "group": case.group}
            # The scores are in a file of their own.
            record = case.record.model_copy(update={"scores": ()})
            told = json.dumps(row, ensure_ascii=False)[:-1]
            out.write(f'{told}, "record": {record.model_dump_json()}}}\n')
    write_scores(folder / SCORES, evaluation.cases, evaluation.judges)
    for name, text in texts.items():
        with atomic_text(folder / name) as out:
            out.write(text)
    # Last: a folder with this file is whole.
    write_json(folder / METRICS, {**evaluation.metrics(), **more})


def write_scores(
    path: Path, cases: Sequence[Case], judges: Mapping[str, Sequence[Judgement]]
) -> None:
    """One line per judge and case, in their order."""
    with atomic_text(path) as out:
        for model, judgements in judges.items():
            for case, judgement in zip(cases, judgements, strict=True):
                row = {"model": model, "case": case.id, **to_json(judgement)}
                out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


class Run(NamedTuple):
    """An evaluation that was written.

    Attributes:
        folder: where it is.
        benchmark: the name of its benchmark.
        cases: all of them.
        judges: what each says.
        digest: of the cases.
        settings: how judgements became figures.
    """

    folder: Path
    benchmark: str
    cases: list[Case]
    judges: dict[str, list[Judgement]]
    digest: str
    settings: MeasureSettings


def read_run(folder: Path) -> Run:
    """Read the folder of an evaluation.

    Raises:
        RunFolderError: if it is none, or is damaged.
    """
    missing = [name for name in (CASES, SCORES, METRICS) if not (folder / name).is_file()]
    if missing:
        raise RunFolderError(
            f"{folder} is no finished run of prm evaluate: it has no {', '.join(missing)}"
        )
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        cases = [
            Case(r["id"], Record.model_validate(r["record"]), r["split"], r["group"])
            for r in (row.data for row in good_rows(folder / CASES))
        ]
        by_judge: dict[str, dict[str, Judgement]] = {}
        for row in good_rows(folder / SCORES):
            by_judge.setdefault(row.data["model"], {})[row.data["case"]] = from_json(row.data)
        judges = {m: [given[case.id] for case in cases] for m, given in by_judge.items()}
        name, told = metrics["benchmark"], metrics["data"]["digest"]
        settings = MeasureSettings(**metrics["measure"])
        if digest(cases) != told:
            raise ValueError(f"{CASES} is of other cases than {METRICS}")
        if not all(isinstance(model, str) for model in judges):
            raise ValueError("a model's name is no text")
    except UNREADABLE as error:
        raise RunFolderError(f"{folder} is damaged: {error}") from None
    return Run(folder, name, cases, judges, told, settings)


def hub_results(evaluation: Evaluation, revision: str | None, program: str) -> dict[str, str]:
    """For each model a file in the form of the hub's ``.eval_results``, as YAML text.

    Figures that nobody could have reached without the truth (``optimum/…``) are left out; the
    notes tell how many cases there were, and in what they differ from the published ones.

    Args:
        evaluation: what was measured.
        revision: the commit of the data set, where it is known.
        program: what measured it, with its version.

    Raises:
        MissingDependency: if huggingface_hub is not installed.
        RunFolderError: if the benchmark has no data set on the hub to name.
    """
    known: Benchmark = evaluation.benchmark
    if known.hub is None:
        raise RunFolderError(
            f"{known.title} has no data set on the Hugging Face hub, which its form of results "
            "must name"
        )
    try:
        import yaml
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:
        raise MissingDependency("huggingface_hub", "hf", "the hub's form of results") from None
    notes = f"{program}; {len(evaluation.cases)} cases"
    if evaluation.differences:
        notes += "; not the published data: " + "; ".join(evaluation.differences)
    files = {}
    for model, figures in evaluation.models.items():
        unscored = f"; {figures.unscored} not scored" if figures.unscored else ""
        entries = [
            EvalResultEntry(
                dataset_id=known.hub,
                task_id=name.replace("/", "_"),
                value=round(known.scale * estimate.value, 4),
                dataset_revision=revision,
                notes=notes + unscored,
            )
            for name, estimate in figures.figures.items()
            if name in known.shown(list(figures.figures))
            and not name.startswith("optimum/")
            and estimate.value is not None
        ]
        files[model] = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return files
