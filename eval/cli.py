"""`sluice eval`: the evaluation on the command line. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console

from sluice.compressor import Mode
from sluice.eval.compare.run import DIRECT, Started, play_systems
from sluice.eval.compare.system import KNOWN as KNOWN_SYSTEMS
from sluice.eval.compare.system import OURS, System, load_systems, ours
from sluice.eval.ended_by_signals import ended_by_signals
from sluice.eval.errors import EvalError
from sluice.eval.fidelity.cli import fidelity
from sluice.eval.html.page import Run, render
from sluice.eval.http import Agreement, Target, replay_over_http
from sluice.eval.machine import hardware
from sluice.eval.options import Shared, shared_options
from sluice.eval.policies import FRAMES, KNOWN, is_equal_cost
from sluice.eval.policies.untouched import Untouched
from sluice.eval.progress import shown
from sluice.eval.replay import Options
from sluice.eval.report import Report, as_json, report
from sluice.eval.route.cli import route_command
from sluice.eval.runner import Progress, TraceScores, replay_all, replay_equal_cost, replay_frames
from sluice.eval.search.cli import search_command, train_command
from sluice.eval.table import (
    agreement_line,
    bypass_lines,
    further_lines,
    group_table,
    latency_table,
    policy_table,
    title_of,
    worst_lines,
)

T = TypeVar("T")

MODES = [mode.value for mode in Mode]
COMPARED_FRAMES = ("mask-10", "random-equal", "random-0.1", "random-0.25", "random-0.5", "oracle", "oracle-tight")
MIN_TABLE_WIDTH = 180
"""Columns where no terminal says how many there are."""


@click.group(name="eval")
def evaluate() -> None:
    """Judge what is forwarded: its cost, and the facts that the agent still finds.

    Recorded conversations are read from many formats: chat, Messages and Responses JSONL, SWE-agent, mini-swe-agent,
    OpenHands, Claude Code and Codex sessions, and what `sluice serve --record` wrote. Folders are searched for them.
    """


evaluate.add_command(fidelity)
evaluate.add_command(search_command)
evaluate.add_command(train_command)
evaluate.add_command(route_command)


@evaluate.command(short_help="Judge Sluice and simple policies on recorded conversations.")
@shared_options
@click.option("--mode", type=click.Choice(MODES), default="safe", show_default=True, help="Ours.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help=f"Only these policies. Known: {KNOWN}.")
@click.option("--frames/--no-frames", default=True, help=f"Beside ours: {', '.join(FRAMES)}.")
@click.option("--http", "is_http", is_flag=True, help="Also over HTTP, through a proxy that is started for it.")
@click.option("--serve-args", default="", metavar="FLAGS", help="More flags for that proxy, e.g. '--redis URL'.")
@click.option("--restart-every", type=click.IntRange(min=1), metavar="N", help="Kill and restart it every N turns.")
@click.option("--url", help="Also over HTTP, through a proxy that runs already and forwards to --recorder-port.")
@click.option("--recorder-port", type=click.IntRange(0, 65535), default=0, help="Where the recording upstream listens.")
@click.option("--stream", is_flag=True, help="Over HTTP: ask for events.")
@click.option("--cold", is_flag=True, help="The provider's cache expires on some turns (a seeded draw).")
def replay(
    shared: Shared,
    mode: str,
    policies: tuple[str, ...],
    frames: bool,
    is_http: bool,
    serve_args: str,
    restart_every: int | None,
    url: str | None,
    recorder_port: int,
    stream: bool,
    cold: bool,
) -> None:
    """Replay the conversations in TRACES (files or folders) and print the figures of each policy."""
    if url and is_http:
        raise click.UsageError("--http starts a proxy, --url names one that runs: give one of them")
    if url and not recorder_port:
        raise click.UsageError("--url needs --recorder-port: the port of 127.0.0.1 to which that proxy forwards")
    if (serve_args or restart_every) and not is_http:
        raise click.UsageError("--serve-args and --restart-every need --http")
    if cold and (url or is_http):
        raise click.UsageError("--cold moves the clock of what is judged: it works in process only")
    names = list(dict.fromkeys(policies or (Untouched.name, mode, *(FRAMES if frames else ()))))
    target = None
    if url or is_http:
        names = list(dict.fromkeys((*names, mode)))
        target = Target(mode, url, recorder_port, _flags(serve_args), restart_every, stream)
    options, agreement = shared.options(is_cold=cold), None
    with _progress(shared) as progress:
        jobs = shared.jobs
        found = replay_all(shared.selection, names, options, num_jobs=jobs, ours=mode, progress=progress)
        if target:
            agreement = _run(replay_over_http(found, shared.selection, options, target, progress))
            names.insert(names.index(mode) + 1, f"{mode} over HTTP")
    _publish(shared, options, found, names, agreement=agreement)


@evaluate.command(short_help="Judge other proxies beside Sluice, over HTTP, in one run.")
@shared_options
@click.option(
    "--system",
    "specs",
    multiple=True,
    metavar="FILE",
    help=f"A proxy to compare: a TOML file that says how it is started or reached, or {' or '.join(KNOWN_SYSTEMS)}.",
)
@click.option(
    "--mode",
    "modes",
    type=click.Choice([mode.value for mode in OURS]),
    multiple=True,
    help="Ours, in these modes; default: all.",
)
@click.option("--serve-args", default="", metavar="FLAGS", help="More flags for ours, e.g. '--redis URL'.")
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help=f"Frames; default: {', '.join(COMPARED_FRAMES)}."
)
@click.option("--equal-to", default="balanced", show_default=True, help="The system whose cost random-equal has.")
@click.option("--stream", is_flag=True, help="Ask for events.")
def compare(
    shared: Shared,
    specs: tuple[str, ...],
    modes: tuple[str, ...],
    serve_args: str,
    policies: tuple[str, ...],
    equal_to: str,
    stream: bool,
) -> None:
    """Play the conversations in TRACES to several proxies over HTTP, and to frames, under one judge.

    Each proxy is started before a recording upstream and judged by what reaches that. A request that a proxy fails is
    counted, and goes on untouched. The format of FILE is described in eval/README.md.
    """
    options, frames = shared.options(), list(dict.fromkeys(policies or COMPARED_FRAMES))
    try:
        systems = [system for spec in specs for system in load_systems(spec)]
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    systems += [ours(Mode(mode), shared.prices, _flags(serve_args)) for mode in modes or OURS]
    _check_names(systems, frames, equal_to)
    with _progress(shared) as progress:
        jobs = shared.jobs
        found = replay_frames(shared.selection, frames, options, num_jobs=jobs, progress=progress)
        started = _run(play_systems(found, shared.selection, systems, options, progress, is_streamed=stream))
        replay_equal_cost(found, shared.selection, frames, options, num_jobs=jobs, ours=equal_to, progress=progress)
    names = [Untouched.name, *(system.name for system in systems), *frames]
    _publish(shared, options, found, list(dict.fromkeys(names)), started=started)


def _flags(serve_args: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(serve_args))
    except ValueError as error:
        raise click.BadParameter(f"{serve_args!r}: {error}", param_hint="--serve-args") from None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end, or until this process is asked to end: what it has started ends before."""

    async def ended() -> T:
        with ended_by_signals():
            return await work

    try:
        return asyncio.run(ended())
    except asyncio.CancelledError:
        raise click.Abort from None


def _check_names(systems: Sequence[System], frames: Sequence[str], equal_to: str) -> None:
    names = [system.name for system in systems]
    twice = {name for name in names if names.count(name) > 1 or name in frames or name == Untouched.name}
    if twice:
        raise click.UsageError(f"the name {twice.pop()!r} stands for two systems")
    if DIRECT in names:
        raise click.UsageError(f"no system can be named {DIRECT!r}: requests that go straight to the recorder are")
    if any(map(is_equal_cost, frames)):
        known = [*names, *(frame for frame in frames if not is_equal_cost(frame))]
        if equal_to not in known:
            raise click.UsageError(f"--equal-to {equal_to!r} is not compared here; known: {', '.join(known)}")


@contextmanager
def _progress(shared: Shared) -> Iterator[Progress]:
    """Show progress by conversation. Errors of the evaluation become the command line's."""
    try:
        num_total = sum(1 for _ in shared.selection.lines())
        if not num_total:
            raise click.ClickException(shared.selection.is_empty_because())
        with shown({}, default_total=num_total) as progress:
            yield progress
    except EvalError as error:
        raise click.ClickException(str(error)) from None


def _publish(
    shared: Shared,
    options: Options,
    found: Sequence[TraceScores],
    names: Sequence[str],
    *,
    agreement: Agreement | None = None,
    started: Sequence[Started] = (),
) -> None:
    """Print the figures, and write them where they are wanted."""
    result = report(found, names, by=shared.by, prices=shared.prices, seed=shared.seed)
    run = Run(title_of(result, options), shlex.join(["sluice", *sys.argv[1:]]), time.strftime("%Y-%m-%d"), hardware())
    try:
        if shared.json_file:
            data = {**as_json(result, found, options, agreement), "run": run.as_json()}
            shared.json_file.write_text(json.dumps(data, indent=1) + "\n")
        if shared.html_file:
            shared.html_file.write_text(render(result, run), "utf-8")
    finally:  # whatever could not be written or printed, the other is there
        _print(result, options, agreement, started)


def _print(result: Report, options: Options, agreement: Agreement | None, started: Sequence[Started]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_TABLE_WIDTH)
    console.print(policy_table(result.rows, title=title_of(result, options)))
    console.print(group_table(result.groups, by=result.by))
    if any(row.round_trip for row in result.rows):
        console.print(latency_table(result.rows, started))
    for line in (
        *worst_lines(result.rows),
        *bypass_lines(result.rows),
        *further_lines(result.rows),
        *([agreement_line(agreement)] if agreement else ()),
    ):
        console.print(line, soft_wrap=True)
