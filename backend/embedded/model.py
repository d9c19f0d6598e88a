"""The decoder: token ids in, logits out, for all families that are served.

Matrices that read the same input are fused (q, k and v; gate and up). Attention, rotation and logits are in float32,
the matrices in the dtype of the weights. Knows no sequences: an `AttentionPass` knows whose tokens are whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, rms_norm, silu

from sluice.backend.embedded.attention.base import AttentionPass
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.matrix import Matrix
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.rope import rotate, rotations


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of one layer."""

    attention_norm: torch.Tensor
    qkv: Matrix
    """((heads + 2 kv_heads) × head_dim, hidden); rows of q and k in pairs."""
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
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

    def __init__(self, config: ModelConfig, weights: Weights, cache: KVCache) -> None:
        self.config = config
        self._weights = weights
        self._cache = cache
        self._rotations = rotations(config, weights.embedding.device)
        self._scale = config.head_dim**-0.5

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
        config, weights = self.config, self._weights
        num_heads, num_kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        sizes = [(num_heads + num_kv_heads) * head_dim, num_kv_heads * head_dim]
        num_tokens = token_ids.shape[0]
        norm_shape, eps = (config.hidden_size,), config.rms_norm_eps
        rotation = self._rotations[positions]
        hidden = embedding(token_ids, weights.embedding)
        for index, layer in enumerate(weights.layers):
            normed = rms_norm(hidden, norm_shape, layer.attention_norm, eps)
            qk, v = torch.split(layer.qkv(normed).float(), sizes, dim=1)
            qk = qk.reshape(num_tokens, -1, head_dim)
            if layer.q_norm is not None and layer.k_norm is not None:
                qk = torch.cat(
                    (
                        rms_norm(qk[:, :num_heads], (head_dim,), layer.q_norm, eps),
                        rms_norm(qk[:, num_heads:], (head_dim,), layer.k_norm, eps),
                    ),
                    dim=1,
                )
            qk = rotate(qk, rotation)
            self._cache.write(index, slots, qk[:, num_heads:], v.view(num_tokens, -1, head_dim))
            attended = attend(index, qk[:, :num_heads] * self._scale)
            hidden = hidden + layer.output(attended.flatten(1).to(hidden.dtype))
            normed = rms_norm(hidden, norm_shape, layer.mlp_norm, eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=1)
            hidden = hidden + layer.down(silu(gate) * up)
        hidden = rms_norm(hidden if wanted is None else hidden[wanted], norm_shape, weights.norm, eps)
        return weights.head(hidden).float()
