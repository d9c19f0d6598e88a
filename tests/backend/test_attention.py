from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.backend.embedded.attention import GatheredAttention, RunsAttention, Span
from sluice.backend.embedded.attention.runs import runs_of
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model_config import ModelConfig

BLOCK = 4


def make_cache(num_kv_heads: int = 2, head_dim: int = 8) -> KVCache:
    config = ModelConfig(
        vocab_size=10,
        hidden_size=32,
        intermediate_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=None,
        max_model_len=128,
        tie_word_embeddings=True,
        has_qk_norm=False,
    )
    cache = KVCache(config, 64, BLOCK, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    for tensor in (cache.keys, cache.values):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return cache


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True), st.integers(0, BLOCK - 1))
def test_runs_name_the_slots_of_the_context_in_order(table: list[int], unfilled: int) -> None:
    length = len(table) * BLOCK - unfilled
    slots = [block * BLOCK + offset for block in table for offset in range(BLOCK)][:length]
    runs = runs_of([*table, 63], length, BLOCK)
    assert [slot for start, end in runs for slot in range(start, end)] == slots
    assert all(end != start for (_, end), (start, _) in itertools.pairwise(runs)), "neighbours are joined"


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_runs_attend_as_the_reference(data: st.DataObject) -> None:
    cache = make_cache()
    free = data.draw(st.permutations(range(64))) if data.draw(st.booleans()) else list(range(64))
    spans, start = [], 0
    for _ in range(data.draw(st.integers(1, 3))):
        length = data.draw(st.integers(1, 60))
        num_tokens = data.draw(st.integers(1, length))
        num_blocks = -(-length // BLOCK)
        spans.append(Span(start, num_tokens, length, free[:num_blocks]))
        free = free[num_blocks:]
        start += num_tokens
    queries = torch.randn(start, 4, 8, generator=torch.Generator().manual_seed(2))
    for layer in (0, 1):
        expected = GatheredAttention(cache).begin(spans)(layer, queries)
        torch.testing.assert_close(RunsAttention(cache).begin(spans)(layer, queries), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_groups_of_any_size(num_kv_heads: int) -> None:
    cache = make_cache(num_kv_heads)
    spans = [Span(0, 20, 30, list(range(8))), Span(20, 1, 9, [20, 30, 31]), Span(21, 3, 12, [40, 41, 42])]
    queries = torch.randn(24, 4, 8, generator=torch.Generator().manual_seed(2))
    expected = GatheredAttention(cache).begin(spans)(1, queries)
    torch.testing.assert_close(RunsAttention(cache).begin(spans)(1, queries), expected, atol=1e-5, rtol=1e-5)


def test_copied_blocks_are_equal() -> None:
    cache = make_cache()
    before = cache.keys[:, :, 8:12].clone()
    cache.copy([(2, 5), (5, 7)])
    assert torch.equal(cache.keys[:, :, 28:32], before)
    assert torch.equal(cache.keys[:, :, 8:12], before)
