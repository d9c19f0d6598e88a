"""Triton kernels of paged attention: a few queries of each sequence over its blocks, in splits that run side by side.

Flash decoding: each split of the context gives a partial result and its log-sum-exp, a second kernel joins them. The
queries of a group of heads share what is read. Unpacks 8-bit caches as it reads. Runs on CPUs too, for tests, under
Triton's interpreter (`TRITON_INTERPRET=1`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_split(
    out_ptr,
    lse_ptr,
    queries_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    tables_ptr,
    context_lens_ptr,
    starts_ptr,
    num_tokens_ptr,
    num_heads,
    num_slots,
    table_stride,
    length_stride,
    num_splits,
    group: tl.constexpr,
    rows: tl.constexpr,
    head_dim: tl.constexpr,
    padded_dim: tl.constexpr,
    block_size: tl.constexpr,
    tile: tl.constexpr,
    has_scales: tl.constexpr,
):
    """One program: one sequence, one key head, one split of its context.

    Its rows are its queries × the group's heads. Writes (tokens, heads, splits, head_dim), and (tokens, heads, splits)
    in float32.
    """
    sequence, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    context_len = tl.load(context_lens_ptr + sequence * length_stride)
    num_tokens = tl.load(num_tokens_ptr + sequence)
    start = tl.load(starts_ptr + sequence)

    row = tl.arange(0, rows)
    query, head = row // group, kv_head * group + row % group
    is_row = query < num_tokens
    dims = tl.arange(0, padded_dim)
    is_dim = dims < head_dim
    row_offsets = (start + query).to(tl.int64) * num_heads + head
    queries = tl.load(
        queries_ptr + row_offsets[:, None] * head_dim + dims[None, :], mask=is_row[:, None] & is_dim[None, :], other=0.0
    )
    last_visible = context_len - num_tokens + query

    num_tiles = tl.cdiv(context_len, tile)
    tiles_per_split = tl.cdiv(num_tiles, num_splits)
    first_tile = split * tiles_per_split
    end_tile = tl.minimum(first_tile + tiles_per_split, num_tiles)
    greatest = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    summed = tl.zeros((rows, padded_dim), tl.float32)
    for number in range(first_tile, end_tile):
        position = number * tile + tl.arange(0, tile)
        is_here = position < context_len
        block = tl.load(tables_ptr + sequence * table_stride + position // block_size, mask=is_here, other=0)
        slot = kv_head.to(tl.int64) * num_slots + block.to(tl.int64) * block_size + position % block_size
        offsets = slot[:, None] * head_dim + dims[None, :]
        is_loaded = is_here[:, None] & is_dim[None, :]
        keys = tl.load(keys_ptr + offsets, mask=is_loaded, other=0.0).to(queries.dtype)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        if has_scales:
            scores *= tl.load(key_scales_ptr + slot, mask=is_here, other=0.0)[None, :]
        scores = tl.where(is_here[None, :] & (position[None, :] <= last_visible[:, None]), scores, float("-inf"))
        new_greatest = tl.maximum(greatest, tl.max(scores, axis=1))
        # A row that sees nothing yet stays at -inf; 0 in its place keeps NaNs out.
        shift = tl.where(new_greatest == float("-inf"), 0.0, new_greatest)
        weights = tl.exp(scores - shift[:, None])
        fade = tl.exp(greatest - shift)
        total = total * fade + tl.sum(weights, axis=1)
        if has_scales:
            weights *= tl.load(value_scales_ptr + slot, mask=is_here, other=0.0)[None, :]
        values = tl.load(values_ptr + offsets, mask=is_loaded, other=0.0).to(queries.dtype)
        summed = summed * fade[:, None] + tl.dot(weights.to(queries.dtype), values, input_precision="ieee")
        greatest = new_greatest

    has_any = total > 0
    summed = summed / tl.where(has_any, total, 1.0)[:, None]
    lse = tl.where(has_any, greatest + tl.log(tl.where(has_any, total, 1.0)), float("-inf"))
    out_offsets = row_offsets * num_splits + split
    tl.store(out_ptr + out_offsets[:, None] * head_dim + dims[None, :], summed, mask=is_row[:, None] & is_dim[None, :])
    tl.store(lse_ptr + out_offsets, lse, mask=is_row)


@triton.jit
def join_splits(
    out_ptr,
    parts_ptr,
    lse_ptr,
    starts_ptr,
    num_tokens_ptr,
    num_heads,
    num_splits,
    head_dim: tl.constexpr,
    padded_dim: tl.constexpr,
    padded_splits: tl.constexpr,
):
    """One program: one head of one token; its partial results, weighed by their shares, to `out` (tokens, heads, …)."""
    sequence, query, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if query < tl.load(num_tokens_ptr + sequence):
        row = (tl.load(starts_ptr + sequence) + query).to(tl.int64) * num_heads + head
        splits, dims = tl.arange(0, padded_splits), tl.arange(0, padded_dim)
        is_split, is_dim = splits < num_splits, dims < head_dim
        lse = tl.load(lse_ptr + row * num_splits + splits, mask=is_split, other=float("-inf"))
        shares = tl.exp(lse - tl.max(lse, axis=0))
        shares /= tl.sum(shares, axis=0)
        parts = tl.load(
            parts_ptr + (row * num_splits + splits)[:, None] * head_dim + dims[None, :],
            mask=is_split[:, None] & is_dim[None, :],
            other=0.0,
        )
        tl.store(out_ptr + row * head_dim + dims, tl.sum(parts * shares[:, None], axis=0), mask=is_dim)
