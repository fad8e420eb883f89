"""Mr-Ben: right or wrong, and where, of solutions in seven subjects.

    paper      arXiv:2406.13975
    data       git dvlab-research/Mr-Ben (data/*.json); Randolphzeng/Mr-Ben on the hub
    revision   f6217b8856a6d2f36c5ec426be8b623f9733fa9c of the hub
    licence    MIT
    published  none: no table of the paper was to be had

The data hold lines, and count the steps that are printed in them ("Step 3: …"): blank lines are
dropped and lines without a number belong to the step above them. Solutions of the subject coding
are programs, whose steps are their lines; the wrong one is given as its text, or not at all where
something is missing, and a critic whose reason is accepted has found it. The published figure is
the plain mean over subjects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import critics
from prmkit.evaluation.benchmarks.mr_gsm8k import correctness
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    Figures,
    Given,
    Protocol,
    data_files,
    first_error_labels,
    read_cases,
    splits,
)
from prmkit.evaluation.figures import Judged, average, mr_statistics, with_strict
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats.base import Row, need
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory

_NUMBERED = re.compile(r"\s*step\s+(\d+)\s*[:.)-]", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"\d+", re.ASCII)
SUBJECTS = ("math", "medicine", "biology", "physics", "chemistry", "logic", "coding")
KEY = "Model_Solution_First_Error_Step"


def read(path: Path) -> list[Case]:
    """The cases of a subject's file, or of a folder of them."""
    files = [f for f in data_files(path) if path.is_file() or "shot" not in f.name]
    return read_cases(files, lambda row: [_case(one) for one in _rows(row)])


def _rows(row: Row) -> Iterator[Row]:
    """The rows of a file that is one object of lists by question, or that has a row per line."""
    if "Question_UUID" in row.data:
        yield row
        return
    for uuid, of_question in row.data.items():
        if not isinstance(of_question, list):
            raise FormatError(
                f"{uuid!r} holds {of_question!r:.60}; expected a list of solutions, or rows with "
                "'Question_UUID'"
            )
        for data in of_question:
            if not isinstance(data, dict):
                raise FormatError(f"{uuid!r} holds {data!r:.60}; expected objects")
            yield row._replace(data=data)


def _case(row: Row) -> Case:
    data = row.data
    uuid, model = need(data, "Question_UUID", str), str(data.get("Sampled_Model", ""))
    given = need(data, "Model_Solution_Steps", (list, str))
    is_code = isinstance(given, str)
    steps = given.splitlines() if is_code else numbered_steps(given)
    right = correctness(data, "Model_Solution_Correctness")
    first = str(need(data, KEY, (str, int)))
    labels = _code_labels(steps, first) if is_code else _labels(steps, first)
    if right:
        labels = first_error_labels(None, len(steps), "Mr-Ben")
    options = data.get("Options")
    question = need(data, "Question", str) + (f"\n{options}" if options else "")
    answer = data.get("Ground_Truth_Answer_Modified") or data.get("Ground_Truth_Answer")
    trajectory = Trajectory(
        problem=Problem(id=uuid, prompt=question, answer=answer or None),
        steps=tuple(Step(text=text) for text in steps),
        separator="\n",
        finish="answer",
        generator=model or None,
    )
    meta: dict[str, Any] = {"solution_correct": right, "subject": data.get("Subject")}
    meta |= {"step_by_reason": True} if is_code else {"numbers": _numbers(steps)}
    split = "coding" if is_code else _subject(row)
    return Case(
        f"{uuid}/{model}", Record(trajectory=trajectory, labels=labels, meta=meta), split, uuid
    )


def numbered_steps(lines: Sequence[Any]) -> list[str]:
    """Lines to the steps that are numbered in them; as they are, where none is."""
    texts = [str(line) for line in lines if str(line).strip()]
    if not any(_NUMBERED.match(text) for text in texts):
        return texts
    steps: list[str] = []
    for text in texts:
        if _NUMBERED.match(text) or not steps:
            steps.append(text)
        else:
            steps[-1] += "\n" + text
    if len(steps) > 1 and not _NUMBERED.match(steps[0]):
        # What stands before the first step has no number of its own.
        steps[:2] = [steps[0] + "\n" + steps[1]]
    return steps


def _labels(steps: Sequence[str], first: str) -> StepLabels:
    """Labels by the number that is printed before a step."""
    if first.strip() in ("", "N/A"):
        return _unknown(steps)
    if not _NUMBER.fullmatch(first.strip()):
        raise FormatError(f"{KEY!r} is {first!r}; expected the number of a step, or 'N/A'")
    numbers = _numbers(steps)
    if int(first) not in numbers:
        raise FormatError(
            f"{KEY!r} is {first!r}; the steps are numbered {numbers[0]} to {numbers[-1]}"
            if numbers
            else f"{KEY!r} is {first!r}, and there is no step"
        )
    return first_error_labels(numbers.index(int(first)), len(steps), "Mr-Ben")


def _numbers(steps: Sequence[str]) -> list[int]:
    """The numbers that are printed before the steps; where none is, their places from 1."""
    printed = [
        next((m for line in step.splitlines() if (m := _NUMBERED.match(line))), None)
        for step in steps
    ]
    return [int(m[1]) if m else i + 1 for i, m in enumerate(printed)]


def _subject(row: Row) -> str:
    """The subject: of the file, or where a file holds several, of the row."""
    stem = row.path.name.split(".")[0]
    told = str(row.data.get("Subject", "")).lower()
    return stem if stem in SUBJECTS else next((s for s in SUBJECTS if s[:4] in told), stem)


def _code_labels(lines: Sequence[str], first: str) -> StepLabels:
    """Labels by the text of the wrong line; unknown where nothing that is there is wrong."""
    if first.strip():
        for wanted, given in ((first, lines), (first.strip(), [line.strip() for line in lines])):
            if wanted in given:
                return first_error_labels(list(given).index(wanted), len(lines), "Mr-Ben")
    return _unknown(lines)


def _unknown(steps: Sequence[str]) -> StepLabels:
    return StepLabels(values=(None,) * len(steps), kind="hard", source="Mr-Ben")


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of the official results, or the object that holds them by subject."""
    data = row.data
    if "Question_UUID" in data:
        return critics.judged_row(data, f"{data['Question_UUID']}/{data['Sampled_Model']}", cases)
    lists = [v for v in data.values() if isinstance(v, list)]
    if len(lists) != len(data) or not lists:
        return None
    found: list[Given] = []
    for of_subject in lists:
        for one in of_subject:
            if not isinstance(one, dict) or "Question_UUID" not in one:
                return None
            case = f"{one['Question_UUID']}/{one['Sampled_Model']}"
            found += critics.judged_row(one, case, cases) or []
    return found


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """The parts of MR-Score by subject, and their plain means over subjects."""
    return Figures(with_strict(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    parts = {name: mr_statistics(judged.split(name)) for name in splits(judged.cases)}
    parts = {name: part for name, part in parts.items() if part["mcc"].n}
    common = [key for key in next(iter(parts.values())) if all(key in p for p in parts.values())]
    figures: dict[str, Statistic] = {}
    for key in common:
        sums = [p[key] for p in parts.values()]
        figures[key] = average([s for s in sums if isinstance(s, Sums)])
    for split, part in parts.items():
        figures |= {f"{split}/{name}": value for name, value in part.items()}
    return figures


BENCHMARK = Benchmark(
    name="mr_ben",
    title="Mr-Ben",
    about="5,975 solutions in seven subjects, of which the first wrong step is known",
    paper="2406.13975",
    hub="Randolphzeng/Mr-Ben",
    revision="f6217b8856a6d2f36c5ec426be8b623f9733fa9c",
    licence="MIT",
    read=read,
    figures=figures,
    headline="mcc",
    judgement=judgement,
    content={
        "math": Content(918),
        "medicine": Content(828),
        "biology": Content(1035),
        "physics": Content(667),
        "chemistry": Content(848),
        "logic": Content(1441),
        "coding": Content(238),
    },
    perfect=("mcc", "step_accuracy"),
    floor={"mcc": 0.0, "step_accuracy": 0.0},
)
