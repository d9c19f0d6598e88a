"""Caches with random content, and spans over them, for the tests of attention."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from sluice.backend.embedded.attention import Span
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model_config import ModelConfig

BLOCK = 4
NUM_BLOCKS = 64
NUM_HEADS = 4


def make_config(num_kv_heads: int = 2, head_dim: int = 8) -> ModelConfig:
    return ModelConfig(
        vocab_size=10,
        hidden_size=32,
        intermediate_size=32,
        num_layers=2,
        num_heads=NUM_HEADS,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=None,
        max_model_len=128,
        tie_word_embeddings=True,
        has_qk_norm=False,
    )


def make_cache(
    num_kv_heads: int = 2,
    head_dim: int = 8,
    *,
    stored: torch.dtype = torch.float32,
    read: torch.dtype = torch.float32,
    device: str = "cpu",
) -> KVCache:
    """Every slot holds random keys and values."""
    config = make_config(num_kv_heads, head_dim)
    cache = KVCache(config, NUM_BLOCKS, BLOCK, torch.device(device), stored=stored, read=read)
    generator = torch.Generator().manual_seed(1)
    slots = torch.arange((NUM_BLOCKS + 1) * BLOCK)
    for layer in range(config.num_layers):
        keys, values = torch.randn(2, len(slots), num_kv_heads, head_dim, generator=generator).to(device)
        cache.write(layer, slots.to(device), keys, values)
    return cache


def random_queries(num_tokens: int, head_dim: int = 8) -> torch.Tensor:
    return torch.randn(num_tokens, NUM_HEADS, head_dim, generator=torch.Generator().manual_seed(2))


@st.composite
def span_lists(draw: st.DrawFn) -> list[Span]:
    """Up to three sequences, in blocks that lie side by side or anywhere."""
    free = draw(st.permutations(range(NUM_BLOCKS))) if draw(st.booleans()) else list(range(NUM_BLOCKS))
    spans, start = [], 0
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 60))
        num_tokens = draw(st.integers(1, length))
        num_blocks = -(-length // BLOCK)
        spans.append(Span(start, num_tokens, length, free[:num_blocks]))
        free = free[num_blocks:]
        start += num_tokens
    return spans
