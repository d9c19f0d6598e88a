"""`sluice bench engine`: our engine with and without speculation, any servers by URL, and transformers, interleaved.

Each round measures every subject in turn, figure by figure, so that a busy machine is busy for all of them; ratios are
taken within rounds. Medians with bootstrap intervals, and what the machine would allow beside them.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

import click
import httpx

from sluice.backend.bench import workload
from sluice.backend.bench.client import BenchClient
from sluice.backend.bench.table import Figures, render_table
from sluice.backend.bench.workload import Prompt
from sluice.backend.embedded.config import DEVICES, DTYPES, EngineConfig
from sluice.backend.errors import BackendError
from sluice.backend.process import EngineProcess
from sluice.backend.settings import default_cache_dir

_ENGINE, _NO_SPECULATION, _TRANSFORMERS = "engine", "engine, no speculation", "transformers"


def _servers(context: click.Context, parameter: click.Parameter, urls: Sequence[str]) -> Sequence[str]:
    """The servers' addresses. Raises click.BadParameter where one is none."""
    for text in urls:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise click.BadParameter(f"{text!r}: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise click.BadParameter(f"{text!r} does not begin with http:// or https:// and a host")
    return urls


@click.command()
@click.option("--model", help="As for `sluice engine serve`.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(DEVICES))
@click.option("--dtype", default="auto", show_default=True, type=click.Choice(DTYPES))
@click.option("--streams", default="1,8,32", show_default=True, help="Numbers of streams at once.")
@click.option(
    "--tokens",
    "num_tokens",
    default=64,
    show_default=True,
    type=click.IntRange(2),
    help="Output tokens of each stream.",
)
@click.option("--rounds", "num_rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--max-s", type=float, help="Begin no further round after so many seconds.")
@click.option(
    "--prompt-tokens",
    default=2000,
    show_default=True,
    type=click.IntRange(1),
    help="Length of the prompt that is cached.",
)
@click.option(
    "--conversations",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Recorded conversations, one a line; what their agents wrote out of what they had read is asked for.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    callback=_servers,
    help="Another OpenAI server to measure, without /v1; repeatable.",
)
@click.option(
    "--transformers", "with_transformers", is_flag=True, help="Measure transformers' continuous batching too."
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SLUICE_CACHE_DIR",
    show_envvar=True,
    help="As for sluice engine serve.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all values there.")
def engine(
    model: str | None,
    device: str,
    dtype: str,
    streams: str,
    num_tokens: int,
    num_rounds: int,
    max_s: float | None,
    prompt_tokens: int,
    conversations: Sequence[Path],
    urls: Sequence[str],
    with_transformers: bool,
    cache_dir: Path | None,
    json_file: Path | None,
) -> None:
    """Time to first token, time between tokens and output tokens/s of the embedded engine."""
    counts = _counts(streams)
    if json_file is not None and not json_file.absolute().parent.is_dir():  # before the work, not after it
        raise click.BadParameter(f"{json_file}: there is no folder {json_file.absolute().parent}", param_hint="--json")
    _say("loading libraries")
    try:
        import torch

        from sluice.backend.bench import bounds
        from sluice.backend.bench.recorded import recorded_edits
        from sluice.backend.embedded.loading import weight_form
        from sluice.backend.embedded.model_config import ModelConfig
        from sluice.backend.embedded.passing_thread import in_passing_thread
        from sluice.backend.weights import resolve_model
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; run: pip install 'sluicegate[engine]'") from None
    if with_transformers and find_spec("transformers") is None:
        raise click.ClickException("--transformers: it is not installed; run: pip install 'sluicegate[fidelity]'")
    cache_dir = cache_dir or default_cache_dir()
    try:
        edits = [prompt for file in conversations for prompt in recorded_edits(file, num_tokens)]
        folder = resolve_model(model, cache_dir, _say).path
        form = weight_form(EngineConfig(device=device, dtype=dtype))
        machine = in_passing_thread(lambda: bounds.measure(form.device, form.dtype))
        baseline = None
        if with_transformers:
            from sluice.backend.bench.baseline import TransformersBatching

            baseline = TransformersBatching(folder, form, max(counts), workload.plain(workload.MAX_NUMBER, num_tokens))
        plan = Plan(counts, num_tokens, num_rounds, max_s or math.inf, prompt_tokens, edits)
        subjects = {
            name: EngineProcess(model=model, device=device, dtype=dtype, cache_dir=cache_dir, max_draft_tokens=drafts)
            for name, drafts in ((_ENGINE, None), (_NO_SPECULATION, 0))
        }
        figures = asyncio.run(plan.measure(subjects, urls, baseline.run if baseline else None))
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    shape = ModelConfig.read(folder)
    bits = {"int8": 8.0, "int4": 5.0}.get(dtype, 8.0 * form.dtype.itemsize)
    limits = {}
    for count in counts:
        step_s = bounds.decode_step_s(
            shape,
            machine,
            num_streams=count,
            context_len=num_tokens,
            num_bytes_per_weight=bits / 8,
            num_bytes_per_kv_value=4 if form.device.type == "cpu" else form.dtype.itemsize,
        )
        limits[f"plain ×{count}, tokens/s"] = count / step_s
        limits[f"plain ×{count}, ITL ms"] = step_s * 1000
    limits["cold prompt, TTFT ms"] = bounds.prefill_flops(shape, prompt_tokens) / machine.flops_per_s * 1000
    click.echo(
        f"{folder.name}, {dtype} ({form.dtype}) on {form.device.type}, {torch.get_num_threads()} threads, "
        f"{len(figures[_ENGINE]['cold prompt, TTFT ms'])} rounds, medians [95 %]. "
        f"Measured: {machine.bytes_per_s / 1e9:.1f} GB/s, {machine.flops_per_s / 1e12:.2f} TFLOP/s."
        f"{f' transformers in {form.dtype}.' if with_transformers else ''}\n"
    )
    click.echo(render_table(figures, limits, _ratios(figures)))
    if json_file is not None:
        json_file.write_text(json.dumps({"values": figures, "bounds": limits}), encoding="utf-8")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(count) for count in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise click.BadParameter(f"{text!r}: give numbers from 1 on, with commas between", param_hint="--streams")
    return counts


class Plan:
    """What is measured in each round."""

    def __init__(
        self,
        counts: Sequence[int],
        num_tokens: int,
        num_rounds: int,
        max_s: float,
        prompt_tokens: int,
        edits: Sequence[Prompt],
    ) -> None:
        self._counts, self._num_tokens, self._num_rounds, self._max_s = counts, num_tokens, num_rounds, max_s
        self._prompt_tokens, self._edits = prompt_tokens, edits

    async def measure(
        self,
        subjects: Mapping[str, EngineProcess],
        urls: Sequence[str],
        baseline: Callable[[Sequence[Prompt]], float] | None,
    ) -> Figures:
        """Start the subjects, measure round by round. Raises BackendError."""
        figures: Figures = defaultdict(lambda: defaultdict(list))
        async with AsyncExitStack() as stack:
            clients: dict[str, BenchClient] = {}
            for name, process in subjects.items():
                await stack.enter_async_context(process)
                clients[name] = BenchClient(process.base_url)
            clients |= {url: BenchClient(url) for url in urls}
            for name, client in clients.items():
                stack.push_async_callback(client.aclose)
                _say(f"{name}: {await client.connect()}")
                await client.run([workload.plain(0, 8)])
            start_s = time.monotonic()
            for number in range(self._num_rounds):
                if number and time.monotonic() - start_s > self._max_s:
                    break
                _say(f"round {number + 1} of {self._num_rounds}")
                await self.round(figures, clients, baseline, number)
        return figures

    async def round(
        self,
        figures: Figures,
        clients: Mapping[str, BenchClient],
        baseline: Callable[[Sequence[Prompt]], float] | None,
        number: int,
    ) -> None:
        """Measure all once, with prompts of its own: others' are in the prefix cache. Raises BackendError."""

        async def each(measure: Callable[[BenchClient], Awaitable[dict[str, float]]]) -> None:
            for name, client in clients.items():
                for figure, value in (await measure(client)).items():
                    figures[name][figure].append(value)

        for prompts in workload.plain_round(number, self._counts, self._num_tokens):

            async def plain(client: BenchClient, prompts: Sequence[Prompt] = prompts) -> dict[str, float]:
                timing = await client.run(prompts)
                values = {"tokens/s": timing.tokens_per_s, "TTFT ms": timing.ttft_ms, "ITL ms": timing.itl_ms}
                return {f"plain ×{len(prompts)}, {name}": value for name, value in values.items()}

            await each(plain)
            if baseline is not None:
                tokens_per_s = await asyncio.to_thread(baseline, prompts)
                figures[_TRANSFORMERS][f"plain ×{len(prompts)}, tokens/s"].append(tokens_per_s)

        async def edit(client: BenchClient) -> dict[str, float]:
            return {"edit ×1, tokens/s": await decoding(client, [workload.edit(number + 1, self._num_tokens)])}

        async def recorded(client: BenchClient) -> dict[str, float]:
            return {"recorded edits ×1, tokens/s": await decoding(client, self._edits)}

        async def cached(client: BenchClient) -> dict[str, float]:
            prompt = workload.long(number + 1, self._prompt_tokens)
            return {f"{name} prompt, TTFT ms": (await client.run([prompt])).ttft_ms for name in ("cold", "cached")}

        for measure in (edit, recorded, cached) if self._edits else (edit, cached):
            await each(measure)


async def decoding(client: BenchClient, prompts: Sequence[Prompt]) -> float:
    """Tokens/s after the first token, one stream at a time. Raises BackendError."""
    total_ms = sum([(await client.run([prompt])).itl_ms for prompt in prompts])
    if not total_ms:
        raise BackendError(f"{client.base_url} ends its answers at the first token: nothing is measured behind it")
    return 1000 * len(prompts) / total_ms


def _ratios(figures: Figures) -> list[tuple[str, Sequence[float], Sequence[float]]]:
    """What the bars are about: name, values, and what they are divided by."""
    ours, plain, theirs = figures[_ENGINE], figures[_NO_SPECULATION], figures.get(_TRANSFORMERS, {})
    single = [figure for figure in ours if "×1, tokens/s" in figure]
    return [
        *((f"{figure}: engine / transformers", ours[figure], theirs[figure]) for figure in ours if figure in theirs),
        *((f"{figure}: with / without speculation", ours[figure], plain[figure]) for figure in single),
        ("TTFT: cached / cold", ours["cached prompt, TTFT ms"], ours["cold prompt, TTFT ms"]),
    ]


def _say(line: str) -> None:
    click.echo(line, err=True)
