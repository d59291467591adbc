"""Curves in a page: plain SVG, no script, readable on dark and on light."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.report.text import escaped

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 120, 12, 36
"""Margins: numbers on the left, names on the right."""
_LINE = 14
_TICKS = 5
_MAX_POINTS = 600
"""More than that do not show in so narrow a picture."""


@dataclass(frozen=True, slots=True)
class Curve:
    """points: (x, y) in rising x. colour: 0..3 of the page's; 3 is the faint one."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


def chart(curves: Sequence[Curve], x_name: str, in_sight: Sequence[float] = ()) -> str:
    """The curves in one frame, as SVG; "" when none has two points that are numbers.

    in_sight: values of y that the frame has to hold.
    """
    shown = [_cleaned(curve) for curve in curves]
    shown = [curve for curve in shown if len(curve.points) > 1]
    if not shown:
        return ""
    xs = [x for curve in shown for x, _ in curve.points]
    ys = [*in_sight, *(y for curve in shown for _, y in curve.points)]
    frame = _Frame(min(xs), max(xs), *_roomy(min(ys), max(ys)))
    parts = [*frame.grid(x_name), *(frame.line(curve) for curve in shown), *frame.names(shown)]
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escaped(", ".join(curve.name for curve in shown))}">{"".join(parts)}</svg>'
    )


def smoothed(
    points: Sequence[tuple[float, float]], share: float = 0.05
) -> list[tuple[float, float]]:
    """A running mean of y, each new point counting for `share`."""
    found: list[tuple[float, float]] = []
    for x, y in points:
        last = found[-1][1] if found else y
        found.append((x, last + share * (y - last)))
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    """From numbers to pixels."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        span = (self.x1 - self.x0) or 1.0
        return _LEFT + (value - self.x0) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return (
            _HEIGHT - _BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (_HEIGHT - _TOP - _BOTTOM)
        )

    def grid(self, x_name: str) -> Iterator[str]:
        for value in _ticks(self.y0, self.y1):
            y = self.y(value)
            yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
        for value in _ticks(self.x0, self.x1):
            yield (
                f'<text x="{self.x(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" '
                f'text-anchor="middle">{value:,.6g}</text>'
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        yield f'<text x="{middle}" y="{_HEIGHT - 2}" text-anchor="middle">{escaped(x_name)}</text>'

    def line(self, curve: Curve) -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in curve.points)
        return f'<polyline class="s{curve.colour}" points="{points}"/>'

    def names(self, curves: Sequence[Curve]) -> Iterator[str]:
        """Beside the last point of each, pushed apart where they would touch."""
        ordered = sorted(curves, key=lambda curve: -curve.points[-1][1])
        places: list[float] = []
        for curve in ordered:
            wanted = self.y(curve.points[-1][1]) + 4
            places.append(max([wanted, *(place + _LINE for place in places[-1:])]))
        for number, curve in enumerate(ordered):
            lowest = _HEIGHT - _BOTTOM - _LINE * (len(ordered) - 1 - number)
            yield (
                f'<text class="s{curve.colour}" x="{_WIDTH - _RIGHT + 8}" '
                f'y="{min(places[number], lowest):.1f}">{escaped(curve.name, 40)}</text>'
            )


def _cleaned(curve: Curve) -> Curve:
    points = [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]
    step = math.ceil(len(points) / _MAX_POINTS) or 1
    thinned = points[::step]
    return Curve(curve.name, thinned + points[-1:] * (points[-1:] != thinned[-1:]), curve.colour)


def _roomy(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two."""
    if high <= low:
        return [low]
    raw = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * nice for nice in (1, 2, 5, 10) if unit * nice >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]
