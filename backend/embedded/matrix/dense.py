"""Matrices in a float dtype: as they are, or laid out once for CPUs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from sluice.backend.embedded.device import has_kernels
from sluice.backend.embedded.matrix.base import with_bias

_PACKED_FOR_ROWS = 16  # any number can be multiplied, few the fastest


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """As it is."""

    weight: torch.Tensor
    """(out, in)."""
    bias: torch.Tensor | None = None

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if len(activations) == 1 and has_kernels(activations.device):
            from sluice.backend.embedded.matrix.few_rows import multiply

            return with_bias(multiply(activations, self.weight), self.bias)
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
