"""GSM8K: questions with worked answers, and models' solutions of them.

Steps are lines; the closing line ``#### 18`` belongs to the last step.

Source: Cobbe et al. 2021, arXiv:2110.14168; github.com/openai/grade-school-math.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need
from prmkit.formats.labels import LabelPolicy
from prmkit.records import Problem, Record, Step, Trajectory
from prmkit.splitting import by_line

_ANSWER = re.compile(r"^####[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def _steps(text: str) -> tuple[Step, ...]:
    lines = by_line(text)
    if len(lines) > 1 and lines[-1].startswith("####"):
        lines[-2:] = [lines[-2] + lines[-1]]
    return tuple(Step(text=line) for line in lines)


def _stated(text: str) -> str | None:
    found = _ANSWER.findall(text)
    return found[-1] or None if found else None


def _is_question(row: Mapping[str, Any]) -> bool:
    return has(row, question=str, answer=str) and "####" in row["answer"]


def _read_question(row: Row, settings: ReadSettings) -> list[Record]:
    text = need(row.data, "answer", str)
    answer = _stated(text)
    if answer is None:
        raise FormatError("'answer' has no line '#### …' with the final answer")
    problem = Problem(id=row.id, prompt=need(row.data, "question", str), answer=answer)
    trajectory = Trajectory(
        problem=problem, steps=_steps(text), finish="answer", answer=answer, correct=True
    )
    return [Record(trajectory=trajectory, meta=extras(row.data, ("question", "answer")))]


def _write_question(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    text, problem = record.trajectory.text, record.trajectory.problem
    if record.trajectory.correct is False:
        raise FormatError(
            f"GSM8K holds right answers, and this one to problem {problem.id!r} is wrong"
        )
    if _stated(text) is None:
        if problem.answer is None:
            raise FormatError(f"problem {problem.id!r} has no reference answer")
        text = f"{text.rstrip()}\n#### {problem.answer}"
    return {**record.meta, "question": problem.text, "answer": text}


QUESTIONS = Format(
    "gsm8k", "GSM8K's questions with worked answers", _is_question, _read_question, _write_question
)


def _is_solution(value: Any) -> bool:
    return isinstance(value, dict) and has(value, is_correct=bool, solution=str)


def _are_solutions(row: Mapping[str, Any]) -> bool:
    return has(row, question=str, ground_truth=str) and any(map(_is_solution, row.values()))


def _read_solutions(row: Row, settings: ReadSettings) -> list[Record]:
    truth = need(row.data, "ground_truth", str)
    models = {model: value for model, value in row.data.items() if _is_solution(value)}
    if not models:
        raise FormatError("no model's solution is here: an object with 'is_correct', 'solution'")
    problem = Problem(
        id=row.id,
        prompt=need(row.data, "question", str),
        answer=_stated(truth),
        meta={"ground_truth": truth},
    )
    meta = extras(row.data, ("question", "ground_truth", *models))
    return [
        Record(
            trajectory=Trajectory(
                problem=problem,
                steps=_steps(value["solution"]),
                finish="answer" if _stated(value["solution"]) else "open",
                answer=_stated(value["solution"]),
                correct=value["is_correct"],
                generator=model,
            ),
            meta=meta,
        )
        for model, value in models.items()
    ]


def _write_solution(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    trajectory, problem = record.trajectory, record.trajectory.problem
    if trajectory.correct is None:
        raise FormatError(
            f"GSM8K's solutions say whether they are right, and the one to problem {problem.id!r} "
            "does not"
        )
    truth = problem.meta.get("ground_truth", f"#### {problem.answer}")
    solution = {"is_correct": trajectory.correct, "solution": trajectory.text}
    model = trajectory.generator or "model"
    return {**record.meta, "question": problem.text, "ground_truth": truth, model: solution}


SOLUTIONS = Format(
    "gsm8k_solutions",
    "GSM8K's example_model_solutions: models' solutions, right or wrong",
    _are_solutions,
    _read_solutions,
    _write_solution,
)
