"""The decoder: token ids in, logits out, for all families that are served.

Matrices that read the same input are fused (q, k and v; gate and up). What lies between the matrices is done by `Ops`,
attention by an `AttentionPass`, which knows whose tokens are whose: the decoder knows no sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding

from sluice.backend.embedded.attention.base import AttentionPass
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.matrix import Matrix
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.ops import HeadNorms, Ops, make_ops
from sluice.backend.embedded.rope import rotations


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of one layer."""

    attention_norm: torch.Tensor
    qkv: Matrix
    """((heads + 2 kv_heads) × head_dim, hidden); rows of q and k in pairs."""
    head_norms: HeadNorms | None
    output: Matrix
    mlp_norm: torch.Tensor
    gate_up: Matrix
    """(2 × intermediate, hidden)."""
    down: Matrix


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a decoder."""

    embedding: torch.Tensor
    layers: Sequence[LayerWeights]
    norm: torch.Tensor
    head: Matrix
    """Of the embedding itself where they are tied."""


class Decoder:
    """A Llama-like decoder over a paged cache."""

    def __init__(self, config: ModelConfig, weights: Weights, cache: KVCache, ops: Ops | None = None) -> None:
        """`ops` None: the fastest for the cache."""
        self.config = config
        self._weights = weights
        self._ops = ops or make_ops(config, cache)
        self._rotations = rotations(config, weights.embedding.device)

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        attend: AttentionPass,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute tokens, all int64 (tokens,), store their keys and values at `slots`.

        Returns float32 logits (wanted, vocabulary) of the tokens at the indexes `wanted`; None wants all.
        """
        weights, ops = self._weights, self._ops
        rotation = self._rotations[positions]
        hidden, change = embedding(token_ids, weights.embedding), None
        for index, layer in enumerate(weights.layers):
            hidden, normed = ops.add_norm(hidden, change, layer.attention_norm)
            queries = ops.store_heads(index, layer.qkv(normed), layer.head_norms, rotation, slots)
            attended = attend(index, queries).flatten(1).to(hidden.dtype)
            hidden, normed = ops.add_norm(hidden, layer.output(attended), layer.mlp_norm)
            change = layer.down(ops.gate(layer.gate_up(normed)))
        if wanted is not None:
            hidden, change = hidden[wanted], None if change is None else change[wanted]
        _, normed = ops.add_norm(hidden, change, weights.norm)
        return weights.head(normed).float()
