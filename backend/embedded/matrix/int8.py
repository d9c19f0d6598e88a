"""Matrices in 8 bits, with a scale for each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from sluice.backend.embedded.device import has_kernels
from sluice.backend.embedded.matrix.base import with_bias

_FEW_ROWS_ON_CPU = 12  # beyond it, unpacking the weights costs less than torch's 8-bit product
_FEW_ROWS_ON_CUDA = 64  # beyond it, arithmetic takes longer than reading


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """Rounded row by row, symmetric. torch's own product on CUDA takes longer than one in 16 bits."""

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
            from sluice.backend.embedded.matrix.few_rows import multiply

            out = multiply(activations, self.weight, self.scales)
        else:
            out = linear(activations, self.weight.to(activations.dtype)) * self.scales
        return with_bias(out, self.bias)
