"""Rotary position embedding (arXiv 2104.09864) as one complex multiplication.

Safetensors keeps the two halves of each rotated pair half a head apart; `pair_up` moves the rows of the query and key
weights so that they lie side by side, which leaves all dot products as they were.
"""

from __future__ import annotations

import math

import torch

from sluice.backend.embedded.model_config import ModelConfig, RopeScaling


def pair_up(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder the rows (heads × head_dim, …) within each head from halves to pairs."""
    rows = weight.shape[0]
    halves = weight.reshape(rows // head_dim, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def rotations(config: ModelConfig, device: torch.device) -> torch.Tensor:
    """Unit complex numbers for each position and pair: (max_model_len, head_dim / 2), complex64."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is not None:
        frequencies = _scaled(frequencies, config.rope_scaling)
    angles = torch.outer(torch.arange(config.max_model_len, dtype=torch.float32), frequencies)
    return torch.polar(torch.ones_like(angles), angles).to(device)


def rotate(heads: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate float32 `heads` (tokens, heads, head_dim) by `rotation` (tokens, head_dim / 2)."""
    pairs = torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation.unsqueeze(1)).flatten(2)


def _scaled(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Linear: all frequencies divided. Llama 3: low ones divided, high ones kept, smooth between."""
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    wavelengths = 2 * math.pi / frequencies
    smooth = (scaling.original_max_len / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = smooth.clamp(0, 1)
    return frequencies * (smooth + (1 - smooth) / scaling.factor)
