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
    """Complex numbers for each position and pair: (max_model_len, head_dim / 2), complex64.

    Their length is 1, or what a scaling multiplies queries and keys by.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies, length = 1.0 / config.rope_theta**exponents, 1.0
    match config.rope_scaling:
        case RopeScaling(kind="linear", factor=factor):
            frequencies = frequencies / factor
        case RopeScaling(kind="llama3") as scaling:
            frequencies = _llama3(frequencies, scaling)
        case RopeScaling(kind="yarn") as scaling:
            frequencies, length = _yarn(frequencies, scaling, config.rope_theta), scaling.attention_factor
    angles = torch.outer(torch.arange(config.max_model_len, dtype=torch.float32), frequencies)
    return torch.polar(torch.full_like(angles, length), angles).to(device)


def rotate(heads: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate float32 `heads` (tokens, heads, head_dim) by `rotation` (tokens, head_dim / 2)."""
    pairs = torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation.unsqueeze(1)).flatten(2)


def _llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Low frequencies divided, high ones kept, smooth between."""
    wavelengths = 2 * math.pi / frequencies
    smooth = (scaling.original_max_len / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = smooth.clamp(0, 1)
    return frequencies * (smooth + (1 - smooth) / scaling.factor)


def _yarn(frequencies: torch.Tensor, scaling: RopeScaling, theta: float) -> torch.Tensor:
    """The same idea by dimension (arXiv 2309.00071): the first kept, the last divided, a ramp between."""
    num_pairs = len(frequencies)

    def pair_that_turns(num_turns: float) -> float:
        """Which pair turns so often within the trained length."""
        return num_pairs * math.log(scaling.original_max_len / (num_turns * 2 * math.pi)) / math.log(theta)

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.is_truncated:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * num_pairs - 1)
    ramp = (torch.arange(num_pairs, dtype=torch.float32) - low) / max(high - low, 1e-3)
    divided = ramp.clamp(0, 1)
    return frequencies * (1 - divided + divided / scaling.factor)
