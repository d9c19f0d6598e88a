"""What a CUDA device computes, against the reference; skipped where there is none."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.attention import GatheredAttention, Span, make_attention
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import load_engine
from sluice.backend.embedded.matrix import DenseMatrix, MatrixMaker, eight_bits, four_bits
from tests.backend.attention_data import make_cache, random_queries
from tests.backend.engines import STRAINS, check_greedy, collect

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SPANS = [
    Span(0, 1, 61, list(range(16))),
    Span(1, 5, 9, [20, 30, 31]),
    Span(6, 30, 50, list(range(40, 53))),
    Span(36, 17, 17, [53, 54, 33, 34, 35]),
]


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("stored", "read", "tolerance"),
    [
        (torch.float32, torch.float32, 1e-4),
        (torch.bfloat16, torch.bfloat16, 3e-2),
        (torch.float16, torch.float16, 5e-3),
        (torch.int8, torch.bfloat16, 3e-2),
        (torch.float8_e4m3fn, torch.bfloat16, 3e-2),
    ],
)
def test_attention_is_that_of_the_reference(
    head_dim: int, num_kv_heads: int, stored: torch.dtype, read: torch.dtype, tolerance: float
) -> None:
    """The reference computes in float32 on the host, from the same stored keys and values."""
    cache = make_cache(num_kv_heads, head_dim, stored=stored, read=read, device="cuda")
    host = make_cache(num_kv_heads, head_dim, stored=stored)
    queries = random_queries(53, head_dim) * head_dim**-0.5
    expected = GatheredAttention(host).begin(SPANS)(1, queries)
    actual = make_attention(cache).begin(SPANS)(1, queries.cuda())
    torch.testing.assert_close(actual.float().cpu(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("make", [DenseMatrix, eight_bits, four_bits])
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_matrices_multiply_as_on_the_host(make: MatrixMaker, num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, activations = (torch.randn(n, 256, generator=generator).bfloat16() for n in (96, num_tokens))
    expected = make(weight, None)(activations).float()
    actual = make(weight.cuda(), None)(activations.cuda()).float().cpu()
    assert float((actual - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("use_cuda_graphs", [False, True])
@pytest.mark.parametrize("strain", STRAINS)
async def test_greedy_output_is_that_of_transformers(tiny_folder: Path, strain: str, use_cuda_graphs: bool) -> None:
    rng = random.Random(1)
    prompts = [[rng.randrange(2, 258) for _ in range(rng.randrange(1, 120))] for _ in range(16)]
    prompts += [[rng.randrange(2, 258) for _ in range(10)] * 5 for _ in range(4)]
    config = STRAINS[strain]
    fields = {name: getattr(config, name) for name in config.__slots__}
    fields |= {"device": "cuda", "dtype": "float32", "use_cuda_graphs": use_cuda_graphs}
    fields["kv_memory_bytes"] = config.kv_memory_bytes or 1 << 26
    torch.backends.cuda.matmul.allow_tf32 = False
    engine = load_engine(tiny_folder, EngineConfig(**fields), frozenset())
    params = SamplingParams(temperature=0, max_tokens=60)
    outputs = await asyncio.gather(*(collect(engine, prompt, params, drafts=[prompt]) for prompt in prompts))
    await engine.aclose()
    num_close = check_greedy(tiny_folder, prompts, [tokens for tokens, _ in outputs])
    print(f"{strain}: {num_close} of {60 * len(prompts)} tokens were as good as even")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("kv_dtype", ["auto", "int8", "fp8"])
async def test_every_form_of_weights_and_cache_runs(tiny_folder: Path, dtype: str, kv_dtype: str) -> None:
    config = EngineConfig(device="cuda", dtype=dtype, kv_dtype=kv_dtype, kv_memory_bytes=1 << 26, max_num_sequences=4)
    engine = load_engine(tiny_folder, config, frozenset())
    greedy, drawn = SamplingParams(temperature=0, max_tokens=20), SamplingParams(seed=1, top_p=0.9, max_tokens=20)
    results = await asyncio.gather(*(collect(engine, [5, 6, 7], params) for params in (greedy, drawn, greedy, drawn)))
    assert all(len(tokens) == 20 for tokens, _ in results)
    await engine.aclose()
