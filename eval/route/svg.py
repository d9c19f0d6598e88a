"""A line chart as SVG text, over a logarithmic x axis. Knows nothing of what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 34, 34
_COLOURS = ("#8a8a8a", "#b26a00", "#9b4dca", "#0072b2", "#009e73", "#d55e00")
_NUM_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One named line."""

    name: str
    points: Sequence[tuple[float, float]]
    """x above 0, and y."""


def line_chart(title: str, lines: Sequence[Line], *, bar: float | None = None) -> str:
    """Draw the lines; `bar` is a dashed line at a value that is aimed at."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points] + ([bar] if bar is not None else [])
    step = _step(max(ys))
    low, high = min(0.0, *ys), step * max(1, math.ceil(max(ys) / step))
    span = math.log(xs[-1] / xs[0]) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log(x / xs[0]) / span if len(xs) > 1 else 0.5)
        return across, HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" fill="currentColor" '
        'font-family="system-ui,sans-serif" font-size="12">'
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>'
    ]
    for number in range(round(high / step) + 1):
        value = step * number
        _, y = place(xs[0], value)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>'
        )
    parts += [f'<text x="{place(x, low)[0]:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{x:g}</text>' for x in xs]
    if bar is not None:
        _, y = place(xs[0], bar)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="currentColor" stroke-dasharray="5 4"/>')
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [place(x, y) for x, y in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}')
        parts.append(
            f'<text x="{WIDTH - _RIGHT + 14}" y="{_TOP + 12 + 18 * number}" fill="{colour}">{escape(line.name)}</text>'
        )
    return "".join(parts) + "</svg>"


def _step(high: float) -> float:
    """Distance between ticks: a round number, so that there are five at the most."""
    rough = (high or 1.0) / _NUM_TICKS
    scale = 10.0 ** math.floor(math.log10(rough))
    return scale * next(factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * scale >= rough * (1 - 1e-9))


def as_file(chart: str) -> str:
    """The same chart as a file of its own, black on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" color="#000"'
    start = chart.index(">") + 1
    return f'{head}{chart[4:start]}<path d="M0 0H{WIDTH}V{HEIGHT}H0z" fill="#fff"/>{chart[start:]}\n'
