"""The memory for keys and values: one tensor each, in blocks.

Head by head, as that is how attention reads them: neighbouring blocks of a head are one view. Knows no sequences.
"""

from __future__ import annotations

import torch

from sluice.backend.embedded.model_config import ModelConfig


class KVCache:
    """Keys and values of all layers: each (layers, kv_heads, blocks × block_size, head_dim)."""

    def __init__(
        self, config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_layers, config.num_kv_heads, num_blocks * block_size, config.head_dim)
        # Not cleared: the system gives memory only to the blocks that are used.
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.num_blocks = num_blocks
        self.block_size = block_size

    def write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store (tokens, kv_heads, head_dim) at `slots` (tokens,), int64."""
        self.keys[layer].index_copy_(1, slots, keys.transpose(0, 1).to(self.keys.dtype))
        self.values[layer].index_copy_(1, slots, values.transpose(0, 1).to(self.values.dtype))

    def copy(self, copies: list[tuple[int, int]]) -> None:
        """Copy whole blocks, in order."""
        size = self.block_size
        for source, target in copies:
            for tensor in (self.keys, self.values):
                tensor[:, :, target * size : (target + 1) * size] = tensor[:, :, source * size : (source + 1) * size]


def num_bytes_per_block(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Memory of one block over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * block_size * config.head_dim * dtype.itemsize
