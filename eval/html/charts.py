"""The report's plots, from figures to SVG. What a policy looks like is decided once, for all of them (`Looks`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from sluice.compressor import Mode
from sluice.eval.bootstrap import Ratio
from sluice.eval.html import svg
from sluice.eval.policies.untouched import Untouched
from sluice.eval.report import Figures

WIDTH = 720.0
PANEL_WIDTH = 410.0
MAX_COST = 1.4
"""Costs above it are drawn at the edge: one bad frame must not squeeze all the others."""
NUM_COLOURS = 6
MAX_SOURCES = 10
ROW = 26.0
LABEL_GAP = 14.0
CHAR = 6.4
"""About the width of a character of a label."""


class Looks:
    """Gives each policy a class of the style sheet: systems have colours, frames are grey."""

    def __init__(self, rows: Sequence[Figures]) -> None:
        systems = [row.policy for row in rows if row.measured]
        modes = [name for name in systems if name.split(" ")[0] in set(Mode)]
        self.systems = [*modes, *(name for name in systems if name not in modes)]
        self._classes = {name: f"c{number % NUM_COLOURS}" for number, name in enumerate(self.systems)}

    def __call__(self, policy: str) -> str:
        """The class."""
        return self._classes.get(policy, "base" if policy == Untouched.name else "frame")

    def legend(self, names: Sequence[str]) -> str:
        """What colour means whom."""
        items = (f'<li><span class="key {self(name)}"></span>{escape(name)}</li>' for name in names)
        return f'<ul class="legend">{"".join(items)}</ul>'


def pareto(rows: Sequence[Figures], looks: Looks, *, kept: Callable[[Figures], Ratio | None], name: str) -> str:
    """Cost against one kind of fact kept. Random deletion is a line, the oracles are rings: the frame of the field."""
    known = [(row, row.input_cost, share) for row in rows if row.input_cost and (share := kept(row))]
    if not known:
        return ""
    left, right, top, bottom, width, height = 44.0, 14.0, 40.0, 46.0, PANEL_WIDTH, 380.0
    costs, shares = [cost.value for _, cost, _ in known], [share.value for _, _, share in known]
    x = svg.Scale(
        max(0.0, min(*costs, MAX_COST) - 0.08),
        max(1.0, *(min(cost, MAX_COST) for cost in costs)) + 0.06,
        left,
        width - right,
    )
    y = svg.Scale(max(0.0, min(shares) - 0.03), 1.0, height - bottom, top)
    drawn = svg.across(x, top=top, bottom=height - bottom, name="input cost against untouched (×)")
    drawn += svg.upward(y, left=left, right=width - right, name=f"share of needed {name} kept")
    random = [(row, cost, share) for row, cost, share in known if row.policy.startswith(("random", Untouched.name))]
    line = sorted(((cost.value, share.value) for _, cost, share in random), reverse=True)
    if len(line) > 1:
        drawn.append(svg.path([(x(cost), y(share)) for cost, share in line], class_="random"))
    labels: list[tuple[float, float, str, str]] = []
    for row, cost, share in known:
        look = looks(row.policy)
        place = x(cost.value), y(share.value)
        if look not in ("frame", "base"):
            drawn.append(
                svg.element("line", x1=x(cost.low), x2=x(cost.high), y1=place[1], y2=place[1], class_=f"bar {look}")
            )
            drawn.append(
                svg.element("line", y1=y(share.low), y2=y(share.high), x1=place[0], x2=place[0], class_=f"bar {look}")
            )
        tip = f"{row.policy}: input cost ×{cost.value:.3f} ({cost.low:.3f}–{cost.high:.3f}), {name} {share.value:.4f}"
        is_ring = row.policy.startswith("oracle")
        drawn.append(_dot(*place, tip, f"ring {look}" if is_ring else look, radius=5.5))
        beyond = f" (×{cost.value:.2f}) →" if cost.value > x.high else ""
        labels.append((*place, row.policy + beyond, look))
    return svg.figure(
        [*drawn, *_labels(labels, width - right, top, height - bottom)],
        width=width,
        height=height,
        title=f"Cost against {name} kept",
        description="Up and to the left is better. "
        + "; ".join(f"{row.policy} ×{cost.value:.3f}, {share.value:.3f}" for row, cost, share in known),
    )


def by_turn(rows: Sequence[Figures], looks: Looks) -> str:
    """Mean input cost of each turn, over the conversations that have it."""
    shown = _with_baseline(rows, looks, also=("mask-10",))
    longest = max((len(row.turn_costs) for row in shown), default=0)
    if longest < 2:
        return ""
    left, right, top, bottom, height = 54.0, 14 + 8.2 * max(len(row.policy) for row in shown), 34.0, 46.0, 330.0
    x = svg.Scale(1, longest, left, WIDTH - right)
    y = svg.Scale(0, max(max(row.turn_costs) for row in shown) * 1.03, height - bottom, top)
    drawn = svg.across(x, top=top, bottom=height - bottom, name="turn of the conversation")
    drawn += svg.upward(y, left=left, right=WIDTH - right, name="mean input cost of a turn (in uncached tokens)")
    ends = []
    for row in shown:
        points = [(x(float(turn)), y(cost)) for turn, cost in enumerate(row.turn_costs, 1)]
        drawn.append(svg.path(points, class_=f"curve {looks(row.policy)}"))
        ends.append(points[-1][1])
    for row, place in zip(shown, svg.spread(ends, LABEL_GAP, top), strict=True):
        drawn.append(svg.text(row.policy, WIDTH - right + 6, place + 4, class_=f"name {looks(row.policy)}"))
    totals = "; ".join(f"{row.policy} {sum(row.turn_costs):,.0f}" for row in shown)
    return svg.figure(
        drawn, width=WIDTH, height=height, title="Cost by turn", description=f"Sums of the means: {totals}"
    )


def by_source(rows: Sequence[Figures], looks: Looks) -> str:
    """Input cost of each role and tool, as a share of the untouched bill."""
    shown = _with_baseline(rows, looks)
    base = next((row.sources for row in shown if row.policy == Untouched.name), {})
    total = sum(base.values())
    if not total or len(shown) < 2:
        return ""
    names = list(base)[:MAX_SOURCES]
    bar, gap = 8.0, 10.0
    left, right, top, bottom = 14 + 7.4 * max(map(len, names)), 20.0, 10.0, 46.0
    height = top + len(names) * (bar * len(shown) + gap) + bottom
    x = svg.Scale(
        0, max(max(row.sources.get(name, 0.0) for name in names) for row in shown) / total, left, WIDTH - right
    )
    drawn = svg.across(x, top=top, bottom=height - bottom, name="share of the untouched input bill")
    for number, name in enumerate(names):
        start = top + number * (bar * len(shown) + gap) + gap / 2
        middle = start + bar * len(shown) / 2
        drawn.append(svg.text(name, left - 8, middle + 4, text_anchor="end", class_="tick"))
        for place, row in enumerate(shown):
            share = row.sources.get(name, 0.0) / total
            tip = f"{name}, {row.policy}: {share:.1%} of the untouched bill"
            drawn.append(
                svg.element(
                    "rect",
                    svg.element("title", escape(tip)),
                    x=left,
                    y=start + place * bar,
                    width=x(share) - left,
                    height=bar - 1.5,
                    class_=f"fill {looks(row.policy)}",
                    tabindex=0,
                    aria_label=tip,
                )
            )
    return svg.figure(
        drawn, width=WIDTH, height=height, title="Cost by tool", description="What each kind of message is billed at."
    )


def by_group(groups: Mapping[str, Sequence[Figures]], looks: Looks, *, by: str) -> str:
    """Input cost of each system on each group of conversations, with its interval."""
    lines = [
        (f"{group} ({row.num_traces})" if number == 0 else "", row, row.input_cost)
        for group, rows in groups.items()
        for number, row in enumerate(
            sorted((r for r in rows if r.measured), key=lambda r: looks.systems.index(r.policy))
        )
        if row.input_cost
    ]
    return _dots(
        [(name, row, [(cost.value, f"×{cost.value:.3f}")], (cost.low, cost.high)) for name, row, cost in lines],
        looks,
        title=f"Cost by {by}",
        axis="input cost against untouched (×)",
        mark=1.0,
    )


def latency(rows: Sequence[Figures], looks: Looks) -> str:
    """Median, 95th and 99th percentile of a request over HTTP."""
    lines = []
    for row in _with_baseline(rows, looks):
        if trip := row.round_trip:
            points = [(trip.p50_ms, "p50"), (trip.p95_ms, "p95"), (trip.p99_ms, "p99")]
            name = "straight to the recorder" if row.policy == Untouched.name else row.policy
            lines.append(
                (name, row, [(time, f"{name_} {time:.1f} ms") for time, name_ in points], (trip.p50_ms, trip.p99_ms))
            )
    return _dots(lines, looks, title="Latency", axis="a request over HTTP: p50, p95, p99 (ms)", is_log=True)


def _dots(
    lines: Sequence[tuple[str, Figures, Sequence[tuple[float, str]], tuple[float, float]]],
    looks: Looks,
    *,
    title: str,
    axis: str,
    mark: float | None = None,
    is_log: bool = False,
) -> str:
    """A line each, with dots and the range behind them."""
    if not lines:
        return ""
    lows, highs = [line[3][0] for line in lines], [line[3][1] for line in lines]
    left, right, top, bottom = 14 + 7.2 * max(len(line[0]) for line in lines), 20.0, 10.0, 46.0
    row_height = ROW if is_log else ROW * 0.62
    height = top + row_height * len(lines) + bottom
    low, high = (min(lows) * 0.8, max(highs) * 1.25) if is_log else (min(0.0, *lows), max(mark or 0.0, *highs) * 1.03)
    x = svg.Scale(max(low, 1e-3) if is_log else low, high, left, WIDTH - right, is_log=is_log)
    drawn = svg.across(x, top=top, bottom=height - bottom, name=axis)
    if mark is not None:
        drawn.append(svg.element("line", x1=x(mark), x2=x(mark), y1=top, y2=height - bottom, class_="mark"))
    for number, (name, row, points, ends) in enumerate(lines):
        y = top + row_height * (number + 0.5)
        if name and number and not is_log:
            between = top + row_height * number
            drawn.append(svg.element("line", x1=8, x2=WIDTH - right, y1=between, y2=between, class_="grid"))
        drawn.append(svg.text(name, left - 8, y + 4, text_anchor="end", class_="tick"))
        look = looks(row.policy)
        drawn.append(svg.element("line", x1=x(ends[0]), x2=x(ends[1]), y1=y, y2=y, class_=f"bar {look}"))
        drawn += [
            _dot(x(value), y, f"{name or row.policy}, {row.policy}: {tip}", look, radius=4.5) for value, tip in points
        ]
    described = "; ".join(f"{row.policy}: {', '.join(tip for _, tip in points)}" for _, row, points, _ in lines)
    return svg.figure(drawn, width=WIDTH, height=height, title=title, description=described)


def _with_baseline(rows: Sequence[Figures], looks: Looks, also: Sequence[str] = ()) -> list[Figures]:
    known = {row.policy: row for row in rows}
    return [known[name] for name in (Untouched.name, *looks.systems, *also) if name in known]


def _dot(x: float, y: float, tip: str, look: str, *, radius: float) -> str:
    title = svg.element("title", escape(tip))
    return svg.element("circle", title, cx=x, cy=y, r=radius, class_=f"dot {look}", tabindex=0, aria_label=tip)


def _labels(labels: Sequence[tuple[float, float, str, str]], right: float, top: float, bottom: float) -> list[str]:
    """Names beside their points: each at the nearest place, right or left, where it covers no point and no name."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _, _ in labels]
    drawn = []
    for x, y, name, look in sorted(labels, key=lambda each: each[3] in ("frame", "base")):  # systems choose first
        size = CHAR * len(name)
        steps = (number * LABEL_GAP / 2 * sign for number in range(60) for sign in (1, -1))
        places = ((x + 9 if is_right else x - 9 - size, y + step) for step in steps for is_right in (True, False))
        free = (
            (left, middle)
            for left, middle in places
            if left >= 0 and left + size <= right and top <= middle <= bottom
            if not any(_meet((left, middle - 6.5, left + size, middle + 6.5), box) for box in taken)
        )
        left, middle = next(free, (x + 9, y))
        taken.append((left, middle - 6.5, left + size, middle + 6.5))
        if abs(middle - y) > LABEL_GAP:
            near = left - 2 if left > x else left + size + 2
            drawn.append(svg.element("line", x1=x, y1=y, x2=near, y2=middle, class_="leader"))
        drawn.append(svg.text(name, left, middle + 4, class_=f"name {look}"))
    return drawn


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
