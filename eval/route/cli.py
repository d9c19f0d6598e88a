"""`sluice eval route` on the command line. Data goes to stdout, progress to stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from sluice.backend.router import RouterSettings
from sluice.eval.data import read_traces
from sluice.eval.errors import EvalError
from sluice.eval.new_file import NewFile
from sluice.eval.route.report import Row, charts, markdown, page, table
from sluice.eval.route.simulate import Outcome, Replica, simulate
from sluice.eval.route.strategies import STRATEGIES, TUNABLE, strategy
from sluice.eval.route.svg import as_file
from sluice.eval.route.workload import Arrivals, Script, scripts_of
from sluice.eval.traces import AGENTS, trace_file

KNOWN = ", ".join(f"'{known.name}'" for known in STRATEGIES)
_MAX_SEEDS = 100


@dataclass(frozen=True, slots=True)
class _Job:
    """One simulation."""

    label: str
    """What its row is called."""
    router: str
    num_replicas: int
    seed: int
    weights: tuple[tuple[str, float], ...] = ()
    """Settings of our router that differ from its own."""


@click.command("route")
@click.argument("traces", nargs=-1, type=click.Path(path_type=Path))
@click.option("--replicas", default="2,4,8,16,32,64", show_default=True, help="Numbers of replicas, up to 1,000.")
@click.option("--router", "routers", multiple=True, metavar="NAME", help=f"Only these. Known: {KNOWN}.")
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="NAME=X,Y",
    help="Our router with these values of a setting; a row each.",
)
@click.option("--sessions", type=click.IntRange(1), default=16, show_default=True, help="Agents for each replica.")
@click.option("--requests", type=click.IntRange(10), default=3000, show_default=True, help="For each replica.")
@click.option("--kv-tokens", type=click.IntRange(1000), default=500_000, show_default=True, help="Of each KV cache.")
@click.option("--block-tokens", type=click.IntRange(1), default=16, show_default=True, help="Of a block.")
@click.option(
    "--prefill",
    type=click.FloatRange(min=0, min_open=True),
    default=8000.0,
    show_default=True,
    help="Tokens a second, of each replica.",
)
@click.option("--max-turns", type=click.IntRange(min=0), default=80, show_default=True, help="Of each; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of arrivals and of what is played.")
@click.option(
    "--seeds", type=click.IntRange(1, _MAX_SEEDS), default=1, show_default=True, help="So many, from --seed on."
)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--json", "json_file", type=NewFile(), help="Write all figures here.")
@click.option("--html", "html_file", type=NewFile(), help="Write a page with plots.")
@click.option(
    "--plots", "plot_folder", type=click.Path(path_type=Path, file_okay=False), help="Write the plots here, as SVG."
)
@click.option("--markdown", "is_markdown", is_flag=True, help="Print the table in Markdown.")
def route_command(
    traces: tuple[Path, ...],
    replicas: str,
    routers: tuple[str, ...],
    weights: tuple[str, ...],
    sessions: int,
    requests: int,
    kv_tokens: int,
    block_tokens: int,
    prefill: float,
    max_turns: int,
    seed: int,
    seeds: int,
    jobs: int,
    json_file: Path | None,
    html_file: Path | None,
    plot_folder: Path | None,
    is_markdown: bool,
) -> None:
    """Simulate routers over replicas with finite KV caches, on the conversations in TRACES (default: the bundled ones).

    Hits are the share of prompt tokens found in the chosen replica's cache. The bound is a memory that holds all that
    was ever computed, for every replica; pooled is all replicas' memory as one cache. Over several seeds, hits of the
    bound and load are the worst of them, and the rest is taken together.
    """
    numbers, variants = _numbers(replicas), _variants(weights)
    names = list(routers or (known.name for known in STRATEGIES if not weights or known.is_ours))
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
    todo = [
        _Job(" ".join((name, *(f"{key}={value:g}" for key, value in variant))), name, number, each_seed, variant)
        for number in numbers
        for name in names
        for variant in variants
        for each_seed in range(seed, seed + seeds)
    ]
    run = partial(_run, scripts, replica=replica, arrivals=arrivals)
    rows = [
        _row(label, number, [outcome for _, outcome in found])
        for (label, number), found in groupby(
            _outcomes(run, todo, jobs), key=lambda done: (done[0].label, done[0].num_replicas)
        )
    ]
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
    if plot_folder:
        plot_folder.mkdir(parents=True, exist_ok=True)
        for name, chart in charts(rows).items():
            (plot_folder / f"route-{name}.svg").write_text(as_file(chart), "utf-8")
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


def _variants(weights: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
    """All combinations of the values given for each setting; one empty one where there are none."""
    axes: list[list[tuple[str, float]]] = []
    for text in weights:
        name, _, values = text.partition("=")
        if name not in TUNABLE:
            raise click.BadParameter(f"{name!r} is no weight; known are {', '.join(TUNABLE)}", param_hint="--weight")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise click.BadParameter(f"{text!r}: give numbers, with commas between", param_hint="--weight")
        if name == "recent_s" and min(numbers) <= 0:
            raise click.BadParameter(f"{text!r}: give times above 0", param_hint="--weight")
        axes.append([(name, number) for number in numbers])
    return list(product(*axes))


def _outcomes(
    run: Callable[[_Job], Outcome], todo: Sequence[_Job], num_processes: int
) -> Iterator[tuple[_Job, Outcome]]:
    """Run all, and say on the terminal how far it is."""
    with ExitStack() as stack:
        each: Callable[..., Iterator[Outcome]] = map
        if num_processes > 1:
            each = stack.enter_context(ProcessPoolExecutor(num_processes)).map
        for done, (job, outcome) in enumerate(zip(todo, each(run, todo), strict=True), 1):
            if sys.stderr.isatty():
                click.echo(f"{done} of {len(todo)}: {job.label} over {job.num_replicas}", err=True)
            yield job, outcome


def _run(scripts: list[Script], job: _Job, *, replica: Replica, arrivals: Arrivals) -> Outcome:
    settings = RouterSettings(capacity_tokens=replica.kv_tokens, block_tokens=replica.block_tokens)
    settings = dataclasses.replace(settings, **dict(job.weights))  # type: ignore[arg-type]  # weights are floats
    make = partial(strategy(job.router).make, job.num_replicas, settings)
    return simulate(scripts, make, job.num_replicas, replica=replica, arrivals=arrivals, seed=job.seed)


def _row(label: str, num_replicas: int, outcomes: Sequence[Outcome]) -> Row:
    prompts = sum(outcome.prompt_tokens for outcome in outcomes) or 1
    ttft_ms = [float(value) for value in np.percentile([s for each in outcomes for s in each.ttft_s], [50, 95]) * 1e3]
    return Row(
        router=label,
        num_replicas=num_replicas,
        num_requests=sum(outcome.num_requests for outcome in outcomes),
        hit_rate=sum(outcome.hit_tokens for outcome in outcomes) / prompts,
        of_bound=min(outcome.of_bound for outcome in outcomes),
        bound=sum(outcome.bound_tokens for outcome in outcomes) / prompts,
        pooled=sum(outcome.pooled_tokens for outcome in outcomes) / prompts,
        tokens_computed=sum(outcome.computed_tokens for outcome in outcomes),
        load_min=min(outcome.load_spread[0] for outcome in outcomes),
        load_max=max(outcome.load_spread[1] for outcome in outcomes),
        ttft_p50_ms=ttft_ms[0],
        ttft_p95_ms=ttft_ms[1],
    )
