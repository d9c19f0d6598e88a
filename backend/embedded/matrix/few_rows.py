"""On CUDA: products of a few rows with a matrix, which wait for the matrix to be read, in the bits that it is kept in.

cuBLAS reads a matrix of 4096 × 4096 at 2.5 TB/s of an H200's 4.4 where there is one row; torch's own products with 8
and 4 bits are slower than one with 16.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from sluice.backend.embedded.matrix.few_rows_kernels import (
    multiply_half_row,
    multiply_half_rows,
    multiply_row,
    multiply_rows,
)

_ROWS_AT_ONCE, _TILE = 2, 1024
_MIN_ROWS = 16  # the least that a matrix unit multiplies
_COLUMNS_AT_ONCE, _DEPTH = 32, 128


def multiply(activations: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    """`activations` (rows, in) times `weight` (out, in), of any dtype; each output times its scale (out,).

    All contiguous; the result has the dtype of the activations.
    """
    size = weight.shape[1]
    matrix = (weight, weight if scales is None else scales)
    kernels = (multiply_row, multiply_rows)
    return _computed(kernels, activations, matrix, size, num_stages=4, size=size, has_scales=scales is not None)


def multiply_halves(
    activations: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group: int
) -> torch.Tensor:
    """`activations` (rows, in) times a matrix of 4 bits as `HalvedInt4Matrix` has it, in groups of `group` inputs."""
    half = weight.shape[1]
    kernels = (multiply_half_row, multiply_half_rows)
    return _computed(kernels, activations, (weight, scales, zeros), half, num_stages=3, half=half, group=group)


def _computed(
    kernels: tuple[Any, Any],
    activations: torch.Tensor,
    matrix: tuple[torch.Tensor, ...],
    width: int,
    *,
    num_stages: int,
    **constants: int,
) -> torch.Tensor:
    """What the first kernel gives for one row, the second for more; `width` elements of the matrix make an output.

    The second fetches `num_stages` tiles ahead; none in float32, for comparisons alone, where they would not fit.
    """
    num_rows, num_outputs = len(activations), len(matrix[0])
    out = torch.empty((num_rows, num_outputs), dtype=activations.dtype, device=activations.device)
    for_one, for_more = kernels
    if num_rows == 1:
        for_one[(triton.cdiv(num_outputs, _ROWS_AT_ONCE),)](
            out,
            activations,
            *matrix,
            num_outputs,
            **constants,
            rows_at_once=_ROWS_AT_ONCE,
            tile=_TILE,
            is_whole=width % _TILE == 0 and num_outputs % _ROWS_AT_ONCE == 0,
            num_warps=4,
        )
    else:
        for_more[(triton.cdiv(num_outputs, _COLUMNS_AT_ONCE),)](
            out,
            activations,
            *matrix,
            num_rows,
            num_outputs,
            **constants,
            padded_rows=max(triton.next_power_of_2(num_rows), _MIN_ROWS),
            columns_at_once=_COLUMNS_AT_ONCE,
            depth=_DEPTH,
            num_warps=4,
            num_stages=num_stages if activations.element_size() == 2 else 1,
        )
    return out
