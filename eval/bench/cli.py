"""`sluice bench proxy`: what a request costs through the proxy, beside no proxy and a plain one, in one run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table

from sluice.eval.bench.cpu import pin
from sluice.eval.bench.figures import DIRECT, FLOOR, PLAIN, Bar, Row, bars_of, rows_of
from sluice.eval.bench.load import Taken, check_reached, send_all
from sluice.eval.bench.stage import run
from sluice.eval.bench.workload import Workload, standard
from sluice.eval.child import ServerProcess
from sluice.eval.errors import EvalError
from sluice.eval.machine import hardware
from sluice.eval.new_file import NewFile

_MODES = ("off", "safe", "balanced")


@dataclass(slots=True)
class _System:
    """Something to send requests to."""

    name: str
    url: str
    pid: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    taken: dict[str, list[Taken]] = field(default_factory=dict)
    """By workload."""


@click.command()
@click.option(
    "--requests", default=20, show_default=True, type=click.IntRange(min=4), help="Of each workload, a round."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Interleaved; medians count.")
@click.option("--url", "urls", multiple=True, metavar="NAME=URL", help="Another proxy, before an upstream of its own.")
@click.option("--workload", "wanted", multiple=True, metavar="TEXT", help="Only workloads with this in their name.")
@click.option("--json", "json_file", type=NewFile(), help="Write all figures here.")
def proxy(requests: int, rounds: int, urls: Sequence[str], wanted: Sequence[str], json_file: Path | None) -> None:
    """Measure the proxy beside a direct connection, a bare relay of bytes, and a plain pass-through.

    Servers under test share one core, the upstream and the load another. A request is streamed: 64 events. Ours runs as
    it comes: it counts, prices, meters and logs; what it does after an answer has ended is counted. The bars at the end
    are those that it is held to.
    """
    others = [_other(text) for text in urls]
    if wanted and not any(text in name for name in _names(requests) for text in wanted):
        raise click.BadParameter(
            f"{', '.join(wanted)}: known are {', '.join(_names(requests))}", param_hint="--workload"
        )
    try:
        systems = run(_run(requests, rounds, others, wanted))
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    rows = rows_of({system.name: system.taken for system in systems})
    bars = bars_of(rows)
    console = Console(width=max(125, Console().width))
    console.print(_figures(rows), _bars(bars))
    if json_file is not None:
        found = {"machine": hardware(), "rows": [*map(asdict, rows)], "bars": [*map(asdict, bars)]}
        json_file.write_text(json.dumps(found, indent=1))


def _other(text: str) -> tuple[str, str]:
    """Name and origin of another proxy. Raises click.BadParameter."""
    name, _, url = text.partition("=")
    try:
        parts = urlsplit(url)
        is_origin = bool(name and parts.scheme == "http" and parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        is_origin = False
    if not is_origin or parts.path.strip("/") or parts.query:
        raise click.BadParameter(
            f"{text!r} is not of the form NAME=URL, with http:// and no path: TLS is not spoken", param_hint="--url"
        )
    return name, url


def _names(num_requests: int) -> list[str]:
    return [f"'{workload.name}'" for workload in standard(num_requests, "")]


async def _run(
    num_requests: int, rounds: int, others: Sequence[tuple[str, str]], wanted: Sequence[str]
) -> list[_System]:
    for _, url in others:
        await check_reached(url)
    stage = [sys.executable, "-m", "sluice.eval.bench.stage"]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(ServerProcess([*stage, "upstream", "{port}"], name="the upstream", ready_path="/"))
        plain = await enter(
            ServerProcess([*stage, "passthrough", "{port}", upstream.url], name=PLAIN, ready_path="/healthz")
        )
        floor = await enter(ServerProcess([*stage, "relay", "{port}", upstream.url], name=FLOOR, ready_path="/"))
        command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", upstream.url, "--port", "{port}"]
        ours = await enter(ServerProcess(command, name="sluice", ready_path="/healthz"))
        for server, core in ((upstream, 1), (floor, 0), (plain, 0), (ours, 0)):
            assert server.pid is not None
            pin(server.pid, core)
        pin(os.getpid(), 1)
        systems = [_System(DIRECT, upstream.url), _System(FLOOR, floor.url, floor.pid)]
        systems += [_System(PLAIN, plain.url, plain.pid)]
        systems += [_System(f"sluice {mode}", ours.url, ours.pid, {"x-sluice-mode": mode}) for mode in _MODES]
        systems += [_System(name, url) for name, url in others]
        for number in range(rounds + 1):  # the first warms everything up
            for index, system in enumerate(systems):
                for workload in standard(num_requests, f"r{number}s{index}"):
                    if wanted and not any(text in workload.name for text in wanted):
                        continue
                    _say(f"round {number} of {rounds}: {system.name}, {workload.name}")
                    await _take(system, workload, is_warm=number > 0)
        _say("")
    return systems


def _say(line: str) -> None:
    """Show how far it has come."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)
    elif line:
        click.echo(line, err=True)


async def _take(system: _System, workload: Workload, *, is_warm: bool) -> None:
    taken = await send_all(system.url, workload, system.headers, system.pid if is_warm else None)
    if is_warm:
        system.taken.setdefault(workload.name, []).append(taken)


def _figures(rows: Sequence[Row]) -> Table:
    table = Table(title="A streamed request of 64 events")
    columns = ("workload", "system", "CPU ms", f"× {PLAIN}", "first byte +ms p50", "p95", "requests/s")
    for column in columns:
        table.add_column(column, justify="left" if column in ("workload", "system") else "right")
    before = ""
    for row in rows:
        if before and row.workload != before:
            table.add_section()
        name = row.workload if row.workload != before else ""
        before = row.workload
        figures = (row.cpu_ms, row.cpu_ratio, row.added_ms_p50, row.added_ms_p95, row.requests_per_s)
        table.add_row(name, row.system, *("–" if figure is None else f"{figure:.2f}" for figure in figures))
    return table


def _bars(bars: Sequence[Bar]) -> Table:
    table = Table(title="The bars")
    for column in ("what", "found", "at most", "", FLOOR):
        table.add_column(column, justify="left" if column == "what" else "right")
    for bar in bars:
        floor = "–" if bar.floor is None else f"{bar.floor:.2f}"
        table.add_row(bar.says, f"{bar.found:.2f}", f"{bar.most:g}", "met" if bar.is_met else "missed", floor)
    return table
