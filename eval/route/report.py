"""What a simulation of routers came to, as a table and as a page with plots. Knows no simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from rich.table import Table

from sluice.eval.route.svg import Line, line_chart

HIT_BAR = 0.95
"""Share of the omniscient bound's hits that is aimed at."""
LOAD_BAR = 0.15
"""Distance from the mean load that is aimed at."""


@dataclass(frozen=True, slots=True)
class Row:
    """One router over one number of replicas."""

    router: str
    num_replicas: int
    num_requests: int
    hit_rate: float
    of_bound: float
    """Hits as a share of those of a memory that holds everything everywhere."""
    bound: float
    """That memory's hit rate."""
    pooled: float
    """Hit rate of all replicas' memory as one."""
    tokens_computed: int
    load_min: float
    load_max: float
    """The least and the most loaded replica's work over the mean, less 1."""
    ttft_p50_ms: float
    ttft_p95_ms: float


COLUMNS = (
    "replicas", "router", "hits", "of bound", "bound", "pooled", "M tokens computed", "load", "TTFT p50 / p95 ms",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row as it is shown."""
    return [
        f"{row.num_replicas:,}",
        row.router,
        f"{row.hit_rate:.3f}",
        f"{row.of_bound:.3f}",
        f"{row.bound:.3f}",
        f"{row.pooled:.3f}",
        f"{row.tokens_computed / 1e6:.1f}",
        f"{row.load_min:+.0%} … {row.load_max:+.0%}",
        f"{row.ttft_p50_ms:,.0f} / {row.ttft_p95_ms:,.0f}",
    ]


def table(rows: Sequence[Row], title: str) -> Table:
    """All rows for the terminal."""
    shown = Table(title=title, title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == "router" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """All rows as a table in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(tuple(cells(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """A chart of each figure over the number of replicas, as SVG by a name for its file."""
    routers = list(dict.fromkeys(row.router for row in rows))

    def lines(value: Callable[[Row], float]) -> list[Line]:
        return [Line(name, [(row.num_replicas, value(row)) for row in rows if row.router == name]) for name in routers]

    return {
        "hits": line_chart("Prefix hits, share of the omniscient bound", lines(lambda row: row.of_bound), bar=HIT_BAR),
        "load": line_chart(
            "Most loaded replica, work over the mean", lines(lambda row: 1 + row.load_max), bar=1 + LOAD_BAR
        ),
        "ttft": line_chart("Time to first token, p95, seconds", lines(lambda row: row.ttft_p95_ms / 1e3)),
        "computed": line_chart("Million prompt tokens computed", lines(lambda row: row.tokens_computed / 1e6)),
    }


def page(rows: Sequence[Row], title: str, command: str) -> str:
    """All rows as a page of its own, with plots."""
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(row))}</tr>" for row in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem .6rem;text-align:right}"
        "main{overflow-x:auto}svg{max-width:100%;height:auto}code{font-size:.85em}</style>"
        f"<h1>{escape(title)}</h1><p><code>{escape(command)}</code></p>{''.join(charts(rows).values())}"
        f"<main><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></main></html>\n"
    )
