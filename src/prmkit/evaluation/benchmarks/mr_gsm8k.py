"""MR-GSM8K: is a solution of a grade-school problem right, and if not, where and why is it wrong?

    paper      arXiv:2312.17080
    data       git dvlab-research/MR-GSM8K (dataset/MR-GSM8K.json); Randolphzeng/Mr-GSM8K on the hub
    revision   bf2e0ed70d5cd29ec521ba07265986d73680b660 of the hub
    licence    Apache-2.0 on the hub
    published  the project's README

Steps are counted from 1 in the data. A PRM gives no reasons: its MCC and step accuracy stand
alone. Official scripts count cases of the whole set as constants; here they are counted.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import critics, published
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
    step_number,
)
from prmkit.evaluation.figures import Judged, mr_statistics, validity_statistics, with_strict
from prmkit.evaluation.statistics import Statistic
from prmkit.formats.base import Row, need
from prmkit.records import Problem, Record, Step, Trajectory

KEY = "model_output_solution_first_error_step"
WORDS = {"correct": True, "wrong": False, "incorrect": False}


def read(path: Path) -> list[Case]:
    """The cases of the published file (JSON or CSV), or of a folder that holds it."""
    files = data_files(path)
    if path.is_dir():
        # Beside the data lie examples for prompts, and results.
        names = [(f, str(f.relative_to(path))) for f in files]
        files = [f for f, name in names if "shot" not in name and "eval_results" not in name]
        if not files:
            raise FormatError("no data is there, only examples and results", path)
    return read_cases(files, lambda row: [_case(row)])


def _case(row: Row) -> Case:
    data = row.data
    uuid, question = need(data, "uuid", str), need(data, "question", str)
    steps = steps_of(data)
    right = correctness(data, "model_output_solution_correctness")
    first = data.get(KEY)
    # Three rows of the first release, and blank cells of the CSV, name no step.
    named = not right and str(first).strip() not in ("N/A", "", "None", "nan")
    if named and isinstance(first, float | str) and str(first).endswith(".0"):
        first = str(first).removesuffix(".0")
    index = step_number(first, len(steps), KEY) if named else None
    labels = first_error_labels(index, len(steps), "MR-GSM8K")
    if not right and index is None:
        labels = labels.model_copy(update={"values": (None,) * len(steps)})
    trajectory = Trajectory(
        problem=Problem(id=uuid, prompt=question, answer=str(data.get("ground_truth_answer", ""))),
        steps=tuple(Step(text=text) for text in steps),
        separator="\n",
        finish="answer",
        correct=correctness(data, "model_output_answer_correctness")
        if data.get("model_output_answer_correctness")
        else None,
    )
    kind = str(data.get("question_type") or "original")
    meta: dict[str, Any] = {"solution_correct": right, "question_type": kind}
    return Case(uuid, Record(trajectory=trajectory, labels=labels, meta=meta), kind, question)


def steps_of(data: Mapping[str, Any]) -> list[str]:
    """The steps: a list, or in the CSV a list as Python writes it."""
    steps = data.get("model_output_steps")
    if isinstance(steps, str):
        try:
            steps = ast.literal_eval(steps)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise FormatError(
                f"'model_output_steps' is {steps!r:.60}; expected a list of texts"
            ) from None
    if not isinstance(steps, list) or not all(isinstance(s, str) for s in steps):
        raise FormatError(f"'model_output_steps' is {steps!r:.60}; expected a list of texts")
    return steps


def correctness(data: Mapping[str, Any], key: str) -> bool:
    """``correct`` or ``wrong``.

    Raises:
        FormatError: if it is neither.
    """
    word = str(need(data, key, str)).strip().lower()
    if word not in WORDS:
        raise FormatError(f"{key!r} is {data[key]!r}; expected 'correct' or 'wrong'")
    return WORDS[word]


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of the official results, old or new, or of ReasonEval's scores."""
    data = row.data
    case = data.get("uuid", data.get("id"))
    if not isinstance(case, str):
        return None
    if "scores" in data:
        return critics.reasoneval_row(row, case, cases)
    return critics.judged_row(data, case, cases)


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """MR-Score's parts, ReasonEval's macro-F1 and AUC, and the parts by kind of question."""
    return Figures(with_strict(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    figures = {**mr_statistics(judged), **validity_statistics(judged)}
    for kind in splits(judged.cases):
        part = mr_statistics(judged.split(kind))
        figures |= {f"{kind}/{name}": value for name, value in part.items()}
    return figures


BENCHMARK = Benchmark(
    name="mr_gsm8k",
    title="MR-GSM8K",
    about="3,000 solutions of original, reversed and program-like GSM8K questions",
    paper="2312.17080",
    hub="Randolphzeng/Mr-GSM8K",
    revision="bf2e0ed70d5cd29ec521ba07265986d73680b660",
    licence="Apache-2.0",
    read=read,
    figures=figures,
    headline="mcc",
    judgement=judgement,
    equal="neutral",
    published=published.MR_GSM8K,
    content={"": Content(3000, 1573)},
    perfect=("mcc", "step_accuracy", "solution_macro_f1", "step_macro_f1"),
    floor={"mcc": 0.0, "step_accuracy": 0.0, "solution_auc": 0.5},
)
