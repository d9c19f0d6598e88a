"""Weight matrices times activations, in the bits that they are kept in: one interface, one module for each way.

Fewer bits are less to read, which is what a decoding step waits for. The products are torch's own kernels, the ones
that torchao's weight-only forms call, but for few rows on CUDA, where `few_rows` reads faster.
"""

from __future__ import annotations

import torch

from sluice.backend.embedded.matrix.base import Matrix, MatrixMaker
from sluice.backend.embedded.matrix.dense import DenseMatrix, PackedMatrix
from sluice.backend.embedded.matrix.int4 import HalvedInt4Matrix, Int4Matrix
from sluice.backend.embedded.matrix.int8 import Int8Matrix

__all__ = [
    "DenseMatrix",
    "HalvedInt4Matrix",
    "Int4Matrix",
    "Int8Matrix",
    "Matrix",
    "MatrixMaker",
    "PackedMatrix",
    "dense",
    "eight_bits",
    "four_bits",
]


def dense(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`. Packed where that is served."""
    form = PackedMatrix.pack if PackedMatrix.is_served(weight.device, weight.dtype) else DenseMatrix
    return form(weight, bias)


def eight_bits(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`."""
    return Int8Matrix.quantize(weight, bias)


def four_bits(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
    """See `MatrixMaker`. A matrix of a shape that 4 bits are not served for gets 8."""
    form = Int4Matrix if weight.device.type == "cpu" else HalvedInt4Matrix
    return (form if form.fits(weight) else Int8Matrix).quantize(weight, bias)
