"""A model's head alone, in numpy: for bases whose last states come from elsewhere. Needs safetensors, and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.neural.card import ADAPTER
from sluice.compressor.scoring.neural.types import Floats

_EPS = 1e-5
"""Of torch's LayerNorm."""


@dataclass(frozen=True, slots=True)
class Head:
    """Layer norm (Ba et al., 2016) and one matrix."""

    norm: Floats
    """(hidden,)"""
    norm_bias: Floats
    matrix: Floats
    """(heads, hidden)"""
    bias: Floats

    def logits(self, states: npt.NDArray[np.floating]) -> Floats:
        """(lines, hidden) → (lines, heads)."""
        wide = states.astype(np.float32)
        centred = wide - wide.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPS)
        found: Floats = (scaled * self.norm + self.norm_bias) @ self.matrix.T + self.bias
        return found


def read_head(folder: Path) -> Head:
    """Read a model's head.

    Raises:
        ModelFileError: the folder has none.
    """
    file = folder / ADAPTER
    try:
        tensors = load_file(file)
        names = ("norm.weight", "norm.bias", "head.weight", "head.bias")
        return Head(*(tensors[name].astype(np.float32) for name in names))
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelFileError(str(file), str(error)) from error
