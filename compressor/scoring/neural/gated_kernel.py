"""Llama's gate as one Triton kernel: two products of the same tokens, and what the gate lets through, in one pass.

Apart, the products' result, four times as wide as what was multiplied, is written and read again: on a GPU whose memory
is slow beside its arithmetic, that takes as long as the products do. With it SmolLM2-135M scores 1.2 to 1.3 times as
many tokens a second (one H200, layers compiled in both). Imported only where it is used.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS, _INNER = 128, 128, 64
_GROUP = 8
"""Blocks of rows whose weights are read one after the other, so that they are still in the cache."""


@triton.jit
def _gated(
    x,
    weight,
    out,
    num_rows,
    width: tl.constexpr,
    depth: tl.constexpr,
    ROWS: tl.constexpr,  # noqa: N803 - Triton's own way
    COLUMNS: tl.constexpr,  # noqa: N803
    INNER: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
):
    program = tl.program_id(0)
    num_row_blocks = tl.cdiv(num_rows, ROWS)
    num_column_blocks: tl.constexpr = width // COLUMNS
    group = program // (GROUP * num_column_blocks)
    first = group * GROUP
    size = min(num_row_blocks - first, GROUP)
    within = program % (GROUP * num_column_blocks)
    rows = (first + within % size) * ROWS + tl.arange(0, ROWS)
    columns = (within // size) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    is_row = rows[:, None] < num_rows
    gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    up = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, depth, INNER):
        at = start + inner
        tokens = tl.load(x + rows[:, None] * depth + at[None, :], mask=is_row, other=0.0)
        gates = tl.load(weight + columns[None, :] * depth + at[:, None])
        ups = tl.load(weight + (width + columns)[None, :] * depth + at[:, None])
        gate = tl.dot(tokens, gates, gate)
        up = tl.dot(tokens, ups, up)
    through = gate * tl.sigmoid(gate) * up
    tl.store(out + rows[:, None] * width + columns[None, :], through.to(out.dtype.element_ty), mask=is_row)


def fits(weight: Tensor) -> bool:
    """Whether the kernel computes with a matrix (2 · width, depth)."""
    return weight.shape[0] % (2 * _COLUMNS) == 0 and weight.shape[1] % _INNER == 0


def gated(x: Tensor, weight: Tensor) -> Tensor:
    """silu(x · gateᵀ) · (x · upᵀ), (tokens, width).

    Args:
        x: (tokens, depth), contiguous.
        weight: gate above up, (2 · width, depth), contiguous; see `fits`.
    """
    width, depth = weight.shape[0] // 2, weight.shape[1]
    out = torch.empty(len(x), width, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(len(x), _ROWS) * (width // _COLUMNS),)
    # Tiles are fetched ahead where they fit: in float32 they do not.
    num_stages = 3 if x.element_size() == 2 else 1
    sizes = (_ROWS, _COLUMNS, _INNER, _GROUP)
    _gated[grid](x, weight, out, len(x), width, depth, *sizes, num_warps=8, num_stages=num_stages)
    return out
