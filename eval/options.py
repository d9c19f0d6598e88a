"""The options that `replay` and `compare` share, and what they come to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sluice.eval.cost import PRICES, Cache
from sluice.eval.new_file import NewFile
from sluice.eval.replay import Options
from sluice.eval.runner import Selection

_SHARED = (
    click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path)),
    click.option(
        "--prices", type=click.Choice(list(PRICES)), default="anthropic", show_default=True, help="Of tokens."
    ),
    click.option(
        "--cache",
        type=click.Choice([cache.value for cache in Cache]),
        default=Cache.PREFIX.value,
        show_default=True,
        help="What is read from the cache: the longest common prefix, or what breakpoints in the request allow.",
    ),
    click.option(
        "--max-turns", type=click.IntRange(min=0), default=80, show_default=True, help="Of each trace; 0: all."
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first conversations."),
    click.option("--sample", type=click.IntRange(min=1), help="Only so many conversations, drawn from all."),
    click.option("--agent", help="Only conversations of this agent."),
    click.option("--by", type=click.Choice(["agent", "source"]), default="agent", show_default=True, help="Breakdown."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of every draw."),
    click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes."),
    click.option("--json", "json_file", type=NewFile(), help="Write all figures here, as JSON."),
    click.option(
        "--report",
        "html_file",
        type=NewFile(),
        help="Write a report here: one HTML file with plots and a table, which needs nothing beside it.",
    ),
)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the shared options came to."""

    selection: Selection
    max_turns: int | None
    prices: str
    cache: Cache
    by: str
    seed: int
    jobs: int
    json_file: Path | None
    html_file: Path | None

    def options(self, *, is_cold: bool = False) -> Options:
        """How conversations are replayed."""
        return Options(self.max_turns, self.prices, self.cache, is_cold, self.seed)


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it is called with `shared`."""

    @functools.wraps(command)
    def called(
        *,
        traces: tuple[Path, ...],
        agent: str | None,
        limit: int | None,
        sample: int | None,
        max_turns: int,
        prices: str,
        cache: str,
        by: str,
        seed: int,
        jobs: int,
        json_file: Path | None,
        html_file: Path | None,
        **own: Any,
    ) -> None:
        selection = Selection(traces, agent, limit, sample, seed)
        shared = Shared(selection, max_turns or None, prices, Cache(cache), by, seed, jobs, json_file, html_file)
        command(shared=shared, **own)

    for option in reversed(_SHARED):
        called = option(called)
    return called
