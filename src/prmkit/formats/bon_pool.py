"""A pool for best-of-N: candidates by problem, with problems and step scores in files beside it.

``X_candidates.jsonl[.gz]`` holds the steps; ``X_problems.jsonl[.gz]`` the questions; and
``X_step_scores.jsonl[.gz]``, where it is there, the scores of any number of models.

Source: StrictPRMBench's pools as regraded, see the LICENSE.txt of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need, need_texts
from prmkit.formats.containers import read_rows
from prmkit.records import Problem, Record, Step, StepScores, Trajectory

_PART = "_candidates."


def _matches(row: Mapping[str, Any]) -> bool:
    return has(row, problem_id=str, candidates=list)


@lru_cache(maxsize=4)
def _beside(path: Path, part: str) -> dict[str, dict[str, Any]] | None:
    """The rows of a file beside the candidates by problem, or None where there is none."""
    if _PART not in path.name:
        return None
    stem = path.name.split(_PART)[0]
    for suffix in ("jsonl", "jsonl.gz"):
        file = path.with_name(f"{stem}_{part}.{suffix}")
        if file.is_file():
            rows = {}
            for row in read_rows(file):
                if isinstance(row, FormatError):
                    raise row
                rows[need(row.data, "problem_id", str)] = row.data
            return rows
    return None


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    key = need(row.data, "problem_id", str)
    problems, scores = _beside(row.path, "problems"), _beside(row.path, "step_scores")
    if problems is None or key not in problems:
        raise FormatError(
            f"the question of problem {key!r} is not to be found; it is expected in a file "
            "X_problems.jsonl beside X_candidates.jsonl"
        )
    told = problems[key]
    problem = Problem(
        id=key,
        prompt=need(told, "question", str),
        answer=told.get("ground_truth"),
        meta=extras(told, ("problem_id", "question", "ground_truth")),
    )
    by_model = need((scores or {}).get(key, {"scores": {}}), "scores", dict)
    candidates = need(row.data, "candidates", list)
    for model, given in by_model.items():
        if len(given) != len(candidates):
            raise FormatError(
                f"{model} scores {len(given)} of {len(candidates)} candidates of {key!r}"
            )
    return [
        _record(problem, candidate, {model: given[i] for model, given in by_model.items()})
        for i, candidate in enumerate(candidates)
    ]


def _record(problem: Problem, candidate: Any, scores: dict[str, list[float]]) -> Record:
    trajectory = Trajectory(
        problem=problem,
        steps=tuple(Step(text=text) for text in need_texts(candidate, "steps")),
        separator="\n\n",
        finish="eos",
        answer=candidate.get("answer"),
        correct=candidate.get("is_correct"),
    )
    return Record(
        trajectory=trajectory,
        scores=tuple(
            StepScores(values=tuple(values), semantics="value", model=model)
            for model, values in scores.items()
        ),
        meta=extras(candidate, ("steps", "answer", "is_correct")),
    )


FORMAT = Format(
    "bon_pool",
    "best-of-N pools: candidates with problems and scores beside them (read only)",
    _matches,
    _read,
    None,
)
