from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import linear

from tests.effort import examples

pytest.importorskip("triton")

from sluice.backend.embedded.matrix.few_rows import multiply, multiply_halves
from sluice.backend.embedded.matrix.int4 import GROUP, HalvedInt4Matrix

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Under Triton's interpreter where there is no GPU."""


@examples(12)
@given(
    num_rows=st.sampled_from([1, 1, 2, 17, 64]),
    size=st.sampled_from([64, 576, 2048]),
    num_outputs=st.sampled_from([1, 7, 32, 50]),
    has_scales=st.booleans(),
)
def test_products_are_those_of_torch(num_rows: int, size: int, num_outputs: int, has_scales: bool) -> None:
    generator = torch.Generator().manual_seed(size)
    activations = torch.randn(num_rows, size, generator=generator).to(DEVICE)
    weight = torch.randint(-127, 128, (num_outputs, size), dtype=torch.int8, generator=generator).to(DEVICE)
    scales = torch.rand(num_outputs, generator=generator).to(DEVICE) / 64 if has_scales else None
    expected = linear(activations, weight.float()) * (1 if scales is None else scales)
    actual = multiply(activations, weight if has_scales else weight.float(), scales)
    torch.testing.assert_close(actual, expected, atol=1e-2, rtol=1e-4)


@examples(8)
@given(
    num_rows=st.sampled_from([1, 2, 17, 64]),
    size=st.sampled_from([64, 576, 2048]),
    num_outputs=st.sampled_from([1, 7, 32, 50]),
)
def test_products_with_four_bits_are_those_of_the_unpacked_matrix(num_rows: int, size: int, num_outputs: int) -> None:
    generator = torch.Generator().manual_seed(size)
    activations, weight = (torch.randn(n, size, generator=generator).to(DEVICE) for n in (num_rows, num_outputs))
    matrix = HalvedInt4Matrix.quantize(weight)
    expected = linear(activations, matrix.unpacked())
    actual = multiply_halves(activations, matrix.weight, matrix.scales, matrix.zeros, GROUP)
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)
