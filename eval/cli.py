"""`sluice eval`: the evaluation on the command line. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from sluice.compressor import Mode
from sluice.eval.cost import PRICES, Cache
from sluice.eval.errors import EvalError
from sluice.eval.http import Agreement, Target, replay_over_http
from sluice.eval.policies import FRAMES, KNOWN
from sluice.eval.policies.untouched import Untouched
from sluice.eval.replay import Options
from sluice.eval.report import Report, as_json, report
from sluice.eval.route.cli import route_command
from sluice.eval.runner import Selection, TraceScores, replay_all
from sluice.eval.search.cli import search_command, train_command
from sluice.eval.table import agreement_line, bypass_lines, group_table, policy_table, title_of, worst_lines

MODES = [mode.value for mode in Mode]
MIN_TABLE_WIDTH = 180
"""Columns where no terminal says how many there are."""


@click.group(name="eval")
def evaluate() -> None:
    """Replay recorded conversations and judge what is forwarded."""


evaluate.add_command(search_command)
evaluate.add_command(train_command)
evaluate.add_command(route_command)


@evaluate.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--mode", type=click.Choice([mode.value for mode in Mode]), default="safe", show_default=True, help="Ours."
)
@click.option("--policy", "policies", multiple=True, metavar="NAME", help=f"Only these policies. Known: {KNOWN}.")
@click.option("--frames/--no-frames", default=True, help=f"Beside ours: {', '.join(FRAMES)}.")
@click.option("--http", "is_http", is_flag=True, help="Also over HTTP, through a proxy that is started for it.")
@click.option("--serve-args", default="", metavar="FLAGS", help="More flags for that proxy, e.g. '--redis URL'.")
@click.option("--restart-every", type=click.IntRange(min=1), metavar="N", help="Kill and restart it every N turns.")
@click.option("--url", help="Also over HTTP, through a proxy that runs already and forwards to --recorder-port.")
@click.option("--recorder-port", type=click.IntRange(0, 65535), default=0, help="Where the recording upstream listens.")
@click.option("--stream", is_flag=True, help="Over HTTP: ask for events.")
@click.option("--prices", type=click.Choice(list(PRICES)), default="anthropic", show_default=True, help="Of tokens.")
@click.option(
    "--cache",
    type=click.Choice([cache.value for cache in Cache]),
    default=Cache.PREFIX.value,
    show_default=True,
    help="What is read from the cache: the longest common prefix, or what breakpoints in the request allow.",
)
@click.option("--cold", is_flag=True, help="The provider's cache expires on some turns (a seeded draw).")
@click.option("--max-turns", type=click.IntRange(min=0), default=80, show_default=True, help="Of each trace; 0: all.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first conversations.")
@click.option("--agent", help="Only conversations of this agent.")
@click.option("--by", type=click.Choice(["agent", "source"]), default="agent", show_default=True, help="Breakdown.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def replay(
    traces: tuple[Path, ...],
    mode: str,
    policies: tuple[str, ...],
    frames: bool,
    is_http: bool,
    serve_args: str,
    restart_every: int | None,
    url: str | None,
    recorder_port: int,
    stream: bool,
    prices: str,
    cache: str,
    cold: bool,
    max_turns: int,
    limit: int | None,
    agent: str | None,
    by: str,
    seed: int,
    jobs: int,
    json_file: Path | None,
) -> None:
    """Replay the conversations in TRACES (.jsonl, .jsonl.zst) and print the figures of each policy."""
    if url and is_http:
        raise click.UsageError("--http starts a proxy, --url names one that runs: give one of them")
    if url and not recorder_port:
        raise click.UsageError("--url needs --recorder-port: the port of 127.0.0.1 to which that proxy forwards")
    if (serve_args or restart_every) and not is_http:
        raise click.UsageError("--serve-args and --restart-every need --http")
    if cold and (url or is_http):
        raise click.UsageError("--cold moves the clock of what is judged: it works in process only")
    names = list(dict.fromkeys(policies or (Untouched.name, mode, *(FRAMES if frames else ()))))
    options = Options(max_turns=max_turns or None, prices=prices, cache=Cache(cache), is_cold=cold, seed=seed)
    selection = Selection(traces, agent, limit)
    target = None
    if url or is_http:
        names = list(dict.fromkeys((*names, mode)))
        target = Target(mode, url, recorder_port, tuple(shlex.split(serve_args)), restart_every, stream)
    try:
        found, agreement = _run(selection, names, options, jobs, target, mode)
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    if target:
        names.insert(names.index(mode) + 1, f"{mode} over HTTP")
    result = report(found, names, by=by, prices=prices, seed=seed)
    _print(result, options, agreement)
    if json_file:
        json_file.write_text(json.dumps(as_json(result, found, options, agreement), indent=1) + "\n")


def _run(
    selection: Selection, names: list[str], options: Options, num_jobs: int, target: Target | None, ours: str
) -> tuple[list[TraceScores], Agreement | None]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        num_total = sum(1 for _ in selection.lines())
        if not num_total:
            raise click.ClickException("no conversation is selected")
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, num_done: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=num_total)
            bars.update(tasks[phase], completed=num_done)

        found = replay_all(selection, names, options, num_jobs=num_jobs, ours=ours, progress=progress)
        if target is None:
            return found, None
        return found, asyncio.run(replay_over_http(found, selection, options, target, progress))


def _print(result: Report, options: Options, agreement: Agreement | None) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_TABLE_WIDTH)
    console.print(policy_table(result.rows, title=title_of(result, options)))
    console.print(group_table(result.groups, by=result.by))
    for line in (
        *worst_lines(result.rows),
        *bypass_lines(result.rows),
        *([agreement_line(agreement)] if agreement else ()),
    ):
        console.print(line, soft_wrap=True)
