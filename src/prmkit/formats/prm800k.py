"""PRM800K: human ratings of every completion that was offered at every step.

Reads the official nesting and its inner part alone. Two views: ``path``, one record per
trajectory along the chosen completions; ``completions``, one record per rated completion, in
which only that last step carries its rating.

Source: Lightman et al. 2023, arXiv:2305.20050; github.com/openai/prm800k.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from prmkit.errors import FormatError, LabelPolicyNeeded
from prmkit.formats.base import Format, ReadSettings, Row, extras, has, need
from prmkit.formats.labels import LabelPolicy, labelled
from prmkit.records import LabelKind, Problem, Record, Step, StepLabels, Trajectory

SEPARATOR = "\n"
_ANSWER = re.compile(r"# Answer\s+(\S.*?)\s*\Z", re.DOTALL)
_INNER = ("id", "problem", "steps", "finished_with_solution", "last_group_ambiguous")


def _matches(row: Mapping[str, Any]) -> bool:
    if has(row, question=dict, label=dict):
        return has(row["question"], problem=str) and has(row["label"], steps=list)
    return has(row, problem=str, steps=list) and all(
        isinstance(step, dict) and "completions" in step for step in row["steps"]
    )


def _read(row: Row, settings: ReadSettings) -> list[Record]:
    problem, groups, finished, meta = _nesting(row)
    if settings.view == "completions":
        return list(_completions(problem, groups, meta))
    if meta.get("last_group_ambiguous"):
        groups = groups[:-1]
    path = list(_path(groups))
    steps = tuple(Step(text=text) for text, _ in path)
    answer = _ANSWER.search(steps[-1].text) if steps else None
    trajectory = Trajectory(
        problem=problem,
        steps=steps,
        separator=SEPARATOR,
        finish="answer" if finished and len(path) == len(groups) else "open",
        answer=answer[1] if answer else None,
    )
    return [Record(trajectory=trajectory, labels=_labels([r for _, r in path]), meta=meta)]


def _nesting(row: Row) -> tuple[Problem, list[Any], bool, dict[str, Any]]:
    """Of either nesting: the problem, the groups of completions, whether it ends in a solution."""
    data = row.data
    if "question" in data:
        question, label = need(data, "question", dict), need(data, "label", dict)
        problem = Problem(
            id=row.id,
            prompt=need(question, "problem", str),
            answer=question.get("ground_truth_answer"),
            meta=extras(question, ("problem", "ground_truth_answer")),
        )
        meta = {**extras(data, ("question", "label")), **extras(label, ("steps",))}
        groups = need(label, "steps", list)
        finished = label.get("finish_reason") == "solution"
    else:
        problem = Problem(id=str(data.get("id", row.id)), prompt=need(data, "problem", str))
        meta = extras(data, _INNER)
        if data.get("last_group_ambiguous"):
            meta["last_group_ambiguous"] = True
        groups = need(data, "steps", list)
        finished = bool(data.get("finished_with_solution"))
    for group in groups:
        if not isinstance(group, dict):
            raise FormatError(f"a step is {group!r:.80}; expected an object with 'completions'")
    return problem, groups, finished, meta


def _offered(group: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """The completions of a step with their ratings."""
    offered = group.get("completions") or []
    if not isinstance(offered, list):
        raise FormatError(f"'completions' is {offered!r:.80}; expected a list")
    return [_rated(c) for c in offered]


def _rated(completion: Any) -> tuple[str, float | None]:
    if not isinstance(completion, dict):
        raise FormatError(f"a completion is {completion!r:.80}; expected an object with 'text'")
    rating = completion.get("rating")
    if rating not in (-1, 0, 1, None) or isinstance(rating, bool):
        raise FormatError(f"a rating is {rating!r}; expected -1, 0, 1 or null")
    return need(completion, "text", str), None if rating is None else float(rating)


def _chosen(group: Mapping[str, Any], is_last: bool) -> tuple[str, float | None] | None:
    """The step that was gone on with, or None where that is not told."""
    offered = _offered(group)
    chosen = group.get("chosen_completion")
    if chosen is not None:
        if not isinstance(chosen, int) or not 0 <= chosen < len(offered):
            raise FormatError(
                f"'chosen_completion' is {chosen!r}, of {len(offered)} completions (0-based)"
            )
        return offered[chosen]
    if group.get("human_completion") is not None:
        return _rated(group["human_completion"])
    # Where labelling stopped at an error, the wrong step is offered but not chosen.
    return offered[0] if is_last and len(offered) == 1 else None


def _path(groups: list[Any]) -> Iterator[tuple[str, float | None]]:
    for index, group in enumerate(groups):
        step = _chosen(group, index == len(groups) - 1)
        if step is None:
            return
        yield step


def _completions(problem: Problem, groups: list[Any], meta: dict[str, Any]) -> Iterator[Record]:
    """One record per rated completion, after the chosen steps before it."""
    before: list[str] = []
    for position, group in enumerate(groups):
        for index, (text, rating) in enumerate(_offered(group)):
            if rating is None:
                continue
            steps = tuple(Step(text=t) for t in (*before, text))
            yield Record(
                trajectory=Trajectory(problem=problem, steps=steps, separator=SEPARATOR),
                labels=_labels([None] * len(before) + [rating]),
                meta={**meta, "position": position, "completion": index},
            )
        step = _chosen(group, is_last=False)
        if step is None:
            return
        before.append(step[0])


def _labels(ratings: list[float | None]) -> StepLabels:
    return StepLabels(values=tuple(ratings), kind="human", source="PRM800K")


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    labels = policy.apply(labelled(record, "PRM800K"))
    ratings = _ratings(labels.kind, labels.values)
    trajectory, problem = record.trajectory, record.trajectory.problem
    steps = [
        {
            "completions": [{"text": step.text, "rating": None if rating is None else int(rating)}],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for step, rating in zip(trajectory.steps, ratings, strict=True)
    ]
    reason = record.meta.get("finish_reason") or (
        "found_error" if -1 in ratings else "solution" if trajectory.finish != "open" else "give_up"
    )
    question = {**problem.meta, "problem": problem.text, "ground_truth_answer": problem.answer}
    label = {"steps": steps, "total_time": record.meta.get("total_time", 0)}
    outer = {
        k: v
        for k, v in record.meta.items()
        if k not in ("finish_reason", "total_time", "last_group_ambiguous")
    }
    return {**outer, "question": question, "label": {**label, "finish_reason": reason}}


def _ratings(kind: LabelKind, values: tuple[float | None, ...]) -> list[float | None]:
    if kind == "human":
        return list(values)
    if any(v not in (0, 1, None) for v in values):
        raise LabelPolicyNeeded(
            "PRM800K holds ratings of -1, 0 and 1, and these labels are soft. Say above which "
            "value a step is right: --threshold"
        )
    return [None if v is None else 2 * v - 1 for v in values]


FORMAT = Format(
    "prm800k",
    "PRM800K, official nesting or its inner part; ratings -1, 0, 1",
    _matches,
    _read,
    _write,
    views=("path", "completions"),
)
