"""The command `sluice stats`: asks a running proxy what was spent and saved, and prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sluice.proxy.origin_option import proxy_url

if TYPE_CHECKING:
    from rich.console import Console

    from sluice.proxy.meter.holdout import Comparison, Saving
    from sluice.proxy.meter.stats import Group, Stats, Sums

_TIMEOUT_S = 10.0
_MAX_ROWS = 20
"""Of each table: the newest days, or the groups that cost most."""

_SCOPES = {"this process": "this process, since it started"}
"""What is told of a scope beside its name."""


@click.command()
@proxy_url
@click.option(
    "--key",
    envvar="SLUICE_KEY",
    show_envvar=True,
    help="A proxy key, where the proxy asks for one: its figures; dashboard_key: all.",
)
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="So many, until today (UTC).")
@click.option("--json", "is_json", is_flag=True, help="All figures, as one JSON object.")
def stats(url: str, key: str | None, days: int, is_json: bool) -> None:
    """Show what a running proxy has spent and saved.

    Ends with 1 if there is no proxy at the URL, or if it does not let the request in.
    """
    body = _fetch(url, key, days)
    if is_json:
        click.echo(body)
        return
    import msgspec
    from rich.console import Console

    from sluice.proxy.meter.stats import Stats

    try:
        found = msgspec.json.decode(body, type=Stats)
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"the proxy at {url} is of another version: {error}; try --json") from None
    _print(found, Console(highlight=False))


def _fetch(origin: str, key: str | None, days: int) -> bytes:
    import httpx

    from sluice.backend.hosts import leads_out

    headers = {"x-sluice-key": key} if key else {}
    try:
        answer = httpx.get(
            f"{origin}/v1/stats",
            params={"days": days},
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=leads_out(origin),
        )
    except httpx.ConnectError:
        raise click.ClickException(
            f"nothing listens at {origin}: start it with sluice serve, or name it with --url"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:  # the last: of a SOCKS proxy's client
        raise click.ClickException(f"{origin} gave no answer: {error or type(error).__name__}") from None
    if answer.status_code == 401:
        what = "does not know the key that it was given" if key else "asks for a key"
        raise click.ClickException(f"the proxy {what}: give one of its own with --key, or in SLUICE_KEY")
    if answer.status_code != 200:
        raise click.ClickException(f"{origin} answered {answer.status_code}: {answer.text[:200]}")
    return answer.content


def _print(stats: Stats, console: Console) -> None:
    totals = stats.totals
    console.print(f"[bold]{stats.since} to {stats.until}[/bold]  {_SCOPES.get(stats.scope, stats.scope)}")
    if not totals.num_turns:
        console.print("No request yet. To point an agent here: sluice connect AGENT")
        return
    console.print(f"{totals.num_turns:,} requests, {totals.num_errors:,} of them failed")
    console.print(f"cost        {_dollars(totals.cost)} instead of {_dollars(totals.cost_untouched)}  {_saved(totals)}")
    console.print(f"measured    {_measured(stats.holdout)}")
    console.print(
        f"messages    {totals.tokens_out:,} tokens forwarded of {totals.tokens_in:,}; "
        f"{totals.cache_read_share:.0%} of all input was read from the cache"
    )
    overhead = stats.overhead_ms
    if overhead.p50 is not None:
        console.print(f"overhead    {overhead.p50:.1f} / {overhead.p95:.1f} / {overhead.p99:.1f} ms (p50 / p95 / p99)")
    for name, counts in (("rewrites", stats.epochs), ("bypassed", stats.bypasses)):
        if counts:
            console.print(f"{name:11} {', '.join(f'{number:,} {reason}' for reason, number in counts.items())}")
    if totals.num_unmetered or totals.num_unpriced:
        console.print(
            f"not priced  {totals.num_unmetered:,} requests without usage, "
            f"{totals.num_unpriced:,} of models without a price"
        )
    _table(console, "day", stats.by_day[-_MAX_ROWS:])
    _table(console, "model", _dearest(stats.by_model))
    _table(console, "key", _dearest(stats.by_key))


def _dearest(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: -group.sums.cost_untouched)[:_MAX_ROWS]


def _table(console: Console, name: str, groups: list[Group]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not any(group.name for group in groups):
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(name)
    for column in ("requests", "cost", "untouched", "saved"):
        table.add_column(column, justify="right")
    for group in groups:
        sums = group.sums
        row = f"{sums.num_turns:,}", _dollars(sums.cost), _dollars(sums.cost_untouched), _saved(sums)
        table.add_row(escape(group.name or "none"), *row)
    console.print()
    console.print(table)


def _saved(sums: Sums) -> str:
    if not sums.cost_untouched:
        return "–"
    return f"{round(sums.saved / sums.cost_untouched, 3) + 0.0:.1%} saved"  # + 0.0: no minus before a zero


def _measured(comparison: Comparison) -> str:
    if comparison.per_turn is None:
        return f"no figure: {comparison.note}"
    return f"{_interval(comparison.per_turn)} a request  ({comparison.note})"


def _interval(saving: Saving) -> str:
    if saving.low is None or saving.high is None:
        return f"{saving.share:.1%} saved"
    return f"{saving.share:.1%} saved [{saving.low:.1%} to {saving.high:.1%}]"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"
