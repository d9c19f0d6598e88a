"""The interface of what a decoder computes between its matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Weights that queries and keys are normalised with, head by head (Qwen3); float32 (head_dim,), in pairs."""

    query: torch.Tensor
    key: torch.Tensor


class Ops(Protocol):
    """Steps of one decoder over one cache: activations to activations, in the dtype of the weights, all contiguous."""

    def add_norm(
        self, hidden: torch.Tensor, change: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add what a layer's half brings to `hidden` (tokens, hidden): the sum, and the sum RMS-normalised."""
        ...

    def store_heads(
        self, layer: int, qkv: torch.Tensor, norms: HeadNorms | None, rotation: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        """Take heads from `qkv` (tokens, (heads + 2 kv_heads) × head_dim), normalise and rotate them.

        Keys and values go to `slots` (tokens,) of the cache. Returns the queries, scaled: (tokens, heads, head_dim).
        `rotation` is complex64 (tokens, head_dim / 2).
        """
        ...

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """SwiGLU (arXiv 2002.05202): (tokens, 2 × intermediate), gates first, to (tokens, intermediate)."""
        ...
