"""MR-MATH, of ReasonEval: wrong steps of solutions with right answers, and redundant steps.

    paper      arXiv:2404.05692
    data       git GAIR-NLP/ReasonEval: dataset/MR-MATH_invalid_errors.json (159 solutions) and
               dataset/mr-math_redundant_errors.json (300)
    revision   37d5d2885182b56fdec3ad3f38770e6b15bd353e of the first (renamed since) and
               c73fd593736792bab94ea53386bd44232c10d332 of the second
    licence    none stated; the redundant part is from PRM800K (MIT)
    published  two rows of wrong steps, computed from scores that the project publishes; of
               redundant steps none

Steps are counted from 1 and may have several lines, each with a score in the published results. A
score that is the threshold itself makes a solution a miss, and a step wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import critics, published
from prmkit.evaluation.benchmarks.mr_gsm8k import KEY, correctness
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    DataFile,
    Figures,
    Given,
    Protocol,
    constant_scores,
    data_files,
    first_error_labels,
    read_cases,
    step_number,
)
from prmkit.evaluation.figures import (
    Judged,
    redundancy_statistics,
    validity_statistics,
    with_strict,
)
from prmkit.evaluation.judgements import Judgement
from prmkit.formats.base import Row, need
from prmkit.records import Problem, Record, Step, StepLabels, StepScores, Trajectory

_STEPS = "model_output_step_format"


def read_invalid(path: Path) -> list[Case]:
    """The cases with wrong steps, of their file or of a folder that holds it."""
    return read_cases(_named(path, "invalid"), lambda row: [_invalid(row)])


def read_redundant(path: Path) -> list[Case]:
    """The cases with redundant steps, of their file or of a folder that holds it."""
    return read_cases(_named(path, "redundant"), lambda row: [_redundant(row)])


def _named(path: Path, part: str) -> list[Path]:
    files = data_files(path)
    if path.is_file():
        return files
    names = [(f, str(f.relative_to(path)).lower()) for f in files]
    kept = [f for f, name in names if part in f.name.lower() and "eval_results" not in name]
    if not kept:
        raise FormatError(f"no file there has {part!r} in its name", path)
    return kept


def _lines(row: Row) -> list[list[str]]:
    """The steps, each a list of lines."""
    steps: list[list[str]] = need(row.data, _STEPS, list)
    for step in steps:
        if not isinstance(step, list) or not all(isinstance(line, str) for line in step):
            raise FormatError(f"a step of {_STEPS!r} is {step!r:.60}; expected a list of lines")
    return steps


def _record(row: Row, steps: Sequence[Sequence[str]], labels: StepLabels, right: bool) -> Record:
    data = row.data
    trajectory = Trajectory(
        problem=Problem(
            id=str(need(data, "id", (int, str))),
            prompt=need(data, "question", str),
            answer=str(data.get("ground_truth_answer", "")),
        ),
        steps=tuple(Step(text="\n".join(lines)) for lines in steps),
        separator="\n",
        generator=data.get("generator"),
    )
    meta = {"solution_correct": right, "lines": [len(lines) for lines in steps]}
    return Record(trajectory=trajectory, labels=labels, meta=meta)


def _invalid(row: Row) -> Case:
    steps = _lines(row)
    right = correctness(row.data, "model_output_solution_correctness")
    first = row.data.get(KEY)
    index = None if right else step_number(first, len(steps), KEY)
    record = _record(row, steps, first_error_labels(index, len(steps), "MR-MATH"), right)
    return _case(record, "invalid")


def _redundant(row: Row) -> Case:
    steps = _lines(row)
    ratings = need(row.data, "rating", list)
    if len(ratings) != len(steps) or any(r not in (0, 1) for r in ratings):
        raise FormatError(
            f"'rating' is {ratings!r:.60}; expected 1 (useful) or 0 (redundant) for each of "
            f"{len(steps)} steps"
        )
    labels = StepLabels(values=tuple(map(float, ratings)), kind="human", source="MR-MATH")
    return _case(_record(row, steps, labels, 0 not in ratings), "redundant")


def _case(record: Record, split: str) -> Case:
    problem = record.trajectory.problem
    return Case(problem.id, record, split, problem.text)


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of the published results."""
    data = row.data
    case = data.get("id")
    if not isinstance(case, int | str):
        return None
    if "scores" in data:
        return critics.reasoneval_row(row, str(case), cases)
    return critics.reasoneval_critic(data, str(case), cases)


def invalid_figures(judged: Judged, protocol: Protocol) -> Figures:
    """Macro-F1 and AUC of solutions and of steps."""
    return Figures(with_strict(judged, validity_statistics))


def redundant_figures(judged: Judged, protocol: Protocol) -> Figures:
    """Macro-F1 and AUC of solutions and of steps, as to redundancy."""
    return Figures(
        with_strict(judged, redundancy_statistics),
        {"redundancy_threshold": protocol.rule.redundancy},
    )


def _gold_redundant(case: Case) -> Judgement:
    assert case.record.labels is not None
    values = tuple(float(v == 0) for v in case.record.labels.values)
    scores = constant_scores(case, 1.0).scores
    assert isinstance(scores, StepScores)
    return Judgement(scores, None, values)


BENCHMARK = Benchmark(
    name="mr_math",
    title="MR-MATH, invalid steps",
    about="159 MATH solutions with right answers, of which 83 have a wrong step",
    paper="2404.05692",
    hub=None,
    git="GAIR-NLP/ReasonEval",
    files=(DataFile("dataset/MR-MATH_invalid_errors.json"),),
    revision="37d5d2885182b56fdec3ad3f38770e6b15bd353e",
    licence="none stated",
    read=read_invalid,
    figures=invalid_figures,
    headline="solution_macro_f1",
    judgement=judgement,
    equal="neutral",
    published=published.MR_MATH,
    content={"invalid": Content(159, 83)},
    perfect=("solution_macro_f1", "step_macro_f1", "solution_auc", "step_auc"),
    floor={"solution_auc": 0.5, "step_auc": 0.5},
)

REDUNDANT = Benchmark(
    name="mr_math_redundant",
    title="MR-MATH, redundant steps",
    about="300 MATH solutions, of which 150 have a redundant step",
    paper="2404.05692",
    hub=None,
    git="GAIR-NLP/ReasonEval",
    files=(DataFile("dataset/mr-math_redundant_errors.json"),),
    revision="c73fd593736792bab94ea53386bd44232c10d332",
    licence="MIT (from PRM800K)",
    read=read_redundant,
    figures=redundant_figures,
    headline="solution_macro_f1",
    judgement=judgement,
    equal="neutral",
    content={"redundant": Content(300, 150)},
    perfect=("solution_macro_f1", "step_macro_f1", "solution_auc", "step_auc"),
    floor={"solution_auc": 0.5, "step_auc": 0.5},
    gold=_gold_redundant,
    takes=frozenset({"verdicts", "redundancy"}),
)
