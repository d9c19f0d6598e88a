"""Output tokens for each second of one core, the engine and transformers in turn.

`python -m sluice.backend.bench.cpu_time`. For machines that are never quiet: what else runs there takes time, and
hardly any of a process's own CPU time.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from sluice.backend.base import Engine, SamplingParams
from sluice.backend.bench import workload
from sluice.backend.bench.baseline import TransformersBatching
from sluice.backend.bench.intervals import interval, ratio
from sluice.backend.embedded.config import DTYPES, EngineConfig
from sluice.backend.embedded.loading import load_engine, weight_form
from sluice.backend.errors import BackendError
from sluice.backend.settings import default_cache_dir
from sluice.backend.tokenizer import Tokenizer
from sluice.backend.weights import resolve_model


@click.command()
@click.option("--model", help="As for `sluice engine serve`.")
@click.option("--dtype", default="auto", show_default=True, type=click.Choice(DTYPES))
@click.option("--tokens", "num_tokens", default=32, show_default=True, help="Output tokens of each stream.")
@click.option("--rounds", "num_rounds", default=4, show_default=True, type=click.IntRange(1))
def main(model: str | None, dtype: str, num_tokens: int, num_rounds: int) -> None:
    """Measure 1, 8 and 32 streams on one core; prints a table."""
    torch.set_num_threads(1)
    try:
        folder = resolve_model(model, default_cache_dir(), lambda _: None).path
        click.echo(asyncio.run(_measure(folder, dtype, num_tokens, num_rounds)))
    except BackendError as error:
        raise click.ClickException(str(error)) from None


async def _measure(folder: Path, dtype: str, num_tokens: int, num_rounds: int) -> str:
    """The table. Raises BackendError."""
    counts = (1, 8, 32)
    config = EngineConfig(device="cpu", dtype=dtype)
    form = weight_form(config)
    theirs = TransformersBatching(folder, form, max(counts), workload.plain(workload.MAX_NUMBER, num_tokens))
    engine, tokenizer = load_engine(folder, config, frozenset()), Tokenizer(folder)
    ours_per_s: defaultdict[int, list[float]] = defaultdict(list)
    theirs_per_s: defaultdict[int, list[float]] = defaultdict(list)
    for number in range(num_rounds):
        for count, prompts in zip(counts, workload.plain_round(number, counts, num_tokens), strict=True):
            start_s = time.process_time()
            await _run(engine, [tokenizer.encode(prompt.text) for prompt in prompts], num_tokens)
            between_s = time.process_time()
            await asyncio.to_thread(theirs.run, prompts)
            end_s = time.process_time()
            ours_per_s[count].append(count * num_tokens / (between_s - start_s))
            theirs_per_s[count].append(count * num_tokens / (end_s - between_s))
    await engine.aclose()
    rows = [
        f"| {count} | {interval(ours)} | {interval(theirs_per_s[count])} | {ratio(ours, theirs_per_s[count])} |"
        for count, ours in ours_per_s.items()
    ]
    head = f"| streams | engine, {dtype}, tokens/CPU s | transformers, {form.dtype} | ratio |\n|---|---|---|---|"
    return "\n".join([head, *rows])


async def _run(engine: Engine, prompts: Sequence[list[int]], num_tokens: int) -> None:
    """Greedy, none ended early."""
    params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_end=True)

    async def one(prompt: list[int]) -> None:
        async for _ in engine.generate(prompt, params):
            pass

    await asyncio.gather(*(one(prompt) for prompt in prompts))


if __name__ == "__main__":
    main()
