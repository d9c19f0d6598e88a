"""Triton kernels of `few_rows`: computed in float32, stored in the dtype of the activations.

Run on CPUs too, for tests, under Triton's interpreter (`TRITON_INTERPRET=1`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def multiply_row(
    out_ptr,
    activations_ptr,
    weight_ptr,
    scales_ptr,
    num_outputs,
    size: tl.constexpr,
    rows_at_once: tl.constexpr,
    tile: tl.constexpr,
    is_whole: tl.constexpr,
    has_scales: tl.constexpr,
):
    """One program: a few outputs; reads their rows of the matrix from end to end.

    `is_whole`: tiles and programs divide the matrix, so that nothing has to be masked.
    """
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    column = tl.arange(0, tile)
    is_row = row < num_outputs
    offsets = row[:, None].to(tl.int64) * size + column[None, :]
    total = tl.zeros((rows_at_once, tile), tl.float32)
    for start in range(0, size, tile):
        if is_whole:
            activations = tl.load(activations_ptr + start + column)
            weights = tl.load(weight_ptr + offsets + start, eviction_policy="evict_first")
        else:
            is_column = start + column < size
            activations = tl.load(activations_ptr + start + column, mask=is_column, other=0.0)
            is_here = is_row[:, None] & is_column[None, :]
            weights = tl.load(weight_ptr + offsets + start, mask=is_here, other=0.0, eviction_policy="evict_first")
        total += weights.to(tl.float32) * activations.to(tl.float32)[None, :]
    outputs = tl.sum(total, axis=1)
    if has_scales:
        outputs *= tl.load(scales_ptr + row, mask=is_row, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, outputs, mask=is_row)


@triton.jit
def multiply_rows(
    out_ptr,
    activations_ptr,
    weight_ptr,
    scales_ptr,
    num_rows,
    num_outputs,
    size: tl.constexpr,
    padded_rows: tl.constexpr,
    columns_at_once: tl.constexpr,
    depth: tl.constexpr,
    has_scales: tl.constexpr,
):
    """One program: a few outputs of all rows."""
    row = tl.arange(0, padded_rows)
    output = tl.program_id(0) * columns_at_once + tl.arange(0, columns_at_once)
    inner = tl.arange(0, depth)
    is_row, is_output = row < num_rows, output < num_outputs
    total = tl.zeros((padded_rows, columns_at_once), tl.float32)
    for start in range(0, size, depth):
        is_inner = start + inner < size
        activations = tl.load(
            activations_ptr + row[:, None] * size + start + inner[None, :],
            mask=is_row[:, None] & is_inner[None, :],
            other=0.0,
        )
        weights = tl.load(
            weight_ptr + output[:, None].to(tl.int64) * size + start + inner[None, :],
            mask=is_output[:, None] & is_inner[None, :],
            other=0.0,
        )
        total += tl.dot(activations, tl.trans(weights.to(activations.dtype)), input_precision="ieee")
    if has_scales:
        total *= tl.load(scales_ptr + output, mask=is_output, other=0.0).to(tl.float32)[None, :]
    offsets = row[:, None] * num_outputs + output[None, :]
    tl.store(out_ptr + offsets, total, mask=is_row[:, None] & is_output[None, :])


@triton.jit
def multiply_half_row(
    out_ptr,
    activations_ptr,
    weight_ptr,
    scales_ptr,
    zeros_ptr,
    num_outputs,
    half: tl.constexpr,
    group: tl.constexpr,
    rows_at_once: tl.constexpr,
    tile: tl.constexpr,
    is_whole: tl.constexpr,
):
    """One program: a few outputs of one row; each byte has the weights of two inputs, half a row apart.

    A group's codes are summed before they are scaled: its scale and zero are read once, not for each input.
    """
    num_groups: tl.constexpr = half // group
    groups_at_once: tl.constexpr = tile // group
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    place, inner = tl.arange(0, groups_at_once), tl.arange(0, group)
    is_row = row < num_outputs
    columns = place[:, None] * group + inner[None, :]
    total = tl.zeros((rows_at_once, groups_at_once), tl.float32)
    for start in range(0, half, tile):
        at_group = start // group + place
        is_here = is_row[:, None] & (at_group < num_groups)[None, :]
        is_column = start + columns < half
        offsets = row[:, None, None].to(tl.int64) * half + start + columns[None, :, :]
        if is_whole:
            codes = tl.load(weight_ptr + offsets, eviction_policy="evict_first")
        else:
            codes = tl.load(weight_ptr + offsets, mask=is_here[:, :, None], other=0, eviction_policy="evict_first")
        for side in tl.static_range(2):
            activations = tl.load(activations_ptr + side * half + start + columns, mask=is_column, other=0.0).to(
                tl.float32
            )
            groups = row[:, None] * (2 * num_groups) + side * num_groups + at_group[None, :]
            scales = tl.load(scales_ptr + groups, mask=is_here, other=0.0).to(tl.float32)
            zeros = tl.load(zeros_ptr + groups, mask=is_here, other=0.0).to(tl.float32)
            code = ((codes >> (4 * side)) & 15).to(tl.float32)
            products = tl.sum(code * activations[None, :, :], axis=2)
            total += scales * products + (zeros - 8.0 * scales) * tl.sum(activations, axis=1)[None, :]
    tl.store(out_ptr + row, tl.sum(total, axis=1), mask=is_row)


@triton.jit
def multiply_half_rows(
    out_ptr,
    activations_ptr,
    weight_ptr,
    scales_ptr,
    zeros_ptr,
    num_rows,
    num_outputs,
    half: tl.constexpr,
    group: tl.constexpr,
    padded_rows: tl.constexpr,
    columns_at_once: tl.constexpr,
    depth: tl.constexpr,
):
    """One program: a few outputs of all rows; bytes as in `multiply_half_row`."""
    num_groups: tl.constexpr = half // group
    groups_at_once: tl.constexpr = depth // group
    row = tl.arange(0, padded_rows)
    output = tl.program_id(0) * columns_at_once + tl.arange(0, columns_at_once)
    place, inner, column = tl.arange(0, groups_at_once), tl.arange(0, group), tl.arange(0, depth)
    is_row, is_output = row < num_rows, output < num_outputs
    columns = place[:, None] * group + inner[None, :]
    total = tl.zeros((padded_rows, columns_at_once), tl.float32)
    for start in range(0, half, depth):
        at_group = start // group + place
        is_here = is_output[:, None] & (at_group < num_groups)[None, :]
        codes = tl.load(
            weight_ptr + output[:, None, None].to(tl.int64) * half + start + columns[None, :, :],
            mask=is_here[:, :, None],
            other=0,
        )
        for side in tl.static_range(2):
            activations = tl.load(
                activations_ptr + row[:, None] * (2 * half) + side * half + start + column[None, :],
                mask=is_row[:, None] & (start + column < half)[None, :],
                other=0.0,
            )
            groups = output[:, None] * (2 * num_groups) + side * num_groups + at_group[None, :]
            scales = tl.load(scales_ptr + groups, mask=is_here, other=0.0).to(tl.float32)
            zeros = tl.load(zeros_ptr + groups, mask=is_here, other=0.0).to(tl.float32)
            code = ((codes >> (4 * side)) & 15).to(tl.float32)
            weights = (code - 8.0) * scales[:, :, None] + zeros[:, :, None]
            weights = tl.reshape(weights.to(activations.dtype), (columns_at_once, depth))
            total += tl.dot(activations, tl.trans(weights), input_precision="ieee")
    offsets = row[:, None] * num_outputs + output[None, :]
    tl.store(out_ptr + offsets, total, mask=is_row[:, None] & is_output[None, :])
