"""A pool for best-of-N: candidates by problem, with problems and step scores in files beside it.

``X_candidates.jsonl[.gz]`` holds the steps; ``X_problems.jsonl[.gz]`` the questions; and
``X_step_scores.jsonl[.gz]``, where it is there, the scores of any number of models.

Where a chat prompt was cut into steps before the first one, ``n_prompt_steps`` of a candidate says
how many; they are dropped from its steps and from its scores.

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


def _beside(path: Path, part: str) -> dict[str, dict[str, Any]] | None:
    """The rows of a file beside the candidates by problem, or None where there is none."""
    if _PART not in path.name:
        return None
    stem = path.name.split(_PART)[0]
    for suffix in ("jsonl", "jsonl.gz"):
        file = path.with_name(f"{stem}_{part}.{suffix}")
        if file.is_file():
            return _by_problem(file, file.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=4)
def _by_problem(file: Path, changed: int) -> dict[str, dict[str, Any]]:
    """The rows of a file by problem, read once as long as it is not changed."""
    del changed
    rows: dict[str, dict[str, Any]] = {}
    for row in read_rows(file):
        if isinstance(row, FormatError):
            raise row
        try:
            key = need(row.data, "problem_id", str)
            if key in rows:
                raise FormatError(f"the problem {key!r} is there twice")
        except FormatError as error:
            raise FormatError(error.message, file, row.number) from None
        rows[key] = row.data
    return rows


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
        if not isinstance(given, list) or not all(isinstance(one, list) for one in given):
            raise FormatError(
                f"the scores by {model!r} of {key!r} are {given!r:.60}; expected lists"
            )
        if len(given) != len(candidates):
            raise FormatError(
                f"{model} scores {len(given)} of {len(candidates)} candidates of {key!r}"
            )
    return [
        _record(problem, candidate, {model: given[i] for model, given in by_model.items()})
        for i, candidate in enumerate(candidates)
    ]


def _record(problem: Problem, candidate: Any, scores: dict[str, list[float]]) -> Record:
    if not isinstance(candidate, dict):
        raise FormatError(f"a candidate is {candidate!r:.60}; expected an object with 'steps'")
    texts = need_texts(candidate, "steps")
    skipped = candidate.get("n_prompt_steps") or 0
    if not isinstance(skipped, int) or not 0 <= skipped <= len(texts):
        raise FormatError(f"'n_prompt_steps' is {skipped!r}, of {len(texts)} steps")
    for model, values in scores.items():
        if len(values) != len(texts):
            raise FormatError(
                f"{len(values)} scores by {model!r} for a candidate of {problem.id!r} with "
                f"{len(texts)} steps"
            )
    trajectory = Trajectory(
        problem=problem,
        steps=tuple(Step(text=text) for text in texts[skipped:]),
        separator="\n\n",
        finish="eos",
        answer=candidate.get("answer"),
        correct=candidate.get("is_correct"),
    )
    return Record(
        trajectory=trajectory,
        scores=tuple(
            StepScores(values=tuple(values[skipped:]), semantics="value", model=model)
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
