"""Samples of many solutions of each problem, as projects store them: one problem a row.

``qwen_math``: Qwen2.5-Math's evaluation files, with an outcome reward per sample.
``rprm_pool``: R-PRM's, with steps and whether each sample is right.
``search_and_learn``: completions with step scores; which are right is not told.
``prm800k_samples``: PRM800K's scored test samples, one sample a row.

A reward of a whole solution is a score of its one step: these files do not say what their steps
are, or give no score of them.

Source: github.com/QwenLM/Qwen2.5-Math, github.com/NJUNLP/R-PRM,
github.com/huggingface/search-and-learn, github.com/openai/prm800k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need, need_texts
from prmkit.records import Problem, Record, Step, StepScores, Trajectory


def _equal_lengths(data: Mapping[str, Any], *keys: str) -> int:
    """The length that lists of a row share.

    Raises:
        FormatError: if they differ.
    """
    lengths = {key: len(need(data, key, list)) for key in keys}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{n} in {key!r}" for key, n in lengths.items())
        raise FormatError(f"lists of different length: {told}; one entry per sample is needed")
    return lengths[keys[0]]


def _answer(value: object) -> str | None:
    return str(value) if value not in (None, "") else None


def _solution(
    problem: Problem,
    steps: list[str],
    answer: str | None,
    correct: object,
    scores: list[StepScores],
) -> Record:
    if not isinstance(correct, bool | int | None):
        raise FormatError(f"whether a sample is right is {correct!r}; expected true or false")
    trajectory = Trajectory(
        problem=problem,
        steps=tuple(Step(text=step) for step in steps),
        separator="\n\n",
        finish="answer" if answer is not None else "open",
        answer=answer,
        correct=None if correct is None else bool(correct),
    )
    return Record(trajectory=trajectory, scores=tuple(scores))


def _is_qwen(row: Mapping[str, Any]) -> bool:
    return has(row, question=str, code=list, pred=list, score=list)


def _read_qwen(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    keys = ["code", "pred", "score"] + (["pred_score"] if "pred_score" in data else [])
    n = _equal_lengths(data, *keys)
    problem = Problem(
        id=str(data.get("idx", row.id)),
        prompt=need(data, "question", str),
        answer=_answer(data.get("gt")),
        meta=extras(
            data, ("idx", "question", "gt", "code", "pred", "score", "pred_score", "report")
        ),
    )
    texts = need_texts(data, "code")
    records = []
    for i in range(n):
        scores = []
        if "pred_score" in data:
            given = data["pred_score"][i]
            value = given[0] if isinstance(given, list) and len(given) == 1 else given
            if not isinstance(value, int | float):
                raise FormatError(f"item {i} of 'pred_score' is {given!r:.60}; expected a number")
            scores = [StepScores(values=(float(value),), semantics="value", model="pred_score")]
        answer = _answer(data["pred"][i])
        records.append(_solution(problem, [texts[i]], answer, data["score"][i], scores))
    return records


def _is_rprm(row: Mapping[str, Any]) -> bool:
    return (
        has(row, question=str, steps=list, labels=list)
        and bool(row["steps"])
        and all(isinstance(steps, list) for steps in row["steps"])
    )


def _read_rprm(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    n = _equal_lengths(data, "steps", "labels")
    answers = data.get("answers")
    problem = Problem(
        id=str(data.get("id", row.id)),
        prompt=need(data, "question", str),
        answer=_answer(data.get("answer")),
    )
    records = []
    for i in range(n):
        steps = data["steps"][i]
        if not all(isinstance(step, str) for step in steps):
            raise FormatError(f"solution {i} of 'steps' is {steps!r:.60}; expected a list of texts")
        answer = _answer(answers[i]) if isinstance(answers, list) and len(answers) == n else None
        records.append(_solution(problem, steps, answer, data["labels"][i], []))
    return records


def _is_search_and_learn(row: Mapping[str, Any]) -> bool:
    return has(row, problem=str, completions=list, scores=list)


def _read_search_and_learn(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    n = _equal_lengths(data, "completions", "scores")
    gold = need(data, "answer", str)
    known = ("problem", "answer", "completions", "scores", "unique_id", "solution")
    problem = Problem(
        id=str(data.get("unique_id", row.id)),
        prompt=data["problem"],
        answer=gold,
        meta=extras({k: v for k, v in data.items() if not k.startswith("pred")}, known),
    )
    records = []
    for i, text in enumerate(need_texts(data, "completions")[:n]):
        values = data["scores"][i]
        if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
            raise FormatError(f"item {i} of 'scores' is {values!r:.60}; expected numbers")
        steps = text.split("\n\n") if len(text.split("\n\n")) == len(values) else [text]
        # Where the texts were cut elsewhere, the last score is the one that they are judged by.
        kept = tuple(values) if len(steps) == len(values) else tuple(values[-1:])
        scores = [StepScores(values=kept, semantics="value", model="scores")] if kept else []
        records.append(_solution(problem, steps, None, None, scores))
    return records


def _is_samples(row: Mapping[str, Any]) -> bool:
    scored = bool({"prm_score", "orm_score"} & set(row))
    return has(row, problem=str) and "is_correct" in row and scored


def _read_samples(row: Row, settings: ReadSettings) -> list[Record]:
    data = row.data
    question = need(data, "problem", str)
    answer = _answer(data.get("given_answer", data.get("answer")))
    steps = data.get("steps")
    text = "\n".join(map(str, steps)) if isinstance(steps, list) else answer or ""
    scores = [
        StepScores(values=(float(data[key]),), semantics="value", model=key)
        for key in ("prm_score", "orm_score")
        if isinstance(data.get(key), int | float)
    ]
    problem = Problem(id=str(data.get("unique_id") or question), prompt=question)
    return [_solution(problem, [text], answer, data["is_correct"], scores)]


FORMATS = (
    Format(
        "qwen_math",
        "Qwen2.5-Math's samples, each with an outcome reward (read only)",
        _is_qwen,
        _read_qwen,
        None,
    ),
    Format(
        "rprm_pool",
        "R-PRM's samples: steps, and whether each is right (read only)",
        _is_rprm,
        _read_rprm,
        None,
    ),
    Format(
        "search_and_learn",
        "search-and-learn's completions with step scores (read only)",
        _is_search_and_learn,
        _read_search_and_learn,
        None,
    ),
    Format(
        "prm800k_samples",
        "PRM800K's scored test samples, one a row (read only)",
        _is_samples,
        _read_samples,
        None,
    ),
)
