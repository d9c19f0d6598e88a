"""Writes SVG: elements, scales and axes. Colours come from the page's style sheet, so that dark and light both read.

Knows no figure. A library would bring its own script or its own fonts; what is drawn here needs neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

MAX_TICKS = 6


def element(tag: str, *children: str, **attributes: object) -> str:
    """One element. `_` in an attribute's name stands for `-`, a trailing one is cut; children are markup already."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """A line of text."""
    return element("text", escape(content), x=x, y=y, **attributes)


def figure(drawn: list[str], *, width: float, height: float, title: str, description: str) -> str:
    """A drawing that fills the width it is given and is read out by its title and description."""
    return element(
        "svg",
        element("title", escape(title)),
        element("desc", escape(description)),
        *drawn,
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        role="img",
        aria_label=f"{title}. {description}",
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places on the drawing."""

    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; of one outside, the nearest place inside."""
        value = min(max(value, self.low), self.high)
        low, high, here = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        return self.start + (here - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, in order: at most six where the scale is linear, 1-2-5 steps where it is logarithmic."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = [step * 10.0**power for power in powers for step in (1, 2, 5)]
            inside = [step for step in steps if self.low <= step <= self.high]
            return inside if len(inside) <= 2 * MAX_TICKS else [step for step in inside if math.log10(step) % 1 == 0]
        span = (self.high - self.low) or 1.0
        rough = span / (MAX_TICKS - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def label(value: float) -> str:
    """A tick's label: no more digits than it needs."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def across(scale: Scale, *, top: float, bottom: float, name: str) -> list[str]:
    """The axis below a drawing, with lines up through it."""
    drawn = []
    for tick in scale.ticks():
        x = scale(tick)
        drawn.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        drawn.append(text(label(tick), x, bottom + 16, text_anchor="middle", class_="tick"))
    middle = (scale.start + scale.end) / 2
    return [*drawn, text(name, middle, bottom + 34, text_anchor="middle", class_="axis")]


def upward(scale: Scale, *, left: float, right: float, name: str) -> list[str]:
    """The axis at the left of a drawing, with lines across it; its name stands on top."""
    drawn = []
    for tick in scale.ticks():
        y = scale(tick)
        drawn.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        drawn.append(text(label(tick), left - 6, y + 4, text_anchor="end", class_="tick"))
    return [*drawn, text(name, left, scale.end - 10, text_anchor="start", class_="axis")]


def path(points: list[tuple[float, float]], **attributes: object) -> str:
    """A line through points."""
    return element("polyline", points=" ".join(f"{_number(x)},{_number(y)}" for x, y in points), **attributes)


def spread(places: list[float], gap: float, low: float) -> list[float]:
    """Places moved apart, in the same order: each two at least `gap` apart, none below `low`, else near their own."""
    order = sorted(range(len(places)), key=places.__getitem__)
    groups: list[tuple[list[int], float]] = []  # who, and where the first of them stands
    for index in order:
        groups.append(([index], max(low, places[index])))
        while len(groups) > 1 and groups[-2][1] + gap * len(groups[-2][0]) > groups[-1][1]:
            members = groups[-2][0] + groups[-1][0]
            middle = sum(places[each] for each in members) / len(members)
            groups[-2:] = [(members, max(low, middle - gap * (len(members) - 1) / 2))]
    moved = [0.0] * len(places)
    for members, first in groups:
        for number, each in enumerate(members):
            moved[each] = first + number * gap
    return moved


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
