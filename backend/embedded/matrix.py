"""Weight matrices times activations: dense, packed for CPUs, in 8 bits (a scale for each row) or in 4 (for each group).

Fewer bits are less to read, which is what a decoding step waits for. The products are torch's own kernels, the ones
that torchao's weight-only forms call, but for few rows on CUDA, where `products` reads faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import linear

from sluice.backend.embedded.device import has_kernels

MatrixMaker = Callable[[torch.Tensor, torch.Tensor | None], "Matrix"]
"""Makes a matrix of a weight (out, in) and a bias (out,) or None."""
_PACKED_FOR_ROWS = 16  # any number can be multiplied, few the fastest
_FEW_ROWS_ON_CPU = 12  # beyond it, unpacking the weights costs less than torch's 8-bit product
_FEW_ROWS_ON_CUDA = 64  # beyond it, arithmetic takes longer than reading


class Matrix(Protocol):
    """Maps activations (tokens, in) to (tokens, out), both in the dtype of the model."""

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """The product, bias added."""
        ...


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """As it is."""

    weight: torch.Tensor
    """(out, in)."""
    bias: torch.Tensor | None = None

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if len(activations) == 1 and has_kernels(activations.device):
            return _with_bias(_multiply(activations, self.weight), self.bias)
        return linear(activations, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """In bfloat16, laid out once as oneDNN wants it, which it would otherwise do for each product anew."""

    weight: torch.Tensor
    """In a layout of oneDNN's own."""
    bias: torch.Tensor | None = None

    @classmethod
    def is_served(cls, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether torch can pack there."""
        is_here = device.type == "cpu" and dtype is torch.bfloat16 and torch._C._has_mkldnn
        return is_here and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    @classmethod
    def pack(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> PackedMatrix:
        """Lay out `weight` (out, in)."""
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS), bias)

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(activations, self.weight, self.bias, "none", [], "")
        return out


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """Rounded to 8 bits, row by row, symmetric."""

    weight: torch.Tensor
    """(out, in), int8."""
    scales: torch.Tensor
    """(out,), in the dtype of the model."""
    bias: torch.Tensor | None = None

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Int8Matrix:
        """Round `weight` (out, in) of any float dtype."""
        scales = weight.float().abs().amax(dim=1).clamp_min(1e-12) / 127
        rounded = (weight.float() / scales.unsqueeze(1)).round().to(torch.int8)
        return cls(rounded, scales.to(weight.dtype), bias)

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        num_rows, device = len(activations), activations.device
        if device.type == "cpu" and num_rows <= _FEW_ROWS_ON_CPU:
            out = torch._weight_int8pack_mm(activations, self.weight, self.scales)
        elif has_kernels(device) and num_rows <= _FEW_ROWS_ON_CUDA:
            out = _multiply(activations, self.weight, self.scales)
        else:
            out = linear(activations, self.weight.to(activations.dtype)) * self.scales
        return _with_bias(out, self.bias)


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """Rounded to 4 bits in groups of neighbouring inputs, asymmetric."""

    GROUP = 32
    """Inputs that share a scale: 5 bits for each weight in all."""
    _COLUMN_TILES = 8  # how CUDA's kernel lays the weights out

    weight: torch.Tensor
    """Packed as the device's kernel wants it."""
    scales_and_zeros: torch.Tensor
    """(groups, out, 2), in the dtype of the model; the zero is the value of the middle code, 8."""
    bias: torch.Tensor | None = None

    @classmethod
    def fits(cls, weight: torch.Tensor) -> bool:
        """Whether the device's kernel takes a matrix of this shape."""
        rows, columns = weight.shape
        if weight.device.type == "cuda":
            return rows % 8 == 0 and columns % (16 * cls._COLUMN_TILES) == 0
        return rows % 16 == 0 and columns % cls.GROUP == 0

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Int4Matrix:
        """Round `weight` (out, in), of a shape that fits, in any float dtype."""
        rows, columns = weight.shape
        groups = weight.float().view(rows, -1, cls.GROUP)
        low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
        # Rounded first to what is stored, so that the codes fit the scales that they will be read with.
        scales = ((high - low) / 15).clamp_min(1e-6).to(weight.dtype).float()
        zeros = (low + 8 * scales).to(weight.dtype).float()
        codes = ((groups - zeros) / scales + 8).round().clamp(0, 15).to(torch.int32).view(rows, columns)
        if weight.device.type == "cuda":
            bytes_of_two = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
            packed = torch._convert_weight_to_int4pack(bytes_of_two, cls._COLUMN_TILES)
        else:
            packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
        pairs = torch.cat((scales, zeros), dim=-1).transpose(0, 1).contiguous().to(weight.dtype)
        return cls(packed, pairs, bias)

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        product = torch._weight_int4pack_mm if activations.is_cuda else torch._weight_int4pack_mm_for_cpu
        out = product(activations, self.weight, self.GROUP, self.scales_and_zeros)
        return _with_bias(out, self.bias)


def dense(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`. Packed where that is served."""
    form = PackedMatrix.pack if PackedMatrix.is_served(weight.device, weight.dtype) else DenseMatrix
    return form(weight, bias)


def eight_bits(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`."""
    return Int8Matrix.quantize(weight, bias)


def four_bits(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`. A matrix of a shape that 4 bits are not served for gets 8."""
    return (Int4Matrix if Int4Matrix.fits(weight) else Int8Matrix).quantize(weight, bias)


def _multiply(activations: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    from sluice.backend.embedded import products  # needs Triton

    return products.multiply(activations, weight, scales)


def _with_bias(out: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return out if bias is None else out + bias
