"""The page of a policy's training: is it learning, and what does it cost?

Curves over steps or sampled tokens, alarms of the monitors on them and in a list. The run may be
at work still: a line that is not whole yet is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from prmkit.errors import FormatError, NothingToMeasure, RunFolderError
from prmkit.files import open_text
from prmkit.report.over_time import Mark, Series, Size, over_time, short
from prmkit.report.page import write_page

METRICS, CONFIG = "metrics.jsonl", "config.json"

ALARMS, SETTINGS, LONGEST = 200, 300, 400
"""Alarms and settings in their tables at most, and characters of one text."""

HUGE = 1e15
"""A figure beyond this is none: no axis could show it beside others."""

LARGE, SMALL = Size(1000, 340), Size(360, 220)

Axis = Literal["step", "tokens"]
AXES: dict[Axis, str] = {"step": "step", "tokens": "sampled tokens"}

FIRST: dict[str, str] = {
    "accuracy": "accuracy, of samples",
    "prm": "PRM score",
    "eval_accuracy": "accuracy, evaluated",
    "eval_greedy": "accuracy, evaluated greedily",
}
"""Figures of the large plot; a PRM score that is no share has a plot of its own."""

PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Reward", {"reward": "reward"}),
    ("PRM score", {"prm": "PRM score"}),
    (
        "Scores against correctness",
        {"prm_auc": "AUC of scores", "prm_accuracy": "accuracy of the implicit model"},
    ),
    ("Steps of a response", {"steps": "steps"}),
    ("Tokens of a response", {"length": "tokens"}),
    ("Lowest score at the last step", {"last_lowest": "share"}),
    (
        "Cut off, repeating, not scored",
        {"truncated": "cut off", "repetition": "repetition", "unscored": "not scored"},
    ),
    ("KL from the reference", {"kl": "nats a token"}),
    ("Entropy", {"entropy": "nats a token"}),
    ("Groups that teach", {"kept": "share"}),
    ("Episodes that could not be played", {"not_played": "episodes"}),
    ("Loss of the implicit model", {"prm_loss": "loss"}),
    ("Tokens clipped", {"clipped": "share"}),
    ("Loss", {"loss": "loss"}),
    ("Norm of the gradient", {"grad_norm": "norm"}),
)
"""Headings, and figures with their names."""


class _Alarm(NamedTuple):
    row: int
    step: str
    monitor: str
    value: str
    baseline: str
    message: str


class _Panel(NamedTuple):
    heading: str
    keys: list[tuple[str, str, str]]
    plots: list[tuple[Axis, Markup]]


class _Run(NamedTuple):
    """A run as its folder tells it.

    Attributes:
        rows: one a step, steps rising; finite figures alone.
        alarms: of all rows.
        axes: x of each row, for each axis that all rows have.
    """

    rows: list[dict[str, float]]
    alarms: list[_Alarm]
    axes: dict[Axis, list[float]]


def write_rl(path: Path | str, run: Path | str, *, title: str) -> None:
    """Write the page of a run as one HTML file, which appears whole or not at all.

    Args:
        path: of the file.
        run: its folder, with ``metrics.jsonl`` and, where there is one, ``config.json``.
        title: at its top.

    Raises:
        RunFolderError: if there are no metrics.
        FormatError: if they cannot be read.
        NothingToMeasure: if no step is done yet.
    """
    folder = Path(run)
    read = _read(folder / METRICS)
    panels = [p for p in (_panel(read, *panel) for panel in _headings(read)) if p is not None]
    write_page(
        "rl.html",
        path,
        title=title,
        about=_so_far(read),
        tiles=_tiles(read),
        axes=[(axis, AXES[axis]) for axis in read.axes],
        first=_panel(read, "Accuracy and PRM score", _first(read), LARGE),
        panels=panels,
        alarms=read.alarms[:ALARMS],
        n_alarms=len(read.alarms),
        settings=_settings(folder / CONFIG),
    )


def _read(file: Path) -> _Run:
    if not file.is_file():
        raise RunFolderError(
            f"{str(file.parent)!r} has no {METRICS}; name the folder of a run of reinforcement "
            "learning"
        )
    by_step: dict[float, dict[str, Any]] = {}
    with open_text(file) as lines:
        for number, line in enumerate(lines, 1):
            # What is written at this moment has no end yet.
            if not line.endswith("\n"):
                break
            by_step_of = _row(line, file, number)
            by_step[by_step_of["step"]] = by_step_of
    if not by_step:
        raise NothingToMeasure(f"{file} has no row yet: no step of the run is done")
    ordered = [by_step[step] for step in sorted(by_step)]
    rows = [{k: float(v) for k, v in row.items() if _finite(v)} for row in ordered]
    alarms = [
        _alarm(i, given, rows[i]["step"])
        for i, row in enumerate(ordered)
        for given in _listed(row.get("alarms"))
    ]
    axes: dict[Axis, list[float]] = {"step": [row["step"] for row in rows]}
    tokens = [row["sampled_tokens"] for row in rows if "sampled_tokens" in row]
    if len(tokens) == len(rows) and tokens == sorted(tokens):
        axes["tokens"] = tokens
    return _Run(rows, alarms, axes)


def _row(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not _finite(row.get("step")):
        raise FormatError("expected an object of JSON with the number of a 'step'", file, number)
    return row


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= HUGE


def _alarm(row: int, given: object, step: float) -> _Alarm:
    """An alarm as its row has it; from another hand, it may be anything."""
    told: Mapping[str, Any] = given if isinstance(given, dict) else {"message": given}

    def number(name: str) -> str:
        value = told.get(name)
        return f"{value:.4g}" if _finite(value) else "–"

    return _Alarm(
        row,
        f"{step:g}",
        _text(told.get("monitor", "")),
        number("value"),
        number("baseline"),
        _text(told.get("message", "")),
    )


def _text(value: object, longest: int = 2 * LONGEST) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # Half of a surrogate pair is no text that a file could hold.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _first(read: _Run) -> dict[str, str]:
    return {k: v for k, v in FIRST.items() if k != "prm" or _is_share(read, "prm")}


def _headings(read: _Run) -> list[tuple[str, dict[str, str]]]:
    """The small plots; a PRM score that is in the large one is not shown again."""
    shown = _first(read)
    return [(heading, names) for heading, names in PANELS if not set(names) <= set(shown)]


def _is_share(read: _Run, name: str) -> bool:
    return all(0 <= row.get(name, 0.0) <= 1 for row in read.rows)


def _panel(read: _Run, heading: str, names: Mapping[str, str], size: Size = SMALL) -> _Panel | None:
    """The figures of one plot, once for each axis; None where the run has none of them."""
    present = [name for name in names if any(name in row for row in read.rows)]
    if not present:
        return None
    monitors = {*names, "divergence"} if "accuracy" in names else set(names)
    alarms = [alarm for alarm in read.alarms if alarm.monitor in monitors]
    plots = []
    for axis, xs in read.axes.items():
        series = [
            Series(
                names[name],
                f"a{i}",
                [(x, row[name]) for x, row in zip(xs, read.rows, strict=True) if name in row],
                dots=name.startswith("eval_"),
            )
            for i, name in enumerate(present)
        ]
        told = ", ".join(
            f"{s.name} from {short(s.points[0][1])} to {short(s.points[-1][1])}" for s in series
        )
        marks = [Mark(xs[a.row], f"{a.monitor}, step {a.step}: {a.message}") for a in alarms]
        label = f"{heading} against {AXES[axis]}: {told}; {len(marks)} alarms"
        plots.append((axis, over_time(series, marks, size, label, AXES[axis])))
    last = {n: next(row[n] for row in reversed(read.rows) if n in row) for n in present}
    keys = [(f"a{i}", names[name], short(last[name])) for i, name in enumerate(present)]
    return _Panel(heading, keys, plots)


def _tiles(read: _Run) -> list[tuple[str, str, str]]:
    """Name, number and explanation of the main figures."""
    last = read.rows[-1]
    tiles = []
    for name, what in (
        ("eval_accuracy", "accuracy, evaluated"),
        ("eval_greedy", "evaluated greedily"),
    ):
        looked = [row for row in read.rows if name in row]
        if looked:
            tiles.append((what, _change(looked, name), _certainty(looked, name)))
    if not tiles:
        known = [row for row in read.rows if "accuracy" in row]
        if known:
            note = "right of the samples it learnt from, in its first and last step"
            tiles.append(("accuracy", _change(known, "accuracy"), note))
    scored = [row for row in read.rows if "prm" in row]
    if scored:
        tiles.append(
            ("PRM score", _change(scored, "prm"), "mean over samples, first and last step")
        )
    if "sampled_tokens" in last:
        tiles.append(("sampled tokens", short(last["sampled_tokens"]), "drawn in all"))
    if "seconds" in last:
        tiles.append(("time", _time(last["seconds"]), f"{short(last['seconds'])} seconds"))
    first = f"the first at step {read.alarms[0].step}" if read.alarms else "nothing was unusual"
    tiles.append(("alarms", str(len(read.alarms)), first))
    return tiles


def _change(rows: Sequence[Mapping[str, float]], name: str) -> str:
    first, last = rows[0][name], rows[-1][name]
    return f"{last:.3f}" if len(rows) == 1 else f"{first:.3f} → {last:.3f}"


def _certainty(rows: Sequence[Mapping[str, float]], name: str) -> str:
    """The intervals of the first and the last evaluation, where the number of problems is told.

    Wilson's, of a share of that many problems; for a mean over several samples of each it is on
    the safe side.
    """
    ends = [rows[0], rows[-1]] if len(rows) > 1 else [rows[0]]
    shown = []
    for row in ends:
        n = row.get("eval_problems", 0.0)
        if n < 1 or not 0 <= row[name] <= 1:
            return "of problems it does not learn from"
        low, high = wilson(row[name], n)
        shown.append(f"{low:.3f} to {high:.3f}")
    n_problems = short(ends[-1]["eval_problems"])
    return f"95 % interval {' → '.join(shown)}, {n_problems} problems"


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of n, in [0, 1].

    Reference: Wilson 1927, Journal of the American Statistical Association 22.
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _time(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _settings(file: Path) -> dict[str, str]:
    """Names and values of the configuration, those inside of others with their path."""
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"expected JSON: {error}", file) from None
    found: dict[str, str] = {}
    waiting: list[tuple[str, object]] = [("", config)]
    while waiting and len(found) < SETTINGS:
        name, value = waiting.pop()
        if isinstance(value, dict):
            inner = [(f"{name}.{k}" if name else k, v) for k, v in value.items()]
            waiting += reversed(inner)
        elif value not in (None, "", []):
            found[_text(name, LONGEST)] = _text(value, LONGEST)
    return found


def _so_far(read: _Run) -> str:
    """How many steps are done; a row of evaluation alone, before the first, is none."""
    n = sum(any(key in row for key in ("reward", "accuracy", "loss", "kept")) for row in read.rows)
    return f"{n} step{'' if n == 1 else 's'}"
