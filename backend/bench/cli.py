"""`sluice bench engine`: our engine with and without speculation, any servers by URL, and transformers, interleaved.

Medians over rounds; each round measures every subject in turn, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from sluice.backend.bench import workload
from sluice.backend.bench.client import BenchClient
from sluice.backend.errors import BackendError
from sluice.backend.process import EngineProcess
from sluice.backend.settings import default_cache_dir

Figures = dict[str, dict[str, list[float]]]
"""Subject → figure → one value a round."""


@click.group()
def bench() -> None:
    """Measurements."""


@bench.command()
@click.option("--model", help="As for `sluice engine serve`.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--streams", default="1,8,32", show_default=True, help="Numbers of streams at once.")
@click.option("--tokens", "num_tokens", default=64, show_default=True, help="Output tokens of each stream.")
@click.option("--rounds", "num_rounds", default=3, show_default=True)
@click.option("--prompt-tokens", default=2000, show_default=True, help="Length of the prompt that is cached.")
@click.option("--url", "urls", multiple=True, help="Another OpenAI server to measure, without /v1; repeatable.")
@click.option(
    "--transformers", "with_transformers", is_flag=True, help="Measure transformers' continuous batching too."
)
@click.option("--cache-dir", type=click.Path(file_okay=False, path_type=Path), envvar="SLUICE_CACHE_DIR")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all values there.")
def engine(
    model: str | None,
    device: str,
    dtype: str,
    streams: str,
    num_tokens: int,
    num_rounds: int,
    prompt_tokens: int,
    urls: Sequence[str],
    with_transformers: bool,
    cache_dir: Path | None,
    json_file: Path | None,
) -> None:
    """Time to first token, time between tokens and output tokens/s of the embedded engine."""
    try:
        counts = [int(count) for count in streams.split(",")]
    except ValueError:
        raise click.BadParameter(f"{streams!r} is not a list of numbers", param_hint="--streams") from None
    cache_dir = cache_dir or default_cache_dir()
    subjects = {
        "engine": EngineProcess(model=model, device=device, dtype=dtype, cache_dir=cache_dir),
        "engine, no speculation": EngineProcess(
            model=model, device=device, dtype=dtype, cache_dir=cache_dir, max_draft_tokens=0
        ),
    }
    try:
        figures = asyncio.run(_measure(subjects, urls, counts, num_tokens, num_rounds, prompt_tokens))
        if with_transformers:
            _measure_transformers(figures, model, cache_dir, counts, num_tokens, num_rounds)
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    _print(figures)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "values": figures}))


async def _measure(
    subjects: dict[str, EngineProcess],
    urls: Sequence[str],
    counts: Sequence[int],
    num_tokens: int,
    num_rounds: int,
    prompt_tokens: int,
) -> Figures:
    figures: Figures = defaultdict(lambda: defaultdict(list))
    async with AsyncExitStack() as stack:
        clients: dict[str, BenchClient] = {}
        for name, process in subjects.items():
            await stack.enter_async_context(process)
            clients[name] = BenchClient(process.base_url)
        clients |= {url: BenchClient(url) for url in urls}
        for name, client in clients.items():
            stack.push_async_callback(client.aclose)
            click.echo(f"{name}: {await client.connect()}", err=True)
            await client.run([workload.plain(0, 8)])
        for number in range(num_rounds):
            for name, client in clients.items():
                click.echo(f"round {number + 1} of {num_rounds}: {name}", err=True)
                await _round(client, figures[name], number, counts, num_tokens, prompt_tokens)
    return figures


async def _round(
    client: BenchClient,
    values: dict[str, list[float]],
    number: int,
    counts: Sequence[int],
    num_tokens: int,
    prompt_tokens: int,
) -> None:
    first = 1000 * (number + 1)  # prompts of other rounds are in the prefix cache
    for count in counts:
        timing = await client.run([workload.plain(first + 100 * count + i, num_tokens) for i in range(count)])
        values[f"plain ×{count}, tokens/s"].append(timing.tokens_per_s)
        values[f"plain ×{count}, TTFT ms"].append(timing.ttft_ms)
        values[f"plain ×{count}, ITL ms"].append(timing.itl_ms)
    timing = await client.run([workload.edit(first, num_tokens)])
    values["edit ×1, tokens/s"].append(1000 / timing.itl_ms if timing.itl_ms else 0.0)
    prompt = workload.long(first, prompt_tokens)
    for name in ("cold", "cached"):
        values[f"{name} prompt, TTFT ms"].append((await client.run([prompt])).ttft_ms)


def _measure_transformers(
    figures: Figures, model: str | None, cache_dir: Path, counts: Sequence[int], num_tokens: int, num_rounds: int
) -> None:
    from sluice.backend.bench.baseline import TransformersBatching
    from sluice.backend.weights import resolve_model

    baseline = TransformersBatching(resolve_model(model, cache_dir, lambda line: click.echo(line, err=True)).path)
    for number in range(num_rounds):
        click.echo(f"round {number + 1} of {num_rounds}: transformers", err=True)
        for count in counts:
            prompts = [workload.plain(1000 * number + 100 * count + i, num_tokens) for i in range(count)]
            figures["transformers"][f"plain ×{count}, tokens/s"].append(baseline.run(prompts))


def _print(figures: Figures) -> None:
    table = Table("figure (median of rounds)", *figures)
    rows = dict.fromkeys(figure for values in figures.values() for figure in values)
    for row in rows:
        cells = [f"{statistics.median(values[row]):.1f}" if row in values else "" for values in figures.values()]
        table.add_row(row, *cells)
    Console().print(table)
