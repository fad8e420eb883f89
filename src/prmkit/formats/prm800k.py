"""PRM800K: human ratings of every completion that was offered at every step.

Reads the official nesting and its inner part alone. Two views: ``path``, one record per
trajectory along the chosen completions; ``completions``, one record per rated completion, in
which only that last step carries its rating. Whatever else a row says of its steps, such as
completions that were not chosen, waits in the record's ``meta["offered"]`` and is written again.

Source: Lightman et al. 2023, arXiv:2305.20050; github.com/openai/prm800k.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
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
    offered = [_bare(group) for group in groups]
    if meta.get("last_group_ambiguous"):
        groups = groups[:-1]
    path = [_rated(completion) for completion in _path(groups)]
    if offered != _groups(path):
        meta = {**meta, "offered": offered}
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
            id=str(data.get("id", row.id)),
            prompt=need(question, "problem", str),
            answer=question.get("ground_truth_answer"),
            meta=extras(question, ("problem", "ground_truth_answer")),
        )
        meta = {**extras(data, ("id", "question", "label")), **extras(label, ("steps",))}
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


def _bare(group: Mapping[str, Any]) -> dict[str, Any]:
    """A step as it is kept, without the nulls that a table fills in."""
    return {
        **extras(group, ()),
        "completions": [_bare_completion(c) for c in _offered(group)],
        "human_completion": _bare_completion(group.get("human_completion")),
        "chosen_completion": group.get("chosen_completion"),
    }


def _bare_completion(completion: Any) -> Any:
    if not isinstance(completion, dict):
        return completion
    return {**extras(completion, ()), "rating": completion.get("rating")}


def _offered(group: Mapping[str, Any]) -> list[Any]:
    """The completions of a step."""
    offered = group.get("completions") or []
    if not isinstance(offered, list):
        raise FormatError(f"'completions' is {offered!r:.80}; expected a list")
    return offered


def _rated(completion: Any) -> tuple[str, float | None]:
    if not isinstance(completion, dict):
        raise FormatError(f"a completion is {completion!r:.80}; expected an object with 'text'")
    rating = completion.get("rating")
    if rating not in (-1, 0, 1, None) or isinstance(rating, bool):
        raise FormatError(f"a rating is {rating!r}; expected -1, 0, 1 or null")
    return need(completion, "text", str), None if rating is None else float(rating)


def _chosen(group: Mapping[str, Any], is_last: bool) -> Any | None:
    """The completion that was gone on with, or None where that is not told."""
    offered = _offered(group)
    chosen = group.get("chosen_completion")
    if chosen is not None:
        if not isinstance(chosen, int) or not 0 <= chosen < len(offered):
            raise FormatError(
                f"'chosen_completion' is {chosen!r}, of {len(offered)} completions (0-based)"
            )
        return offered[chosen]
    if group.get("human_completion") is not None:
        return group["human_completion"]
    # Where labelling stopped at an error, the wrong step is offered but not chosen.
    return offered[0] if is_last and len(offered) == 1 else None


def _path(groups: list[Any]) -> Iterator[Any]:
    for index, group in enumerate(groups):
        completion = _chosen(group, index == len(groups) - 1)
        if completion is None:
            return
        yield completion


def _completions(problem: Problem, groups: list[Any], meta: dict[str, Any]) -> Iterator[Record]:
    """One record per rated completion, after the chosen steps before it."""
    before: list[str] = []
    for position, group in enumerate(groups):
        for index, (text, rating) in enumerate(map(_rated, _offered(group))):
            if rating is None:
                continue
            steps = tuple(Step(text=t) for t in (*before, text))
            yield Record(
                trajectory=Trajectory(problem=problem, steps=steps, separator=SEPARATOR),
                labels=_labels([None] * len(before) + [rating]),
                meta={**meta, "position": position, "completion": index},
            )
        completion = _chosen(group, is_last=False)
        if completion is None:
            return
        before.append(_rated(completion)[0])


def _labels(ratings: list[float | None]) -> StepLabels:
    return StepLabels(values=tuple(ratings), kind="human", source="PRM800K")


_TOLD_ELSEWHERE = ("finish_reason", "total_time", "last_group_ambiguous", "offered", "id")


def _write(record: Record, policy: LabelPolicy) -> dict[str, Any]:
    labels = policy.apply(labelled(record, "PRM800K"))
    ratings = _ratings(labels.kind, labels.values)
    trajectory, problem = record.trajectory, record.trajectory.problem
    path = [(step.text, r) for step, r in zip(trajectory.steps, ratings, strict=True)]
    outer = {k: v for k, v in record.meta.items() if k not in _TOLD_ELSEWHERE}
    steps = _offered_again(record, path)
    if steps is not None and record.meta.get("last_group_ambiguous"):
        outer["last_group_ambiguous"] = True
    reason = record.meta.get("finish_reason") or _reason(record, ratings)
    question = {**problem.meta, "problem": problem.text, "ground_truth_answer": problem.answer}
    label = {
        "steps": _groups(path) if steps is None else steps,
        "total_time": record.meta.get("total_time", 0),
        "finish_reason": reason,
    }
    return {"id": problem.id, **outer, "question": question, "label": label}


def _groups(path: Sequence[tuple[str, float | None]]) -> list[dict[str, Any]]:
    """Steps as they are written where one completion was offered at each, and chosen."""
    return [
        {
            "completions": [{"text": text, "rating": None if rating is None else int(rating)}],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for text, rating in path
    ]


def _offered_again(record: Record, path: Sequence[tuple[str, float | None]]) -> list[Any] | None:
    """What was offered when the record was read, rated anew along the path.

    None where nothing else was offered, or the record's steps are no longer those.
    """
    offered = record.meta.get("offered")
    if not isinstance(offered, list) or not all(isinstance(group, dict) for group in offered):
        return None
    groups: list[Any] = copy.deepcopy(offered)
    chosen = list(_path(groups[:-1] if record.meta.get("last_group_ambiguous") else groups))
    if [_rated(completion)[0] for completion in chosen] != [text for text, _ in path]:
        return None
    for completion, (_, rating) in zip(chosen, path, strict=True):
        completion["rating"] = None if rating is None else int(rating)
    return groups


def _reason(record: Record, ratings: list[float | None]) -> str:
    """Why labelling ended: at an error, unless steps after it are rated too."""
    ended = record.trajectory.finish not in ("open", "aborted")
    if -1 in ratings:
        went_on = any(r is not None for r in ratings[ratings.index(-1) + 1 :])
        return "solution" if ended and went_on else "found_error"
    return "solution" if ended else "give_up"


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
