"""`sluice bench proxy`: what a request costs through the proxy, beside no proxy and a plain one, in one run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from sluice.eval.bench.cpu import pin
from sluice.eval.bench.load import Taken, send_all
from sluice.eval.bench.workload import Workload, standard
from sluice.eval.child import ServerProcess
from sluice.eval.errors import EvalError

DIRECT, FLOOR, PLAIN = "direct", "bare relay", "FastAPI + httpx"
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
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here.")
def proxy(requests: int, rounds: int, urls: Sequence[str], wanted: Sequence[str], json_file: Path | None) -> None:
    """Measure the proxy beside a direct connection and a plain pass-through.

    Servers under test share one core, the upstream and the load another. A request is streamed: 64 events.
    """
    others = [part for url in urls for part in [url.partition("=")]]
    for name, is_given, url in others:
        if not is_given or not url.startswith("http"):
            raise click.BadParameter(f"{name!r} is not of the form NAME=URL", param_hint="--url")
    try:
        systems = uvloop.run(_run(requests, rounds, [(name, url) for name, _, url in others], wanted))
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    rows = figures(systems)
    Console(width=max(110, Console().width)).print(_table(rows))
    if json_file is not None:
        machine = {"python": platform.python_version(), "cpu": platform.processor() or platform.machine()}
        json_file.write_text(json.dumps({"machine": {**machine, "cores": os.cpu_count()}, "rows": rows}, indent=1))


async def _run(
    num_requests: int, rounds: int, others: Sequence[tuple[str, str]], wanted: Sequence[str]
) -> list[_System]:
    stage = [sys.executable, "-m", "sluice.eval.bench.stage"]
    quiet = {"SLUICE_LOG_LEVEL": "error"}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(ServerProcess([*stage, "upstream", "{port}"], name="the upstream", ready_path="/"))
        plain = await enter(
            ServerProcess([*stage, "passthrough", "{port}", upstream.url], name=PLAIN, ready_path="/healthz")
        )
        floor = await enter(ServerProcess([*stage, "relay", "{port}", upstream.url], name=FLOOR, ready_path="/"))
        command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", upstream.url, "--port", "{port}"]
        ours = await enter(ServerProcess(command, name="sluice", ready_path="/healthz", env=quiet))
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
    """Show how far it has come, where somebody looks."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)


async def _take(system: _System, workload: Workload, *, is_warm: bool) -> None:
    taken = await send_all(system.url, workload, system.headers, system.pid)
    if is_warm:
        system.taken.setdefault(workload.name, []).append(taken)


def figures(systems: Sequence[_System]) -> list[dict[str, object]]:
    """One row for each workload and system: medians over the rounds, and ratios within them."""
    by_name = {system.name: system for system in systems}
    rows: list[dict[str, object]] = []
    for workload in systems[0].taken:
        direct = _first(by_name[DIRECT].taken[workload])
        plain_cpu = _cpu(by_name[PLAIN].taken[workload])
        for system in systems:
            taken, cpu = system.taken[workload], _cpu(system.taken[workload])
            first = _first(taken)
            rows.append(
                {
                    "workload": workload,
                    "system": system.name,
                    "cpu_ms": cpu,
                    "cpu_ratio": cpu / plain_cpu if cpu is not None and plain_cpu else None,
                    "added_ms_p50": first[0] - direct[0],
                    "added_ms_p95": first[1] - direct[1],
                    "requests_per_s": statistics.median(one.num_requests / one.wall_s for one in taken),
                }
            )
    return rows


def _cpu(taken: Sequence[Taken]) -> float | None:
    found = [one.cpu_ms for one in taken if one.cpu_ms is not None]
    return statistics.median(found) if found else None


def _first(taken: Sequence[Taken]) -> tuple[float, float]:
    """Median and 95th percentile of the time to the first byte, over all rounds, in milliseconds."""
    times = sorted(time for one in taken for time in one.first_ms)
    return statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]


def _table(rows: Sequence[dict[str, object]]) -> Table:
    table = Table(title="A streamed request of 64 events")
    columns = ("workload", "system", "CPU ms", f"× {PLAIN}", "first byte +ms p50", "p95", "requests/s")
    for column in columns:
        table.add_column(column, justify="left" if column in ("workload", "system") else "right")
    before = ""
    for row in rows:
        if before and row["workload"] != before:
            table.add_section()
        name = str(row["workload"]) if row["workload"] != before else ""
        before = str(row["workload"])
        keys = ("cpu_ms", "cpu_ratio", "added_ms_p50", "added_ms_p95", "requests_per_s")
        table.add_row(name, str(row["system"]), *("–" if row[key] is None else f"{row[key]:.2f}" for key in keys))
    return table
