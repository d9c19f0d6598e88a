"""Everything that is claimed of the engine on a GPU, in one run: `python -m sluice.backend.bench.gpu`.

A model of 8B shape with random weights, as speed does not depend on their values: one stream against the memory bound,
many streams against transformers' continuous batching, a long prompt against the peak. `--shape tiny` runs anywhere.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import torch

from sluice.backend.base import SamplingParams
from sluice.backend.bench import bounds
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.load import WeightForm
from sluice.backend.embedded.loading import make_engine, weight_form
from sluice.backend.embedded.matrix import Matrix
from sluice.backend.embedded.model import LayerWeights, Weights
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.errors import BackendError


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and what is asked of it."""

    config: ModelConfig
    num_streams: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_prefill_tokens: int


def _llama(layers: int, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int, words: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=None,
        max_model_len=8192 + 256,
        tie_word_embeddings=False,
        has_qk_norm=False,
    )


SHAPES = {
    "8b": Shape(_llama(32, 4096, 14336, 32, 8, 128, 128_256), 64, 256, 256, 8192),
    "1b": Shape(_llama(16, 2048, 8192, 32, 8, 64, 128_256), 64, 256, 256, 8192),
    "tiny": Shape(_llama(2, 128, 256, 4, 2, 32, 512), 4, 16, 8, 128),
}


def random_weights(config: ModelConfig, form: WeightForm) -> Weights:
    """Weights of this shape that keep activations in bounds."""

    def tensor(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, dtype=form.dtype, device=form.device).mul_(columns**-0.5)

    def matrix(rows: int, columns: int) -> Matrix:
        return form.matrix(tensor(rows, columns), None)

    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    ones = torch.ones(hidden, dtype=form.dtype, device=form.device)
    layers = [
        LayerWeights(
            attention_norm=ones,
            qkv=matrix(q_size + 2 * kv_size, hidden),
            q_norm=None,
            k_norm=None,
            output=matrix(hidden, q_size),
            mlp_norm=ones,
            gate_up=matrix(2 * inner, hidden),
            down=matrix(hidden, inner),
        )
        for _ in range(config.num_layers)
    ]
    head = form.head(tensor(config.vocab_size, hidden), None)
    return Weights(embedding=tensor(config.vocab_size, hidden), layers=layers, norm=ones, head=head)


class _Streams:
    """Drives one engine with prompts of random tokens, each another."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._rng = random.Random(0)  # noqa: S311 - no secret

    def prompts(self, num_prompts: int, num_tokens: int) -> list[list[int]]:
        return [[self._rng.randrange(self._engine.vocab_size) for _ in range(num_tokens)] for _ in range(num_prompts)]

    async def run(self, prompts: Sequence[list[int]], num_tokens: int) -> tuple[float, float]:
        """Seconds to the last first token, and to the end."""
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_end=True)
        start_s = time.perf_counter()

        async def one(prompt: list[int]) -> float:
            first_s = 0.0
            async for output in self._engine.generate(prompt, params):
                if output.token_ids and not first_s:
                    first_s = time.perf_counter() - start_s
            return first_s

        firsts_s = await asyncio.gather(*(one(prompt) for prompt in prompts))
        return max(firsts_s), time.perf_counter() - start_s


def measure_engine(shape: Shape, config: EngineConfig, num_rounds: int) -> tuple[dict[str, float], list[list[int]]]:
    """Medians: `one` and `many` in output tokens/s, `prefill_s`; and the prompts of the many streams."""
    form = weight_form(config)
    engine = make_engine(shape.config, random_weights(shape.config, form), form, config, frozenset())
    streams = _Streams(engine)
    num_tokens = shape.num_output_tokens
    values: dict[str, list[float]] = {"one": [], "many": [], "prefill_s": []}
    prompts: list[list[int]] = []

    async def rounds() -> None:
        nonlocal prompts
        for number in range(num_rounds + 1):  # the first warms up
            first_s, end_s = await streams.run(streams.prompts(1, shape.num_prompt_tokens), num_tokens)
            one = (num_tokens - 1) / (end_s - first_s)
            prompts = streams.prompts(shape.num_streams, shape.num_prompt_tokens)
            _, end_s = await streams.run(prompts, num_tokens)
            many = shape.num_streams * num_tokens / end_s
            prefill_s, _ = await streams.run(streams.prompts(1, shape.num_prefill_tokens), 1)
            if number:
                for name, value in (("one", one), ("many", many), ("prefill_s", prefill_s)):
                    values[name].append(value)
        await engine.aclose()

    asyncio.run(rounds())
    return {name: statistics.median(entries) for name, entries in values.items()}, prompts


def measure_transformers(shape: Shape, device: torch.device, prompts: list[list[int]], num_rounds: int) -> float:
    """Output tokens/s of the same prompts by continuous batching, bfloat16, random weights: the median."""
    import transformers

    config = shape.config
    llama: Any = transformers.LlamaConfig(
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
    make_config: Any = transformers.GenerationConfig
    generation = make_config(max_new_tokens=shape.num_output_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    sizes: Any = transformers.ContinuousBatchingConfig
    batching = sizes() if device.type == "cuda" else sizes(num_blocks=64, max_batch_tokens=512)
    values = []
    for _ in range(num_rounds + 1):
        start_s = time.perf_counter()
        outputs = model.generate_batch(
            prompts, generation_config=generation, continuous_batching_config=batching, warmup=False
        )
        duration_s = time.perf_counter() - start_s
        values.append(sum(len(output.generated_tokens) for output in outputs.values()) / duration_s)
    return statistics.median(values[1:])


def report(shape_name: str, config: EngineConfig, num_rounds: int, with_transformers: bool) -> str:
    """Measure and say it as a table in Markdown. Raises BackendError."""
    shape, form = SHAPES[shape_name], weight_form(config)
    device = form.device
    machine = bounds.measure(device, form.dtype)
    figures, prompts = measure_engine(shape, config, num_rounds)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    bits = {"int8": 8, "int4": 5}.get(config.dtype, 8 * form.dtype.itemsize)
    kv_bytes = 1 if config.kv_dtype in ("int8", "fp8") else 4 if device.type == "cpu" else form.dtype.itemsize
    context_len = shape.num_prompt_tokens + shape.num_output_tokens // 2

    def bound(num_streams: int, limits: bounds.Machine) -> float:
        step_s = bounds.decode_step_s(
            shape.config,
            limits,
            num_streams=num_streams,
            context_len=context_len,
            num_bytes_per_weight=bits / 8,
            num_bytes_per_kv_value=kv_bytes,
        )
        return num_streams / step_s

    flops = bounds.prefill_flops(shape.config, shape.num_prefill_tokens) / figures["prefill_s"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [
        f"{shape_name} shape, weights {config.dtype}, cache {config.kv_dtype}, {name}, torch {torch.__version__}, "
        f"medians of {num_rounds} rounds. Measured: {machine.bytes_per_s / 1e9:.0f} GB/s, "
        f"{machine.flops_per_s / 1e12:.1f} TFLOP/s.",
        "",
        "| figure | engine | bound, as measured | share |",
        "|---|---|---|---|",
    ]

    def row(what: str, value: float, unit: str, take: Callable[[bounds.Machine], float]) -> str:
        limit = take(machine)
        share = f"{value / limit:.0%}"
        if machine.nominal is not None:
            share += f" ({value / take(bounds.Machine(*machine.nominal)):.0%} of the data sheet's)"
        return f"| {what} | {value:,.1f} {unit} | {limit:,.1f} | {share} |"

    many = f"{shape.num_streams} streams"
    lines += [
        row("1 stream, decoding", figures["one"], "tokens/s", functools.partial(bound, 1)),
        row(f"{many}, prompts included", figures["many"], "tokens/s", functools.partial(bound, shape.num_streams)),
        row(f"prompt of {shape.num_prefill_tokens} tokens", flops / 1e12, "TFLOP/s", lambda at: at.flops_per_s / 1e12),
    ]
    if with_transformers:
        theirs = measure_transformers(shape, device, prompts, num_rounds)
        lines += ["", f"transformers, {many}: {theirs:,.1f} tokens/s; the engine ×{figures['many'] / theirs:.2f}."]
    return "\n".join(lines)


@click.command()
@click.option("--shape", default="8b", show_default=True, type=click.Choice(list(SHAPES)))
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--dtype", default="bfloat16", show_default=True, type=click.Choice(["bfloat16", "float16", "int8", "int4"])
)
@click.option("--kv-dtype", default="auto", show_default=True, type=click.Choice(["auto", "int8", "fp8"]))
@click.option("--rounds", "num_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--transformers/--no-transformers", "with_transformers", default=True, show_default=True)
def main(shape: str, device: str, dtype: str, kv_dtype: str, num_rounds: int, with_transformers: bool) -> None:
    """Measure the engine on a GPU with random weights; prints a table."""
    config = EngineConfig(
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
        kv_memory_bytes=64 << 20 if shape == "tiny" else None,
        max_num_sequences=SHAPES[shape].num_streams,
        max_num_draft_tokens=0,
    )
    try:
        click.echo(report(shape, config, num_rounds, with_transformers))
    except BackendError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
