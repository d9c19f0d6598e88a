"""The interface of weight matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch


class Matrix(Protocol):
    """Maps activations (tokens, in), contiguous, to (tokens, out), both in the dtype of the model."""

    def __call__(self, activations: torch.Tensor) -> torch.Tensor:
        """The product, bias added."""
        ...


MatrixMaker = Callable[[torch.Tensor, torch.Tensor | None], Matrix]
"""Makes a matrix of a weight (out, in) and a bias (out,) or None."""


def with_bias(out: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`out` (tokens, out) plus `bias` (out,), if there is one."""
    return out if bias is None else out + bias
