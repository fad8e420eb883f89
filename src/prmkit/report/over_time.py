"""Plots of a run: figures of any size over steps or tokens, thousands of rows thinned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

POINTS = 160
"""A line has at most as many points; more rows are put together, with their lowest and highest."""
MARKS = 40
"""Alarms that are drawn on a plot, the first ones."""


class Series(NamedTuple):
    """One line.

    Attributes:
        name: of the figure.
        kind: of its style: a class of the page's style sheet.
        points: x and value, x rising; one at least.
        dots: draw each point, as for the few evaluations of a run.
    """

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


class Mark(NamedTuple):
    """An alarm on a plot: where, and what is told there."""

    x: float
    told: str


class _Point(NamedTuple):
    x: float
    value: float
    low: float
    high: float


class Size(NamedTuple):
    """Of a plot, in units of the picture."""

    width: int
    height: int


def over_time(
    series: Sequence[Series], marks: Sequence[Mark], size: Size, label: str, axis: str
) -> Markup:
    """Lines over steps or tokens, on linear axes that fit them.

    Args:
        series: the lines, one at least.
        marks: alarms.
        size: of the picture.
        label: what it shows, for those who cannot see it.
        axis: what x is.
    """
    left, right, top, bottom = 50, 14, 14, 40
    thin = [_thinned(line.points) for line in series]
    x_low, x_high = _limits([p.x for points in thin for p in points])
    lows = [p.low for points in thin for p in points]
    y_low, y_high = _limits(lows + [p.high for points in thin for p in points], rounded=True)

    def x(value: float) -> float:
        share = min(max((value - x_low) / (x_high - x_low), 0.0), 1.0)
        return round(left + share * (size.width - left - right), 1)

    def y(value: float) -> float:
        share = (value - y_low) / (y_high - y_low)
        return round(size.height - bottom - share * (size.height - top - bottom), 1)

    parts = []
    for value in _ticks(y_low, y_high, 3):
        parts.append(
            Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
                left, y(value), size.width - right, y(value)
            )
        )
        parts.append(_text(left - 8, y(value) + 4, short(value), "tick end"))
    for value in _ticks(x_low, x_high, max(3, size.width // 160)):
        parts.append(_text(x(value), size.height - bottom + 18, short(value), "tick middle"))
    middle = (left + size.width - right) / 2
    parts.append(_text(middle, size.height - 5, axis, "tick middle"))
    for line, points in zip(series, thin, strict=True):
        if any(p.high > p.low for p in points):
            edge = [(x(p.x), y(p.high)) for p in points]
            edge += [(x(p.x), y(p.low)) for p in reversed(points)]
            parts.append(
                Markup('<polygon class="band {}" points="{}"/>').format(line.kind, _path(edge))
            )
    for line, points in zip(series, thin, strict=True):
        places = [(x(p.x), y(p.value)) for p in points]
        parts.append(
            Markup('<polyline class="line {}" points="{}"/>').format(line.kind, _path(places))
        )
        if line.dots or len(points) == 1:
            for (at_x, at_y), p in zip(places, points, strict=True):
                told = f"{line.name}, {axis} {short(p.x)}: {short(p.value)}"
                parts.append(
                    Markup(
                        '<circle class="dot {}" cx="{}" cy="{}" r="3.6"><title>{}</title></circle>'
                    ).format(line.kind, at_x, at_y, told)
                )
    for mark in marks[:MARKS]:
        parts.append(_mark(x(mark.x), top, size.height - bottom, mark.told))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(size.width, size.height, label, Markup("").join(parts))


def _mark(x: float, top: float, bottom: float, told: str) -> Markup:
    return Markup(
        '<g><title>{}</title><line class="alarm" x1="{}" y1="{}" x2="{}" y2="{}"/>'
        '<polygon class="alarm-head" points="{}"/></g>'
    ).format(told, x, top, x, bottom, _path([(x - 5, top - 9), (x + 5, top - 9), (x, top)]))


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, f"{x:g}", f"{y:g}", text)


def _thinned(points: Sequence[tuple[float, float]]) -> list[_Point]:
    """At most `POINTS` points: means of neighbours, and what they lie between."""
    n = min(len(points), POINTS)
    ends = [round(k * len(points) / n) for k in range(n + 1)]
    found = []
    for begin, end in pairwise(ends):
        part = points[begin:end]
        values = [value for _, value in part]
        mean = math.fsum(values) / len(values)
        found.append(_Point(part[-1][0], mean, min(values), max(values)))
    return found


def _limits(values: Sequence[float], *, rounded: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high <= low:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    if rounded:
        margin = 0.04 * (high - low)
        # What has no negative values has no negative axis; shares end at 1.
        low = low - margin if low < 0 else max(low - margin, 0.0)
        high = min(high + margin, 1.0) if high <= 1 else high + margin
    return low, high


def _ticks(low: float, high: float, n: int) -> list[float]:
    """Round numbers inside of limits: n at least, and not much more."""
    size = 10.0 ** math.floor(math.log10((high - low) / n))
    found: list[float] = []
    for step in (size * k for k in (10, 5, 2, 1, 0.5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        found = [k * step for k in range(first, last + 1)]
        if len(found) >= n:
            break
    return found


def short(value: float) -> str:
    """A number in few characters: 0.0123, 4.5, 12.3k, 1.2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            size = 1e3 if unit == "k" else size
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
