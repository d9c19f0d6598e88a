"""Matrices in 4 bits, with a scale and a zero for each group of neighbouring inputs: 5 bits for each weight in all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from sluice.backend.embedded.device import has_kernels
from sluice.backend.embedded.matrix.base import with_bias

GROUP = 32
"""Inputs that share a scale."""
_FEW_ROWS = 64  # beyond it, arithmetic takes longer than reading


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """For CPUs: packed as torch's kernel wants it."""

    weight: torch.Tensor
    scales_and_zeros: torch.Tensor
    """(groups, out, 2), in the dtype of the model; the zero is the value of the middle code, 8."""
    bias: torch.Tensor | None = None

    @classmethod
    def fits(cls, weight: torch.Tensor) -> bool:
        """Whether the kernel takes a matrix of this shape."""
        return weight.shape[0] % 16 == 0 and weight.shape[1] % GROUP == 0

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Int4Matrix:
        """Round `weight` (out, in), of a shape that fits, in any float dtype."""
        codes, scales, zeros = round_to_codes(weight)
        packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
        return cls(packed, torch.stack((scales, zeros), dim=-1).transpose(0, 1).contiguous(), bias)

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        out = torch._weight_int4pack_mm_for_cpu(activations, self.weight, GROUP, self.scales_and_zeros)
        return with_bias(out, self.bias)


@dataclass(frozen=True, slots=True)
class HalvedInt4Matrix:
    """For CUDA: each byte has a code of the first half of the inputs (its low bits), and one of the second.

    torch's kernel, which tensor cores want packed otherwise, takes ten times as long as one in 16 bits for many rows.
    """

    weight: torch.Tensor
    """(out, in / 2), uint8."""
    scales: torch.Tensor
    """(out, groups), in the dtype of the model."""
    zeros: torch.Tensor
    """(out, groups): the values of the middle code, 8."""
    bias: torch.Tensor | None = None

    @classmethod
    def fits(cls, weight: torch.Tensor) -> bool:
        """Whether its inputs are two halves of whole groups."""
        return weight.shape[1] % (2 * GROUP) == 0

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> HalvedInt4Matrix:
        """Round `weight` (out, in), of a shape that fits, in any float dtype."""
        codes, scales, zeros = round_to_codes(weight)
        low, high = codes.chunk(2, dim=1)
        return cls((low | high << 4).to(torch.uint8), scales, zeros, bias)

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if len(activations) <= _FEW_ROWS and has_kernels(activations.device):
            from sluice.backend.embedded.matrix.few_rows import multiply_halves

            out = multiply_halves(activations, self.weight, self.scales, self.zeros, GROUP)
        else:
            out = linear(activations, self.unpacked())
        return with_bias(out, self.bias)

    def unpacked(self) -> torch.Tensor:
        """The weights (out, in) in the dtype of the model."""
        codes = torch.cat((self.weight & 15, self.weight >> 4), dim=1)
        groups = codes.view(len(codes), -1, GROUP).to(self.scales.dtype) - 8
        return (groups * self.scales.unsqueeze(-1) + self.zeros.unsqueeze(-1)).view_as(codes)


def round_to_codes(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes from 0 to 15 (out, in), int32, and scales and zeros (out, groups): `(code - 8) × scale + zero`."""
    groups = weight.float().view(len(weight), -1, GROUP)
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    # Rounded first to what is stored, so that the codes fit the scales that they will be read with.
    scales = ((high - low) / 15).clamp_min(1e-6).to(weight.dtype)
    zeros = (low + 8 * scales.float()).to(weight.dtype)
    codes = ((groups - zeros.float()) / scales.float() + 8).round().clamp(0, 15)
    return codes.to(torch.int32).view_as(weight), scales.squeeze(-1), zeros.squeeze(-1)
