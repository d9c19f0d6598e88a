"""The benchmark's values as a table in Markdown: a row for each figure, a column for each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sluice.backend.bench.intervals import interval, ratio

Figures = dict[str, dict[str, list[float]]]
"""Subject → figure → one value a round."""


def render_table(
    figures: Figures, bounds: Mapping[str, float], ratios: Sequence[tuple[str, Sequence[float], Sequence[float]]]
) -> str:
    """Medians with their intervals, the bound where one is known; then `ratios` of values, round by round."""
    lines = [_row(["figure", *figures, "bound"]), _row(["---"] * (len(figures) + 2))]
    for figure in dict.fromkeys(name for values in figures.values() for name in values):
        cells = [str(interval(values[figure])) if figure in values else "" for values in figures.values()]
        lines.append(_row([figure, *cells, f"{bounds[figure]:.4g}" if figure in bounds else ""]))
    lines += ["", _row(["ratio", "median [95 %]"]), _row(["---"] * 2)]
    lines += [_row([name, str(ratio(values, others))]) for name, values, others in ratios]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
