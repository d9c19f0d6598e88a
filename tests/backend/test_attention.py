from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.embedded.attention import GatheredAttention, RunsAttention, Span
from sluice.backend.embedded.attention.runs import runs_of
from sluice.backend.embedded.kv_cache import KVCache
from tests.backend.attention_data import BLOCK, make_cache, random_queries, span_lists
from tests.effort import examples

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Of the paged kernel: under Triton's interpreter where there is no GPU."""


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True), st.integers(0, BLOCK - 1))
def test_runs_name_the_slots_of_the_context_in_order(table: list[int], unfilled: int) -> None:
    length = len(table) * BLOCK - unfilled
    slots = [block * BLOCK + offset for block in table for offset in range(BLOCK)][:length]
    runs = runs_of([*table, 63], length, BLOCK)
    assert [slot for start, end in runs for slot in range(start, end)] == slots
    assert all(end != start for (_, end), (start, _) in itertools.pairwise(runs)), "neighbours are joined"


@examples(30)
@given(span_lists())
def test_runs_attend_as_the_reference(spans: list[Span]) -> None:
    cache = make_cache()
    queries = random_queries(sum(span.num_tokens for span in spans))
    for layer in (0, 1):
        expected = GatheredAttention(cache).begin(spans)(layer, queries)
        torch.testing.assert_close(RunsAttention(cache).begin(spans)(layer, queries), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_runs_read_what_is_kept_in_fewer_bits(stored: torch.dtype) -> None:
    cache = make_cache(stored=stored)
    spans = [Span(0, 20, 30, list(range(8))), Span(20, 1, 9, [20, 30, 31]), Span(21, 3, 12, [40, 41, 42])]
    queries = random_queries(24)
    expected = GatheredAttention(cache).begin(spans)(1, queries)
    torch.testing.assert_close(RunsAttention(cache).begin(spans)(1, queries), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_groups_of_any_size(num_kv_heads: int) -> None:
    cache = make_cache(num_kv_heads)
    spans = [Span(0, 20, 30, list(range(8))), Span(20, 1, 9, [20, 30, 31]), Span(21, 3, 12, [40, 41, 42])]
    queries = random_queries(24)
    expected = GatheredAttention(cache).begin(spans)(1, queries)
    torch.testing.assert_close(RunsAttention(cache).begin(spans)(1, queries), expected, atol=1e-5, rtol=1e-5)


def attend_paged(cache: KVCache, spans: list[Span], layer: int, queries: torch.Tensor, *, busy: int) -> torch.Tensor:
    """By the kernel; `busy` processors make it split the contexts."""
    pytest.importorskip("triton")
    from sluice.backend.embedded.attention.paged import PagedAttention

    return PagedAttention(cache, num_processors=busy).begin(spans)(layer, queries)


@examples(10)
@given(span_lists(), st.sampled_from([1, 4, 40]))
def test_the_paged_kernel_attends_as_the_reference(spans: list[Span], busy: int) -> None:
    cache = make_cache(device=DEVICE)
    queries = random_queries(sum(span.num_tokens for span in spans)).to(DEVICE)
    expected = GatheredAttention(cache).begin(spans)(1, queries)
    actual = attend_paged(cache, spans, 1, queries, busy=busy)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("head_dim", [8, 24])
@pytest.mark.parametrize("stored", [torch.float32, torch.int8, torch.float8_e4m3fn])
def test_the_paged_kernel_takes_any_shape_and_cache(num_kv_heads: int, head_dim: int, stored: torch.dtype) -> None:
    cache = make_cache(num_kv_heads, head_dim, stored=stored, device=DEVICE)
    spans = [Span(0, 1, 61, list(range(16))), Span(1, 5, 9, [20, 30, 31]), Span(6, 16, 16, [40, 41, 42, 43])]
    queries = random_queries(22, head_dim).to(DEVICE)
    expected = GatheredAttention(cache).begin(spans)(1, queries)
    actual = attend_paged(cache, spans, 1, queries, busy=9)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_decoding_pass_over_tensors_follows_their_content() -> None:
    pytest.importorskip("triton")
    from sluice.backend.embedded.attention.paged import PagedAttention

    cache, queries = make_cache(device=DEVICE), random_queries(2).to(DEVICE)
    tables = torch.zeros(2, 16, dtype=torch.int32, device=DEVICE)
    lens = torch.ones(2, dtype=torch.int32, device=DEVICE)
    attend = PagedAttention(cache, num_processors=8).decode(tables, lens)
    for spans in (
        [Span(0, 1, 50, list(range(13))), Span(1, 1, 3, [60])],
        [Span(0, 1, 1, [7]), Span(1, 1, 64, [*range(16)])],
    ):
        for row, span in enumerate(spans):
            tables[row, : len(span.block_table)] = torch.tensor(span.block_table)
            lens[row] = span.context_len
        expected = GatheredAttention(cache).begin(spans)(0, queries)
        torch.testing.assert_close(attend(0, queries), expected, atol=1e-5, rtol=1e-5)
