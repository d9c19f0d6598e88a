"""Measures one stream against the memory bound, a long prompt against the peak, many streams beside transformers.

Prints each figure as it is there, the engine's first. `--shape tiny --device cpu` runs anywhere.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping

import click
import torch

from sluice.backend.bench import bounds
from sluice.backend.bench.gpu.beside import transformers_batches
from sluice.backend.bench.gpu.shapes import SHAPES, Shape
from sluice.backend.bench.gpu.streams import Streams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import weight_form
from sluice.backend.errors import BackendError


@click.command()
@click.option("--shape", "shape_name", default="8b", show_default=True, type=click.Choice(list(SHAPES)))
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option(
    "--dtype", default="bfloat16", show_default=True, type=click.Choice(["bfloat16", "float16", "int8", "int4"])
)
@click.option("--kv-dtype", default="auto", show_default=True, type=click.Choice(["auto", "int8", "fp8"]))
@click.option("--rounds", "num_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Record decoding steps.")
@click.option("--kernels", "with_kernels", is_flag=True, help="List what the device spends its time on.")
@click.option("--transformers/--no-transformers", "with_transformers", default=True, show_default=True)
@click.option(
    "--transformers-s",
    "transformers_limit_s",
    default=150.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds for transformers, its start included; what it has not ended by then is not measured.",
)
def main(
    shape_name: str,
    device: str,
    dtype: str,
    kv_dtype: str,
    num_rounds: int,
    cuda_graphs: bool,
    with_kernels: bool,
    with_transformers: bool,
    transformers_limit_s: float,
) -> None:
    """Measure the engine on a GPU with random weights; prints a table."""
    shape = SHAPES[shape_name]
    config = EngineConfig(
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
        kv_memory_bytes=64 << 20 if shape_name == "tiny" else None,
        max_num_sequences=shape.num_streams,
        max_num_draft_tokens=0,
        use_cuda_graphs=cuda_graphs,
    )
    try:
        ours_per_s = asyncio.run(_measure(shape, config, num_rounds, with_kernels))
        if with_transformers:
            gc.collect()
            torch.cuda.empty_cache()
            _compare(shape, device, ours_per_s, transformers_limit_s)
    except BackendError as error:
        raise click.ClickException(str(error)) from None


def _compare(shape: Shape, device: str, ours_per_s: Mapping[int, float], limit_s: float) -> None:
    """Print how transformers fares, or how far it came. Raises BackendError."""
    _say("\nBeside transformers, whose weights are in bfloat16:\n")
    _say("| streams × tokens, prompts included | engine | transformers | ratio |\n|---|---|---|---|")
    lengths = sorted(ours_per_s)
    missing = dict.fromkeys(lengths)
    for batch in transformers_batches(shape, lengths, device, limit_s):
        del missing[batch.num_tokens]
        ours, theirs = ours_per_s[batch.num_tokens], batch.tokens_per_s
        what = f"{shape.num_streams} × {batch.num_tokens}"
        _say(f"| {what} | {ours:,.1f} tokens/s | {theirs:,.1f} tokens/s | {ours / theirs:.2f} |")
    for num_tokens in missing:
        _say(f"transformers did not end {shape.num_streams} × {num_tokens} tokens within {limit_s:g} s.")


def _output_lengths(shape: Shape) -> list[int]:
    """Output tokens of each stream beside transformers: few first, so that there is a figure soon."""
    return sorted({max(2, shape.num_output_tokens // part) for part in (16, 4, 1)})


async def _measure(shape: Shape, config: EngineConfig, num_rounds: int, with_kernels: bool) -> dict[int, float]:
    """Print the table; returns output tokens/s of many streams by the length of their outputs. Raises BackendError."""
    form = weight_form(config)
    machine = bounds.measure(form.device, form.dtype)
    streams = Streams(shape, config, num_rounds)
    name = torch.cuda.get_device_name(form.device) if form.device.type == "cuda" else "CPU"
    _say(
        f"Weights {config.dtype}, cache {config.kv_dtype}, {name}, torch {torch.__version__}, medians of {num_rounds} "
        f"rounds. Measured: {machine.bytes_per_s / 1e9:.0f} GB/s, {machine.flops_per_s / 1e12:.1f} TFLOP/s.\n"
    )
    _say("| figure | engine | bound, as measured | share |\n|---|---|---|---|")

    def row(what: str, value: float, unit: str, bound: Callable[[bounds.Machine], float]) -> None:
        limit = bound(machine)
        share = f"{value / limit:.0%}"
        if machine.nominal is not None:
            share += f" ({value / bound(bounds.Machine(*machine.nominal)):.0%} of the data sheet's)"
        _say(f"| {what} | {value:,.1f} {unit} | {limit:,.1f} | {share} |")

    def decoding(num_streams: int) -> Callable[[bounds.Machine], float]:
        bits = {"int8": 8, "int4": 5}.get(config.dtype, 8 * form.dtype.itemsize)
        is_packed = config.kv_dtype in ("int8", "fp8")
        return lambda limits: (
            num_streams
            / bounds.decode_step_s(
                shape.config,
                limits,
                num_streams=num_streams,
                context_len=shape.num_prompt_tokens + shape.num_output_tokens // 2,
                num_bytes_per_weight=bits / 8,
                num_bytes_per_kv_value=1 if is_packed else 4 if form.device.type == "cpu" else form.dtype.itemsize,
            )
        )

    row("1 stream, decoding", await streams.decoding(), "tokens/s", decoding(1))
    tflops = bounds.prefill_flops(shape.config, shape.num_prefill_tokens) / await streams.prefill_s() / 1e12
    row(f"prompt of {shape.num_prefill_tokens} tokens", tflops, "TFLOP/s", lambda limits: limits.flops_per_s / 1e12)
    many_per_s = {num_tokens: await streams.many(num_tokens) for num_tokens in reversed(_output_lengths(shape))}
    many = f"{shape.num_streams} streams, prompts included"
    row(many, many_per_s[shape.num_output_tokens], "tokens/s", decoding(shape.num_streams))
    for what, times in (await streams.kernels()).items() if with_kernels else ():
        _say(f"\n{what}: {times}")
    await streams.aclose()
    return many_per_s


def _say(line: str) -> None:
    click.echo(line)


if __name__ == "__main__":
    main()
