"""Measures one stream against the memory bound, a long prompt against the peak, many streams beside transformers.

Prints each figure as it is there. `--shape tiny --device cpu` runs anywhere.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
from collections.abc import Callable
from typing import Any

import click
import torch

from sluice.backend.bench import bounds
from sluice.backend.bench.gpu.shapes import SHAPES, Shape
from sluice.backend.bench.gpu.streams import Streams, random_prompts
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import weight_form
from sluice.backend.errors import BackendError


@click.command()
@click.option("--shape", "shape_name", default="8b", show_default=True, type=click.Choice(list(SHAPES)))
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--dtype", default="bfloat16", show_default=True, type=click.Choice(["bfloat16", "float16", "int8", "int4"])
)
@click.option("--kv-dtype", default="auto", show_default=True, type=click.Choice(["auto", "int8", "fp8"]))
@click.option("--rounds", "num_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Record decoding steps.")
@click.option("--kernels", "with_kernels", is_flag=True, help="List what the device spends its time on.")
@click.option("--transformers/--no-transformers", "with_transformers", default=True, show_default=True)
def main(
    shape_name: str,
    device: str,
    dtype: str,
    kv_dtype: str,
    num_rounds: int,
    cuda_graphs: bool,
    with_kernels: bool,
    with_transformers: bool,
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
        many = asyncio.run(_measure(shape, config, num_rounds, with_kernels))
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    if with_transformers:
        gc.collect()
        torch.cuda.empty_cache()
        theirs = measure_transformers(shape, torch.device(device), num_rounds)
        what = f"transformers, {shape.num_streams} streams"
        _say(f"\n{what}: {theirs:,.1f} tokens/s; the engine ×{many / theirs:.2f} of it.")


async def _measure(shape: Shape, config: EngineConfig, num_rounds: int, with_kernels: bool) -> float:
    """Print the table; returns output tokens/s of many streams. Raises BackendError."""
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
    many = await streams.many()
    row(f"{shape.num_streams} streams, prompts included", many, "tokens/s", decoding(shape.num_streams))
    for what, times in (await streams.kernels()).items() if with_kernels else ():
        _say(f"\n{what}: {times}")
    await streams.aclose()
    return many


def measure_transformers(shape: Shape, device: torch.device, num_rounds: int) -> float:
    """Output tokens/s of such prompts by continuous batching, bfloat16, random weights: the median."""
    import transformers

    from sluice.backend.bench.baseline import ContinuousBatching

    config = shape.config
    llama = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_model_len,
        eos_token_id=None,
        bos_token_id=None,
    )
    with device:
        make_model: Any = transformers.AutoModelForCausalLM.from_config
        model = make_model(llama, dtype=torch.bfloat16).eval()
    sizes = {} if device.type == "cuda" else {"num_blocks": 64, "max_batch_tokens": 512}
    batching = ContinuousBatching(model, **sizes)
    rng, values = random.Random(1), []  # noqa: S311 - no secret
    for _ in range(num_rounds + 1):
        prompts = random_prompts(rng, shape, shape.num_streams, shape.num_prompt_tokens)
        values.append(batching.tokens_per_s(prompts, shape.num_output_tokens))
    return statistics.median(values[1:])


def _say(line: str) -> None:
    click.echo(line)


if __name__ == "__main__":
    main()
