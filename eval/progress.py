"""Progress on stderr, where that is a terminal: a bar a phase."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sluice.eval import runner


@contextmanager
def shown(totals: dict[str, int], *, default_total: int | None = None) -> Iterator[runner.Progress]:
    """Show progress while entered.

    Args:
        totals: how much there is to do, by phase.
        default_total: of the phases that are not named; None where it is not known.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, num_done: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=totals.get(phase, default_total))
            bars.update(tasks[phase], completed=num_done)

        yield progress
