"""The page of an agent's episodes: turn by turn, with what was answered and how promise changed.

It is read in one pass and has a limited size, however long a run was: a few tasks, first those of
which some episodes succeeded and some failed, and a limited amount of text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.environments.actions import parts_of
from prmkit.evaluation.episodes import Mistake, changes, suspected_mistake
from prmkit.records import Record, Scored, StepScores
from prmkit.report import plots
from prmkit.report.page import SHADES, share, write_page

TASKS, EPISODES, TURNS = 12, 6, 40
"""Tasks that are shown, episodes of each, and turns of an episode, at most."""
LONGEST, CHARACTERS = 1_500, 1_000_000
"""Characters of one text, and of all turns, at most."""


class _Turn(NamedTuple):
    """A turn as the template shows it; one that is a number alone stands for turns left out."""

    number: int
    thought: str = ""
    action: str = ""
    after: str = ""
    observation: str | None = None
    score: str = ""
    shade: str = ""
    width: str = ""
    change: str = ""
    label: str = ""
    is_fall: bool = False
    left_out: int = 0


class _Episode(NamedTuple):
    number: int
    turns: list[_Turn]
    n_turns: int
    outcome: str
    is_right: bool | None
    overall: str
    pick: str
    open: bool
    answer: str | None
    error: str | None
    unscored: str | None
    fall: str
    is_scored: bool
    is_cut: bool


class _Task(NamedTuple):
    id: str
    text: str
    succeeded: int
    known: int
    n: int
    episodes: list[_Episode]
    open: bool


def write_episodes(
    path: Path | str,
    records: Iterable[Record],
    *,
    title: str,
    metrics: Mapping[str, Any] | None = None,
    aggregation: Aggregation = "last",
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of some episodes as one HTML file, which appears whole or not at all.

    Args:
        path: of the file.
        records: episodes, those of a task one after the other; read once. Their last scores and
            their labels are shown.
        title: at its top.
        metrics: of all of them, as ``prm play`` writes them.
        aggregation: scores of turns to one number, by which episodes are ordered.
        settings: of the run.
    """
    n_tasks, groups = _some(records)
    room = _Room(CHARACTERS)
    is_mixed = [len({record.trajectory.correct for record in group}) > 1 for group in groups]
    unfolded = is_mixed.index(True) if True in is_mixed else 0
    shown = [
        _task(group, aggregation, room, open_=place == unfolded)
        for place, group in enumerate(groups)
    ]
    metrics = metrics or {}
    at = metrics.get("at", [])
    scored = [record.scores[-1] for group in groups for record in group if record.scores]
    meanings = {one.semantics for one in scored if isinstance(one, StepScores)}
    write_page(
        "episodes.html",
        path,
        title=title,
        tiles=_tiles(metrics),
        curve=_curve(at),
        at=[_row(at) for at in at] if len(at) > 1 else [],
        tasks=shown,
        n_tasks=n_tasks,
        word="promise" if meanings <= {"value"} else "score",
        is_scored=bool(meanings),
        aggregation=aggregation,
        settings={k: v for k, v in (settings or {}).items() if v not in (None, [], (), "")},
    )


def _some(records: Iterable[Record]) -> tuple[int, list[list[Record]]]:
    """How many tasks there are, and some of them, in order."""
    mixed: list[tuple[int, list[Record]]] = []
    others: list[tuple[int, list[Record]]] = []
    n = 0
    for _, group in groupby(records, _task_key):
        kept = list(group)
        pile = mixed if len({record.trajectory.correct for record in kept}) > 1 else others
        if len(pile) < TASKS:
            pile.append((n, kept))
        n += 1
    return n, [group for _, group in sorted((mixed + others)[:TASKS], key=lambda one: one[0])]


def _task_key(record: Record) -> tuple[Any, ...]:
    """What tells a task; one that could not even begin does not say which environment it is of."""
    problem = record.trajectory.problem
    seed, name = problem.meta.get("seed"), problem.meta.get("task")
    return (problem.id,) if seed is None or name is None else (name, seed)


class _Room:
    """How many characters may still be shown."""

    def __init__(self, left: int):
        self.left = left

    def cut(self, text: str) -> str:
        """A text, or its beginning."""
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]} … and {len(text) - LONGEST:,} more characters"
        self.left -= len(text)
        return text


def _task(group: Sequence[Record], how: Aggregation, room: _Room, *, open_: bool) -> _Task:
    numbered = list(enumerate(group))
    best = sorted(numbered, key=lambda one: -_overall(one[1], how))
    n = min(EPISODES, len(best))
    chosen = next((k for k, (_, record) in enumerate(best) if _is_chosen(record)), 0)
    # Evenly from the best to the worst, both among them, and the one that a search chose.
    kept = sorted({round(k * (len(best) - 1) / max(n - 1, 1)) for k in range(n)} | {chosen})
    is_ranked = len(group) > 1 and math.isfinite(_overall(best[0][1], how))
    known = [record.trajectory.correct for record in group if record.trajectory.correct is not None]
    # One that could not begin does not say what was to be done.
    problem = max((record.trajectory.problem for record in group), key=lambda p: len(p.text))
    return _Task(
        room.cut(problem.id),
        room.cut(problem.text),
        sum(known),
        len(known),
        len(group),
        [
            _episode(
                *best[k],
                how,
                room,
                pick=_pick(best[k][1], is_ranked) if k == chosen else "",
                # Side by side: the best one and the worst.
                is_open=open_ and k in (kept[0], kept[-1]),
            )
            for k in kept
        ],
        open_,
    )


def _is_chosen(record: Record) -> bool:
    """Whether a search chose it."""
    told = record.meta.get("search")
    return isinstance(told, dict) and told.get("chosen") is True


def _pick(record: Record, is_ranked: bool) -> str:
    """Why an episode stands out."""
    if _is_chosen(record):
        return "chosen"
    return "best score" if is_ranked else ""


def _overall(record: Record, how: Aggregation) -> float:
    scored = record.scores[-1] if record.scores else None
    if not isinstance(scored, StepScores) or not scored.values:
        return -math.inf
    return aggregate_scores(scored, how)


def _episode(
    number: int,
    record: Record,
    how: Aggregation,
    room: _Room,
    *,
    pick: str,
    is_open: bool,
) -> _Episode:
    trajectory, overall = record.trajectory, _overall(record, how)
    scored = record.scores[-1] if record.scores else None
    is_scored = isinstance(scored, StepScores)
    mistake = suspected_mistake(scored) if isinstance(scored, StepScores) else None
    is_cut = room.left <= 0
    error = record.meta.get("error")
    outcome = {True: "solved", False: "failed", None: "not known"}[trajectory.correct]
    if trajectory.finish == "error":
        outcome = "not played to its end"
    elif trajectory.finish == "length":
        outcome += ": too long"
    return _Episode(
        number + 1,
        [] if is_cut else _turns(record, scored, mistake, room),
        len(trajectory.steps),
        outcome,
        trajectory.correct,
        f"{overall:.3f}" if math.isfinite(overall) else "",
        pick,
        is_open,
        None if trajectory.answer is None else room.cut(trajectory.answer),
        room.cut(str(error)) if error is not None else None,
        None if scored is None or isinstance(scored, StepScores) else room.cut(scored.reason),
        "" if mistake is None else f"{_signed(mistake.change)} at turn {mistake.turn + 1}",
        is_scored,
        is_cut,
    )


def _turns(
    record: Record,
    scored: Scored | None,
    mistake: Mistake | None,
    room: _Room,
) -> list[_Turn]:
    fall = None if mistake is None else mistake.turn
    changed = changes(scored) if isinstance(scored, StepScores) else []
    steps = record.trajectory.steps
    kept = set(range(len(steps)))
    if len(steps) > TURNS:
        half = TURNS // 2
        kept = {*range(half), *range(len(steps) - half, len(steps))}
        kept |= set() if fall is None else {max(fall - 1, 0), fall}
    turns: list[_Turn] = []
    for i, step in enumerate(steps):
        if i not in kept:
            if turns[-1].left_out:
                turns[-1] = turns[-1]._replace(left_out=turns[-1].left_out + 1)
            else:
                turns.append(_Turn(i + 1, left_out=1))
            continue
        thought, action, after = parts_of(step.text)
        turn = _Turn(
            i + 1,
            room.cut(thought),
            room.cut(action),
            room.cut(after),
            None if step.observation is None else room.cut(step.observation),
            is_fall=i == fall,
        )
        if isinstance(scored, StepScores):
            of_ten = round(SHADES * share(scored.values[i], scored.semantics))
            turn = turn._replace(
                score=f"{scored.values[i]:.2f}",
                shade=f"s{of_ten}",
                width=f"w{of_ten}",
                change="" if i == 0 else _signed(changed[i]),
            )
        label = record.labels.values[i] if record.labels else None
        turns.append(turn if label is None else turn._replace(label=f"{label:.2f}"))
    return turns


def _signed(change: float) -> str:
    return f"{change:+.2f}".replace("-", "−")


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and explanation of the main figures."""
    tiles: list[tuple[str, str, str]] = []
    if "success" in metrics:
        of = "single episodes"
        if "algorithm" in metrics:
            of = f"the episodes that {metrics['algorithm']} chose"
        tiles.append(("success", *_interval(metrics["success"], f"of {of}")))
        if "solved_by_any" in metrics:
            told = "the best possible choice"
            tiles.append(("any candidate", *_interval(metrics["solved_by_any"], told)))
    last = metrics["at"][-1] if metrics.get("at") else None
    if last is not None and last["n"] > 1:
        for name, told in (
            ("best", "by score"),
            ("majority", "the most frequent answer"),
            ("solved_by_any", "the best possible choice"),
        ):
            if name in last:
                heading = f"{name.replace('_', ' ')} of {last['n']}"
                tiles.append((heading, *_interval(last[name], told)))
    tiles += [
        (name.replace("_", " "), f"{metrics[name]:,}", told)
        for name, told in (
            ("episodes", f"of {metrics.get('tasks')} tasks"),
            ("environment_steps", "paid in all"),
            ("replayed", "of them, just to come back"),
            ("steps_of_an_episode", "on average"),
            ("steps_of_a_task", "of the environment, on average"),
            ("policy_tokens", "drawn in all"),
            ("scorings", "calls of the scorer"),
            ("not_played", "episodes that are no attempt"),
        )
        if metrics.get(name)
    ]
    return tiles


def _interval(value: Sequence[float], told: str) -> tuple[str, str]:
    mean, low, high = value
    return f"{mean:.3f}", f"{told}; {low:.3f} to {high:.3f}"


def _row(at: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A row of the table of N, numbers with their intervals; what is not measured is not there."""
    row = {"N": (str(at["n"]), ""), "steps": (f"{at['environment_steps']:.1f}", "")}
    for name in ("single", "majority", "best", "solved_by_any"):
        if name in at:
            mean, low, high = at[name]
            row[name.replace("_", " ")] = (f"{mean:.3f}", f"{low:.3f}–{high:.3f}")
    return row


def _curve(at: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Success against environment steps."""
    if len(at) < 2 or "best" not in at[0] or not at[0]["environment_steps"]:
        return None
    lines = [
        plots.Line(
            name.replace("_", " "),
            kind,
            [one[name][0] for one in at],
            # Of the choice that is looked at alone: bands would hide one another.
            *([one[name][end] for one in at] if name == "best" else None for end in (1, 2)),
        )
        for name, kind in (
            ("best", "prm"),
            ("majority", "majority"),
            ("single", "weighted"),
            ("solved_by_any", "oracle"),
        )
        if name in at[0]
    ]
    steps = [float(f"{one['environment_steps']:.3g}") for one in at]
    return plots.curves(
        steps,
        lines,
        "Share of tasks solved against environment steps: best by score, beside single episodes",
        "environment steps of a task",
    )
