"""`sluice eval route` on the command line. Data goes to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import click
from rich.console import Console

from sluice.backend.router import RouterSettings
from sluice.eval.data import read_traces
from sluice.eval.errors import EvalError
from sluice.eval.route.report import Row, markdown, page, table
from sluice.eval.route.simulate import Outcome, Replica, simulate
from sluice.eval.route.strategies import STRATEGIES, strategy
from sluice.eval.route.workload import Arrivals, Script, scripts_of
from sluice.eval.traces import AGENTS, trace_file

KNOWN = ", ".join(known.name for known in STRATEGIES)


@click.command("route")
@click.argument("traces", nargs=-1, type=click.Path(path_type=Path))
@click.option("--replicas", default="2,4,8,16,32,64", show_default=True, help="Numbers of replicas, up to 1,000.")
@click.option("--router", "routers", multiple=True, metavar="NAME", help=f"Only these. Known: {KNOWN}.")
@click.option("--sessions", type=click.IntRange(1), default=16, show_default=True, help="Agents for each replica.")
@click.option("--requests", type=click.IntRange(10), default=3000, show_default=True, help="For each replica.")
@click.option("--kv-tokens", type=click.IntRange(1000), default=500_000, show_default=True, help="Of each KV cache.")
@click.option("--block-tokens", type=click.IntRange(1), default=16, show_default=True, help="Of a block.")
@click.option("--prefill", type=float, default=8000.0, show_default=True, help="Tokens a second, of each replica.")
@click.option("--max-turns", type=click.IntRange(min=0), default=80, show_default=True, help="Of each; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots.")
@click.option("--markdown", "is_markdown", is_flag=True, help="Print the table in Markdown.")
def route_command(
    traces: tuple[Path, ...],
    replicas: str,
    routers: tuple[str, ...],
    sessions: int,
    requests: int,
    kv_tokens: int,
    block_tokens: int,
    prefill: float,
    max_turns: int,
    seed: int,
    jobs: int,
    json_file: Path | None,
    html_file: Path | None,
    is_markdown: bool,
) -> None:
    """Simulate routers over replicas with finite KV caches, on the conversations in TRACES (default: the bundled ones).

    Hits are the share of prompt tokens found in the chosen replica's cache. The bound is a memory that holds all that
    was ever computed, for every replica; pooled is all replicas' memory as one cache.
    """
    numbers = _numbers(replicas)
    names = list(routers or (known.name for known in STRATEGIES))
    arrivals = Arrivals(sessions_per_replica=sessions, requests_per_replica=requests)
    replica = Replica(kv_tokens=kv_tokens, block_tokens=block_tokens, prefill_tokens_per_s=prefill)
    try:
        for name in names:
            strategy(name)
        paths = traces or [trace_file(agent) for agent in AGENTS]
        scripts = scripts_of(chain.from_iterable(map(read_traces, paths)), max_turns or None)
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    if not scripts:
        raise click.ClickException("no conversation with a turn in it")
    run = partial(_run, scripts, replica=replica, arrivals=arrivals, seed=seed)
    rows = list(_rows(run, [(name, number) for number in numbers for name in names], jobs))
    title = (
        f"{len(scripts)} conversations, {sessions} agents and {requests:,} requests a replica, {kv_tokens:,} KV tokens"
    )
    if is_markdown:
        click.echo(markdown(rows), nl=False)
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = max(console.width, 160)
        console.print(table(rows, title))
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    if html_file:
        html_file.write_text(page(rows, f"Routing: {title}", " ".join(["sluice", *sys.argv[1:]])), "utf-8")


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or numbers[-1] > 1000:
        raise click.BadParameter(f"{text!r}: give numbers from 1 to 1000, with commas between", param_hint="--replicas")
    return numbers


def _rows(run: partial[Row], jobs: list[tuple[str, int]], num_processes: int) -> Iterator[Row]:
    """Run all, and say on the terminal how far it is."""
    with ExitStack() as stack:
        each: Callable[..., Iterator[Row]] = map
        if num_processes > 1:
            each = stack.enter_context(ProcessPoolExecutor(num_processes)).map
        for done, (job, row) in enumerate(zip(jobs, each(run, *zip(*jobs, strict=True)), strict=True), 1):
            if sys.stderr.isatty():
                click.echo(f"{done} of {len(jobs)}: {job[0]} over {job[1]}", err=True)
            yield row


def _run(
    scripts: list[Script], name: str, num_replicas: int, *, replica: Replica, arrivals: Arrivals, seed: int
) -> Row:
    settings = RouterSettings(capacity_tokens=replica.kv_tokens, block_tokens=replica.block_tokens)
    make = partial(strategy(name).make, num_replicas, settings)
    outcome = simulate(scripts, make, num_replicas, replica=replica, arrivals=arrivals, seed=seed)
    return _row(name, num_replicas, outcome)


def _row(name: str, num_replicas: int, outcome: Outcome) -> Row:
    load_min, load_max = outcome.load_spread
    return Row(
        router=name,
        num_replicas=num_replicas,
        num_requests=outcome.num_requests,
        hit_rate=outcome.hit_rate,
        of_bound=outcome.of_bound,
        bound=outcome.bound_tokens / outcome.prompt_tokens,
        pooled=outcome.pooled_tokens / outcome.prompt_tokens,
        tokens_computed=outcome.computed_tokens,
        load_min=load_min,
        load_max=load_max,
        ttft_p50_ms=outcome.ttft_ms(50),
        ttft_p95_ms=outcome.ttft_ms(95),
    )
