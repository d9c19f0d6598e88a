"""On CUDA: products of a few rows with a matrix, which wait for the matrix to be read, in the bits that it is kept in.

cuBLAS reads a matrix of 4096 × 4096 at 2.5 TB/s of an H200's 4.4 where there is one row; torch's own products with 8
and 4 bits are slower than one with 16.
"""

from __future__ import annotations

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


def _num_stages(activations: torch.Tensor, num_stages: int) -> int:
    """How many tiles are fetched ahead: none in float32, with which only comparisons are made and more do not fit."""
    return num_stages if activations.element_size() == 2 else 1


def multiply(activations: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    """`activations` (rows, in) times `weight` (out, in), of any dtype; each output times its scale (out,).

    All contiguous; the result has the dtype of the activations.
    """
    (num_rows, size), num_outputs = activations.shape, weight.shape[0]
    out = torch.empty((num_rows, num_outputs), dtype=activations.dtype, device=activations.device)
    arguments = (out, activations, weight, weight if scales is None else scales)
    if num_rows == 1:
        multiply_row[(triton.cdiv(num_outputs, _ROWS_AT_ONCE),)](
            *arguments,
            num_outputs,
            size=size,
            rows_at_once=_ROWS_AT_ONCE,
            tile=_TILE,
            is_whole=size % _TILE == 0 and num_outputs % _ROWS_AT_ONCE == 0,
            has_scales=scales is not None,
            num_warps=4,
        )
    else:
        multiply_rows[(triton.cdiv(num_outputs, _COLUMNS_AT_ONCE),)](
            *arguments,
            num_rows,
            num_outputs,
            size=size,
            padded_rows=max(triton.next_power_of_2(num_rows), _MIN_ROWS),
            columns_at_once=_COLUMNS_AT_ONCE,
            depth=_DEPTH,
            has_scales=scales is not None,
            num_warps=4,
            num_stages=_num_stages(activations, 4),
        )
    return out


def multiply_halves(
    activations: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group: int
) -> torch.Tensor:
    """`activations` (rows, in) times a matrix of 4 bits as `HalvedInt4Matrix` has it, in groups of `group` inputs."""
    (num_rows, size), num_outputs = activations.shape, weight.shape[0]
    half = size // 2
    out = torch.empty((num_rows, num_outputs), dtype=activations.dtype, device=activations.device)
    arguments = (out, activations, weight, scales, zeros)
    if num_rows == 1:
        multiply_half_row[(triton.cdiv(num_outputs, _ROWS_AT_ONCE),)](
            *arguments,
            num_outputs,
            half=half,
            group=group,
            rows_at_once=_ROWS_AT_ONCE,
            tile=_TILE,
            is_whole=half % _TILE == 0 and num_outputs % _ROWS_AT_ONCE == 0,
            num_warps=4,
        )
    else:
        multiply_half_rows[(triton.cdiv(num_outputs, _COLUMNS_AT_ONCE),)](
            *arguments,
            num_rows,
            num_outputs,
            half=half,
            group=group,
            padded_rows=max(triton.next_power_of_2(num_rows), _MIN_ROWS),
            columns_at_once=_COLUMNS_AT_ONCE,
            depth=_DEPTH,
            num_warps=4,
            num_stages=_num_stages(activations, 3),
        )
    return out
