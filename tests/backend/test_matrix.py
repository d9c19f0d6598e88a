from __future__ import annotations

import pytest
import torch

from sluice.backend.embedded.matrix import (
    DenseMatrix,
    HalvedInt4Matrix,
    Int4Matrix,
    Int8Matrix,
    Matrix,
    PackedMatrix,
    dense,
    four_bits,
)


@pytest.mark.parametrize("num_tokens", [1, 16, 40])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_packed_matrix_multiplies_as_a_dense_one(num_tokens: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, activations = (torch.randn(n, 64, generator=generator).bfloat16() for n in (96, num_tokens))
    bias = torch.randn(96, generator=generator).bfloat16() if has_bias else None
    expected = DenseMatrix(weight.float(), None if bias is None else bias.float())(activations.float())
    packed = dense(weight, bias)
    # Where the processor has no instructions for bfloat16 there is nothing to pack for: the plain product serves.
    is_served = PackedMatrix.is_served(torch.device("cpu"), torch.bfloat16)
    assert isinstance(packed, PackedMatrix if is_served else DenseMatrix)
    torch.testing.assert_close(packed(activations).float(), expected, atol=0.1, rtol=0.01)


def test_only_bfloat16_is_packed() -> None:
    assert isinstance(dense(torch.ones(8, 64)), DenseMatrix)


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


@pytest.mark.parametrize("num_tokens", [1, 40])
@pytest.mark.parametrize("has_bias", [False, True])
def test_four_bits_are_near(num_tokens: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator).bfloat16()
    bias = torch.randn(96, generator=generator).bfloat16() if has_bias else None
    activations = torch.randn(num_tokens, 64, generator=generator).bfloat16()
    expected = DenseMatrix(weight.float(), None if bias is None else bias.float())(activations.float())
    rounded: list[Matrix] = [four_bits(weight, bias), HalvedInt4Matrix.quantize(weight, bias)]
    assert isinstance(rounded[0], Int4Matrix)
    for matrix in rounded:
        error = (matrix(activations).float() - expected).norm() / expected.norm()
        assert float(error) < 0.13


def test_four_bits_hold_a_lone_great_weight_and_a_constant_row() -> None:
    weight = torch.zeros(16, 64).bfloat16()
    weight[0, 5], weight[1] = 30.0, 0.5
    for form in (four_bits, HalvedInt4Matrix.quantize):
        check_lone_weight(form(weight)(torch.eye(64).bfloat16()))


def check_lone_weight(out: torch.Tensor) -> None:
    assert float(out[5, 0]) == pytest.approx(30.0, rel=0.01)
    assert out[:, 1].float().numpy() == pytest.approx(0.5, rel=0.01)
    assert float(out[:, 2:].abs().max()) < 1e-3


def test_a_shape_that_four_bits_do_not_serve_gets_eight() -> None:
    assert isinstance(four_bits(torch.ones(17, 64).bfloat16()), Int8Matrix)
