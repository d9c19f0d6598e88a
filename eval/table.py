"""Shows figures as tables on the terminal. Knows no conversation and no policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from sluice.eval.bootstrap import Ratio
from sluice.eval.compare.run import Started
from sluice.eval.http import Agreement
from sluice.eval.replay import Options
from sluice.eval.report import Figures, Percentiles, Report


def policy_table(rows: Sequence[Figures], *, title: str) -> Table:
    """A row a policy, with intervals."""
    table = Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    for name in ("input cost ×", "bill ×", "tokens ×", "words", "lines", "places"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("peak", "rewrites", "markers", "recov.", "ms p50/p95"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        measured = row.measured
        table.add_row(
            escape(row.policy),
            *(_interval(value, 3) for value in (row.input_cost, row.bill, row.tokens)),
            *(_interval(value, 4) for value in (row.words, row.lines, row.places)),
            f"{row.peak_tokens:,.0f}",
            str(row.num_rewrites),
            str(measured.num_markers) if measured else "",
            str(measured.num_recoveries) if measured else "",
            _times(measured.overhead) if measured else "",
        )
    return table


def group_table(groups: Mapping[str, Sequence[Figures]], *, by: str) -> Table:
    """A row a group and policy; of several policies those that run as users would run them."""
    table = Table(title=f"by {by}", title_justify="left")
    for name in (by, "policy"):
        table.add_column(name, no_wrap=True)
    for name in ("traces", "turns", "input cost ×", "words", "lines", "places", "rewrites"):
        table.add_column(name, justify="right", no_wrap=True)
    for group, rows in groups.items():
        for row in [row for row in rows if row.measured] or rows:
            table.add_row(
                escape(group),
                escape(row.policy),
                str(row.num_traces),
                str(row.num_turns),
                _value(row.input_cost, 3),
                *(_value(value, 4) for value in (row.words, row.lines, row.places)),
                str(row.num_rewrites),
            )
    return table


def latency_table(rows: Sequence[Figures], started: Sequence[Started]) -> Table:
    """What a request over HTTP takes, and how long each system took to start."""
    starts = {each.name: each.start_s for each in started}
    table = Table(title="a request over HTTP, in ms (untouched: straight to the recorder)", title_justify="left")
    table.add_column("system", no_wrap=True)
    for name in ("p50", "p95", "p99", "overhead it reports p50/p95", "start, s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row.round_trip:
            trip, start_s = row.round_trip, starts.get(row.policy)
            table.add_row(
                escape(row.policy),
                *(f"{time:.1f}" for time in (trip.p50_ms, trip.p95_ms, trip.p99_ms)),
                _times(row.measured.overhead) if row.measured else "",
                f"{start_s:.1f}" if start_s else "",
            )
    return table


def title_of(result: Report, options: Options) -> str:
    """What was replayed, and how it was priced."""
    first = result.rows[0]
    turns = f"first {options.max_turns} turns of each" if options.max_turns else "all turns"
    cold = ", cold turns" if options.is_cold else ""
    return (
        f"{first.num_traces} conversations, {first.num_turns} requests ({turns}); prices {options.prices}, "
        f"cache {options.cache.value}{cold}; against untouched, with 95 % intervals"
    )


def worst_lines(rows: Sequence[Figures]) -> list[str]:
    """For each policy that runs as users would run it, the conversation that it makes dearest."""
    return [
        f"{escape(row.policy)}: dearest against untouched is {escape(row.worst_trace)} (×{row.worst_cost:.3f})"
        for row in rows
        if row.measured and row.worst_trace
    ]


def bypass_lines(rows: Sequence[Figures]) -> list[str]:
    """For each policy, on how many turns it gave up and why: figures with such turns are not to be trusted."""
    return [
        f"[bold]{escape(f'{row.policy}: compression was bypassed on {num} of {row.num_turns} turns: {reason}')}[/bold]"
        for row in rows
        if row.measured
        for reason, num in row.measured.bypasses.items()
    ]


def further_lines(rows: Sequence[Figures]) -> list[str]:
    """For each proxy that asks its upstream for things of its own, how often: no figure here bills them."""
    return [
        f"[bold]{escape(row.policy)}: {row.measured.num_further_requests} further requests to its upstream on "
        f"{row.num_turns} turns are billed nowhere here[/bold]"
        for row in rows
        if row.measured and row.measured.num_further_requests
    ]


def agreement_line(agreement: Agreement) -> str:
    """Whether HTTP forwarded what the compressor makes of the same requests in process."""
    restarts = f", over {agreement.num_restarts} restarts of the proxy" if agreement.num_restarts else ""
    first = f"; the first difference is in {escape(agreement.first_difference)}" if agreement.first_difference else ""
    turns = f"{agreement.num_same} of {agreement.num_turns} turns"
    return f"over HTTP the same messages were forwarded as in process on {turns}{restarts}{first}"


def _times(times: Percentiles | None) -> str:
    return f"{times.p50_ms:.2f}/{times.p95_ms:.2f}" if times else ""


def _value(value: Ratio | None, digits: int) -> str:
    return "" if value is None else f"{value.value:.{digits}f}"


def _interval(value: Ratio | None, digits: int) -> str:
    """The value, and below it its interval, where it has any width."""
    if value is None:
        return ""
    low, high = f"{value.low:.{digits}f}", f"{value.high:.{digits}f}"
    return _value(value, digits) if low == high else f"{_value(value, digits)}\n[dim]{low}–{high}[/dim]"
