"""Progress on stderr: a bar a phase on a terminal, now and then a line elsewhere, as in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sluice.eval import runner

_LINE_EVERY_S = 10.0


@contextmanager
def shown(totals: Mapping[str, int], *, default_total: int | None = None) -> Iterator[runner.Progress]:
    """Show progress while entered.

    Args:
        totals: how much there is to do, by phase.
        default_total: of the phases that are not named; None where it is not known.
    """
    if not sys.stderr.isatty():
        yield lines(partial(click.echo, err=True), totals, default_total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, num_done: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=totals.get(phase, default_total))
            bars.update(tasks[phase], completed=num_done)

        yield progress


def lines(
    write: Callable[[str], None],
    totals: Mapping[str, int],
    default_total: int | None,
    clock: Callable[[], float] = time.monotonic,
) -> runner.Progress:
    """Progress as lines, one every ten seconds at the most: what takes less says nothing.

    Args:
        write: takes a line, without its end.
        totals: see `shown`.
        default_total: see `shown`.
        clock: seconds.
    """
    last_at_s = clock()

    def progress(phase: str, num_done: int) -> None:
        nonlocal last_at_s
        if (now_s := clock()) - last_at_s < _LINE_EVERY_S:
            return
        last_at_s = now_s
        total = totals.get(phase, default_total)
        write(f"{phase}: {num_done}" if total is None else f"{phase}: {num_done} of {total}")

    return progress
