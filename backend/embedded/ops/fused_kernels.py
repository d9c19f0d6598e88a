"""Triton kernels of `FusedOps`; computed in float32, stored in the dtype of the target.

Run on CPUs too, for tests, under Triton's interpreter (`TRITON_INTERPRET=1`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_norm_rows(
    total_ptr,
    normed_ptr,
    hidden_ptr,
    change_ptr,
    weight_ptr,
    eps,
    size: tl.constexpr,
    padded_size: tl.constexpr,
    has_change: tl.constexpr,
):
    """One program: one token. The sum is rounded before it is normalised, as it is what the next layer reads."""
    row = tl.program_id(0).to(tl.int64) * size
    column = tl.arange(0, padded_size)
    is_here = column < size
    total = tl.load(hidden_ptr + row + column, mask=is_here, other=0.0).to(tl.float32)
    if has_change:
        total += tl.load(change_ptr + row + column, mask=is_here, other=0.0).to(tl.float32)
        total = total.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + row + column, total, mask=is_here)
        total = total.to(tl.float32)
    length = tl.rsqrt(tl.sum(total * total, axis=0) / size + eps)
    weight = tl.load(weight_ptr + column, mask=is_here, other=0.0).to(tl.float32)
    tl.store(normed_ptr + row + column, total * length * weight, mask=is_here)


@triton.jit
def store_heads_rows(
    queries_ptr,
    keys_ptr,
    values_ptr,
    qkv_ptr,
    rotation_ptr,
    slots_ptr,
    query_norm_ptr,
    key_norm_ptr,
    num_slots,
    scale,
    eps,
    num_heads: tl.constexpr,
    num_kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    padded_dim: tl.constexpr,
    has_norms: tl.constexpr,
):
    """One program: one head of one token, of its queries, keys or values in this order.

    `rotation_ptr` has a cosine and a sine for each pair, `keys_ptr` and `values_ptr` (kv_heads, slots, head_dim).
    """
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, padded_dim)
    is_here = column < head_dim
    row = (token * (num_heads + 2 * num_kv_heads) + head) * head_dim
    values = tl.load(qkv_ptr + row + column, mask=is_here, other=0.0).to(tl.float32)
    slot = tl.load(slots_ptr + token)
    if head >= num_heads + num_kv_heads:
        kv_head = (head - num_heads - num_kv_heads).to(tl.int64)
        tl.store(values_ptr + (kv_head * num_slots + slot) * head_dim + column, values, mask=is_here)
    else:
        is_query = head < num_heads
        if has_norms:
            values *= tl.rsqrt(tl.sum(values * values, axis=0) / head_dim + eps)
            if is_query:
                norm = tl.load(query_norm_ptr + column, mask=is_here, other=0.0)
            else:
                norm = tl.load(key_norm_ptr + column, mask=is_here, other=0.0)
            values *= norm
        turn = tl.load(rotation_ptr + token * head_dim + column, mask=is_here, other=0.0)
        cosine, sine = tl.split(tl.reshape(turn, (padded_dim // 2, 2)))
        first, second = tl.split(tl.reshape(values, (padded_dim // 2, 2)))
        rotated = tl.interleave(first * cosine - second * sine, first * sine + second * cosine)
        if is_query:
            tl.store(queries_ptr + (token * num_heads + head) * head_dim + column, rotated * scale, mask=is_here)
        else:
            kv_head = (head - num_heads).to(tl.int64)
            tl.store(keys_ptr + (kv_head * num_slots + slot) * head_dim + column, rotated, mask=is_here)


@triton.jit
def gate_rows(gated_ptr, gate_up_ptr, size: tl.constexpr, tile: tl.constexpr):
    """One program: a tile of one token's gates, through SiLU, times what they gate."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    is_here = column < size
    gate = tl.load(gate_up_ptr + 2 * token * size + column, mask=is_here, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + (2 * token + 1) * size + column, mask=is_here, other=0.0).to(tl.float32)
    tl.store(gated_ptr + token * size + column, gate * tl.sigmoid(gate) * up, mask=is_here)
