"""BIG-Bench Mistake: where, if anywhere, is the mistake in 2,186 chains of thought of five tasks?

    paper      arXiv:2311.08516
    data       git WHGTyen/BIG-Bench-Mistake (*.jsonl)
    revision   90084fd567ae952cd021e465b78f0f368442230d
    licence    Apache-2.0
    published  Tables 4 and 9 of the paper (counts of mistakes: Table 2)

The index of the mistake is 0-based, null where there is none. Accuracy is over all chains of a
task: the place is named exactly, or none is where there is none. It says nothing of the answer.
The published rows of Dyck languages are of a part of the chains (592, or 300 for GPT-4-Turbo and
for GPT-4 step by step), and one printed mean over tasks, PaLM 2's 17.09, is not that of its cells.
"""

from __future__ import annotations

from pathlib import Path

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import published
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    DataFile,
    Figures,
    Protocol,
    data_files,
    first_error_labels,
    read_cases,
    splits,
)
from prmkit.evaluation.figures import Judged, average, first_error_statistics, hit, with_strict
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats.base import Row, need, need_texts
from prmkit.records import Problem, Record, Step, Trajectory

TASKS = (
    "word_sorting",
    "tracking_shuffled_objects",
    "logical_deduction",
    "multistep_arithmetic",
    "dyck_languages",
)


def read(path: Path) -> list[Case]:
    """The cases of a task's file, or of a folder with files named by the tasks."""
    files = data_files(path, TASKS if path.is_dir() else ())
    return read_cases(files, lambda row: [_case(row)])


def _case(row: Row) -> Case:
    data = row.data
    steps = need_texts(data, "steps")
    if "mistake_index" not in data:
        raise FormatError("the key 'mistake_index' is missing; null says that there is no mistake")
    index = data["mistake_index"]
    is_place = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(steps)
    if index is not None and not is_place:
        raise FormatError(
            f"'mistake_index' is {index!r}; with {len(steps)} steps it is from 0 to "
            f"{len(steps) - 1}, or null for none"
        )
    task = row.path.name.split(".")[0]
    target, answer = data.get("target"), data.get("answer")
    trajectory = Trajectory(
        problem=Problem(id=f"{task}-{row.number}", prompt=need(data, "input", str), answer=target),
        steps=tuple(Step(text=text) for text in steps),
        separator="\n",
        finish="answer",
        answer=answer,
        correct=None if target is None else answer == target,
    )
    labels = first_error_labels(index, len(steps), "BIG-Bench Mistake")
    record = Record(trajectory=trajectory, labels=labels)
    return Case(trajectory.problem.id, record, task, trajectory.problem.text)


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """Accuracy of each task and their plain mean, with the accuracies of both kinds of chains."""
    return Figures(with_strict(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    judged = judged.scored()
    parts: dict[str, Sums] = {}
    more: dict[str, Statistic] = {}
    for task in splits(judged.cases):
        part = judged.split(task)
        hits = [hit(c, v) for c, v in zip(part.cases, part.verdicts, strict=True) if v]
        parts[task] = part.mean(hits)
        more |= {f"{task}/{k}": v for k, v in first_error_statistics(part).items()}
    accuracies: dict[str, Statistic] = {f"{k}/accuracy": v for k, v in parts.items()}
    return {"accuracy": average(list(parts.values())), **accuracies, **more}


BENCHMARK = Benchmark(
    name="bigbench_mistake",
    title="BIG-Bench Mistake",
    about="the first mistake of 2,186 chains of thought in five tasks that are not mathematics",
    paper="2311.08516",
    hub=None,
    git="WHGTyen/BIG-Bench-Mistake",
    files=tuple(DataFile(f"{task}.jsonl") for task in TASKS),
    revision="90084fd567ae952cd021e465b78f0f368442230d",
    licence="Apache-2.0",
    read=read,
    figures=figures,
    headline="accuracy",
    published=published.BIGBENCH_MISTAKE,
    content={
        "word_sorting": Content(300, 266),
        "tracking_shuffled_objects": Content(300, 260),
        "logical_deduction": Content(300, 294),
        "multistep_arithmetic": Content(300, 238),
        "dyck_languages": Content(986, 650),
    },
)
