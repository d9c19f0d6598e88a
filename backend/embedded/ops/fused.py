"""For CUDA: one Triton kernel for each step, so that activations go through memory once, and few kernels are launched.

A cache that is packed in 8 bits is written by torch's own operations.
"""

from __future__ import annotations

import torch
import triton

from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.ops.base import HeadNorms
from sluice.backend.embedded.ops.fused_kernels import add_norm_rows, gate_rows, store_heads_rows
from sluice.backend.embedded.ops.plain import PlainOps

_GATE_TILE = 1024


class FusedOps:
    """See `Ops`; heads are computed in float32 and returned in the dtype that the cache is read in."""

    def __init__(self, config: ModelConfig, cache: KVCache) -> None:
        self._config = config
        self._cache = cache
        self._scale = config.head_dim**-0.5
        self._plain = PlainOps(config, cache)

    def add_norm(
        self, hidden: torch.Tensor, change: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Ops`."""
        num_tokens, size = hidden.shape
        total, normed = hidden if change is None else torch.empty_like(hidden), torch.empty_like(hidden)
        add_norm_rows[(num_tokens,)](
            total,
            normed,
            hidden,
            hidden if change is None else change,
            weight,
            self._config.rms_norm_eps,
            size=size,
            padded_size=triton.next_power_of_2(size),
            has_change=change is not None,
            num_warps=8,
        )
        return total, normed

    def store_heads(
        self, layer: int, qkv: torch.Tensor, norms: HeadNorms | None, rotation: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        """See `Ops`."""
        keys, values, config = self._cache.keys, self._cache.values, self._config
        if keys.scales is not None:
            return self._plain.store_heads(layer, qkv, norms, rotation, slots)
        num_tokens, head_dim = qkv.shape[0], config.head_dim
        queries = torch.empty((num_tokens, config.num_heads, head_dim), dtype=self._cache.dtype, device=qkv.device)
        store_heads_rows[(num_tokens, config.num_heads + 2 * config.num_kv_heads)](
            queries,
            keys.layers[layer],
            values.layers[layer],
            qkv,
            torch.view_as_real(rotation),
            slots,
            qkv if norms is None else norms.query,
            qkv if norms is None else norms.key,
            keys.data.shape[2],
            self._scale,
            config.rms_norm_eps,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=head_dim,
            padded_dim=triton.next_power_of_2(head_dim),
            has_norms=norms is not None,
            num_warps=1,
        )
        return queries

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        num_tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
        gated = torch.empty((num_tokens, size), dtype=gate_up.dtype, device=gate_up.device)
        gate_rows[(num_tokens, triton.cdiv(size, _GATE_TILE))](gated, gate_up, size=size, tile=_GATE_TILE)
        return gated
