"""torch's own operations, one after another: for CPUs, and what the fused ones are tested against."""

from __future__ import annotations

import torch
from torch.nn.functional import rms_norm, silu

from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.ops.base import HeadNorms
from sluice.backend.embedded.rope import rotate


class PlainOps:
    """See `Ops`; heads are computed and returned in float32."""

    def __init__(self, config: ModelConfig, cache: KVCache) -> None:
        self._config = config
        self._cache = cache
        self._scale = config.head_dim**-0.5

    def add_norm(
        self, hidden: torch.Tensor, change: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Ops`."""
        if change is not None:
            hidden = hidden + change
        return hidden, rms_norm(hidden, weight.shape, weight, self._config.rms_norm_eps)

    def store_heads(
        self, layer: int, qkv: torch.Tensor, norms: HeadNorms | None, rotation: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        """See `Ops`."""
        config, eps = self._config, self._config.rms_norm_eps
        heads = qkv.float().view(qkv.shape[0], -1, config.head_dim)
        counts = [config.num_heads, config.num_kv_heads]
        q_and_k, values = torch.split(heads, [sum(counts), config.num_kv_heads], dim=1)
        if norms is not None:
            queries, keys = torch.split(q_and_k, counts, dim=1)
            queries = rms_norm(queries, norms.query.shape, norms.query, eps)
            q_and_k = torch.cat((queries, rms_norm(keys, norms.key.shape, norms.key, eps)), dim=1)
        queries, keys = torch.split(rotate(q_and_k, rotation), counts, dim=1)
        self._cache.write(layer, slots, keys, values)
        scaled: torch.Tensor = queries * self._scale
        return scaled

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        gate, up = gate_up.chunk(2, dim=1)
        return silu(gate) * up
