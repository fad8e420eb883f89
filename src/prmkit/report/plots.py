"""Plots as SVG, drawn here: numbers in, markup out; no script, no style that a policy forbids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from prmkit.evaluation.calibration import Calibration


class Line(NamedTuple):
    """One line of a plot.

    Attributes:
        name: beside its end.
        kind: of its style: a class of the page's style sheet.
        values: one per x, in [0, 1].
        low: lower ends of intervals, where there are some.
        high: upper ends.
    """

    name: str
    kind: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class _Frame(NamedTuple):
    """Where a plot's axes lie, in units of the picture."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def x(self, share: float) -> float:
        return round(self.left + share * (self.width - self.left - self.right), 1)

    def y(self, share: float) -> float:
        return round(self.height - self.bottom - share * (self.height - self.top - self.bottom), 1)


def curves(
    numbers: Sequence[float],
    lines: Sequence[Line],
    label: str,
    axis: str = "samples per problem (N)",
) -> Markup:
    """Lines over numbers, on a logarithmic axis.

    Args:
        numbers: such as of samples, rising, above 0.
        lines: with one value per number.
        label: what the picture shows, for those who cannot see it.
        axis: what the numbers are.
    """
    frame = _Frame(640, 340, 52, 146, 16, 46)
    values = [
        v for line in lines for part in (line.values, line.low, line.high) for v in part or ()
    ]
    low, high = _around(min(values), max(values))
    span = math.log2(numbers[-1]) - math.log2(numbers[0]) or 1.0

    def at(n: float, value: float) -> tuple[float, float]:
        share = (math.log2(n) - math.log2(numbers[0])) / span
        return frame.x(share), frame.y((value - low) / (high - low))

    parts = [_grid(frame, low, high)]
    for n in numbers:
        x, _ = at(n, low)
        parts.append(_text(x, frame.height - 26, f"{n:g}", "tick middle"))
    middle = frame.x(0.5)
    parts.append(_text(middle, frame.height - 6, axis, "tick middle"))
    ends = _spread([at(numbers[-1], line.values[-1])[1] for line in lines], 15)
    for line, end in zip(lines, ends, strict=True):
        points = [at(n, v) for n, v in zip(numbers, line.values, strict=True)]
        if line.low is not None and line.high is not None:
            around = [at(n, v) for n, v in zip(numbers, line.high, strict=True)]
            around += [at(n, v) for n, v in zip(numbers, line.low, strict=True)][::-1]
            edge = " ".join(f"{x},{y}" for x, y in around)
            parts.append(Markup('<polygon class="band" points="{}"/>').format(edge))
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.kind, path))
        for (x, y), n, value in zip(points, numbers, line.values, strict=True):
            parts.append(
                Markup(
                    '<circle class="dot {}" cx="{}" cy="{}" r="3.2"><title>{}</title></circle>'
                ).format(line.kind, x, y, f"{line.name}, {n:g}: {value:.3f}")
            )
        name = f"{line.name} {line.values[-1]:.2f}"
        parts.append(_text(frame.width - frame.right + 10, end + 4, name, f"name {line.kind}"))
    return _svg(frame, parts, label)


def reliability(measured: Calibration) -> Markup:
    """How often steps are right, by their score; the size of a dot shows how many there are."""
    frame = _Frame(400, 340, 52, 16, 16, 46)
    parts = [_grid(frame, 0.0, 1.0)]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(_text(frame.x(tick), frame.height - 26, f"{tick:.1f}", "tick middle"))
    parts.append(_text(frame.x(0.5), frame.height - 6, "score of a step", "tick middle"))
    parts.append(
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            frame.x(0), frame.y(0), frame.x(1), frame.y(1)
        )
    )
    filled = [b for b in measured.bins if b.mean_score is not None and b.share_right is not None]
    most = max((b.n for b in filled), default=1)
    path = " ".join(f"{frame.x(b.mean_score or 0)},{frame.y(b.share_right or 0)}" for b in filled)
    parts.append(Markup('<polyline class="line prm" points="{}"/>').format(path))
    for b in filled:
        told = f"{b.n} steps scored {b.low:.1f} to {b.high:.1f}: {b.share_right:.2f} are right"
        parts.append(
            Markup(
                '<circle class="dot prm" cx="{}" cy="{}" r="{}"><title>{}</title></circle>'
            ).format(
                frame.x(b.mean_score or 0),
                frame.y(b.share_right or 0),
                round(2 + 7 * math.sqrt(b.n / most), 1),
                told,
            )
        )
    label = (
        f"Share of right steps by score; expected calibration error {measured.expected_error:.3f}"
    )
    return _svg(frame, parts, label)


def profile(
    shares: Sequence[float], threshold: float | None, truth: int | None, found: int | None
) -> Markup:
    """The scores of a solution's steps as a line.

    Args:
        shares: one per step, in [0, 1].
        threshold: on the same scale; a dashed line.
        truth: the first step that is really wrong, a ring.
        found: the first step below the threshold, filled.
    """
    frame = _Frame(220, 74, 8, 8, 8, 8)
    last = max(len(shares) - 1, 1)
    points = [(frame.x(i / last), frame.y(share)) for i, share in enumerate(shares)]
    parts = [
        Markup('<line class="axis" x1="{0}" y1="{2}" x2="{1}" y2="{2}"/>').format(
            frame.x(0), frame.x(1), frame.y(0)
        )
    ]
    if threshold is not None:
        parts.append(
            Markup('<line class="ideal" x1="{0}" y1="{2}" x2="{1}" y2="{2}"/>').format(
                frame.x(0), frame.x(1), frame.y(threshold)
            )
        )
    path = " ".join(f"{x},{y}" for x, y in points)
    parts.append(Markup('<polyline class="line prm" points="{}"/>').format(path))
    for index, (x, y) in enumerate(points):
        kind = "found" if index == found else "prm"
        parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(kind, x, y))
    if truth is not None:
        x, y = points[truth]
        parts.append(Markup('<circle class="truth" cx="{}" cy="{}" r="6.5"/>').format(x, y))
    return _svg(frame, parts, "Score by step: " + ", ".join(f"{s:.2f}" for s in shares), "profile")


def _svg(frame: _Frame, parts: Sequence[Markup], label: str, kind: str = "plot") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, frame.width, frame.height, label, Markup("").join(parts)
    )


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, x, y, escape(text))


def _grid(frame: _Frame, low: float, high: float) -> Markup:
    """Lines across, with numbers at the left."""
    step = 0.2 if high - low > 0.6 else 0.1 if high - low > 0.25 else 0.05
    parts = []
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    for k in range(first, last + 1):
        value = k * step
        y = frame.y((value - low) / (high - low))
        parts.append(
            Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
                frame.x(0), y, frame.x(1), y
            )
        )
        parts.append(
            _text(frame.left - 8, y + 4, f"{value:.2f}".rstrip("0").rstrip("."), "tick end")
        )
    return Markup("").join(parts)


def _around(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis of shares around values, on tenths."""
    low = max(0.0, math.floor(low * 10 - 0.2) / 10)
    high = min(1.0, math.ceil(high * 10 + 0.2) / 10)
    return (low, high) if high - low >= 0.1 else (max(0.0, high - 0.1), max(high, 0.1))


def _spread(ys: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, near the wanted ones, in the same order."""
    order = sorted(range(len(ys)), key=ys.__getitem__)
    placed = [ys[i] for i in order]
    for _ in range(50):
        for k in range(len(placed) - 1):
            lack = gap - (placed[k + 1] - placed[k])
            if lack > 0:
                placed[k] -= lack / 2
                placed[k + 1] += lack / 2
    result = list(ys)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result


def along(points: Sequence[tuple[float, float, int]], label: str) -> Markup:
    """Mean scores along the way from the first step to the last; dots by how many there are.

    Args:
        points: place in [0, 1], mean score, how many.
        label: what the picture shows, for those who cannot see it.
    """
    frame = _Frame(400, 340, 52, 16, 16, 46)
    values = [value for _, value, _ in points]
    low, high = _around(max(min(values), 0.0), min(max(values), 1.0))
    parts = [_grid(frame, low, high)]
    for tick in (0.0, 0.5, 1.0):
        name = {0.0: "first", 0.5: "middle", 1.0: "last"}[tick]
        parts.append(_text(frame.x(tick), frame.height - 26, name, "tick middle"))
    parts.append(_text(frame.x(0.5), frame.height - 6, "place of a step", "tick middle"))
    places = [(frame.x(x), frame.y((v - low) / (high - low))) for x, v, _ in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    parts.append(Markup('<polyline class="line prm" points="{}"/>').format(path))
    most = max(n for _, _, n in points)
    for (x, y), (_, value, n) in zip(places, points, strict=True):
        parts.append(
            Markup(
                '<circle class="dot prm" cx="{}" cy="{}" r="{}"><title>{}</title></circle>'
            ).format(x, y, round(2 + 5 * math.sqrt(n / most), 1), f"{value:.3f} of {n} steps")
        )
    return _svg(frame, parts, label)
