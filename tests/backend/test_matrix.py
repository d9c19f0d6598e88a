from __future__ import annotations

import pytest
import torch

from sluice.backend.embedded.matrix import DenseMatrix, Int8Matrix


@pytest.mark.parametrize("num_tokens", [1, 12, 13, 40])
@pytest.mark.parametrize("has_bias", [False, True])
def test_eight_bits_are_close(num_tokens: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator).bfloat16()
    bias = torch.randn(96, generator=generator).bfloat16() if has_bias else None
    activations = torch.randn(num_tokens, 64, generator=generator).bfloat16()
    expected = DenseMatrix(weight.float(), None if bias is None else bias.float())(activations.float())
    rounded = Int8Matrix.quantize(weight, bias)
    assert rounded.weight.dtype is torch.int8
    error = (rounded(activations).float() - expected).norm() / expected.norm()
    assert float(error) < 0.015


def test_a_row_of_zeros_stays_zero() -> None:
    out = Int8Matrix.quantize(torch.zeros(8, 64).bfloat16())(torch.ones(2, 64).bfloat16())
    assert torch.equal(out, torch.zeros(2, 8).bfloat16())
