"""Weight matrices: dense, or in 8 bits with one scale for each row, and their product with activations.

8 bits halve what a decoding step reads, which is what it waits for on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import linear

_FEW_ROWS = 12  # beyond it, unpacking the weights costs less than torch's 8-bit product


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
        return linear(activations, self.weight, self.bias)


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
        if activations.shape[0] <= _FEW_ROWS and activations.device.type == "cpu":
            out = torch._weight_int8pack_mm(activations, self.weight, self.scales)
        else:
            out = linear(activations, self.weight.to(activations.dtype)) * self.scales
        return out if self.bias is None else out + self.bias
