"""The memory for keys and values: one tensor each, in blocks, in the dtype of the model or packed in 8 bits.

Head by head, as that is how attention reads them: neighbouring blocks of a head are one view. Packed in 8 bits, each
token of each head has a scale of its own, so that writing one never changes another. Knows no sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sluice.backend.embedded.model_config import ModelConfig

PACKED = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""Dtypes that need scales, with the greatest value that they hold."""
_SCALE_DTYPE = torch.float32


@dataclass(frozen=True, slots=True)
class PagedTensor:
    """Keys, or values, of all layers."""

    data: torch.Tensor
    """(layers, kv_heads, slots, head_dim)."""
    scales: torch.Tensor | None
    """(layers, kv_heads, slots), float32, where `data` is packed."""
    dtype: torch.dtype
    """What is read."""
    layers: Sequence[torch.Tensor]
    """Views of `data`, one for each layer: made once, as making one takes as long as attending to a short context."""

    @classmethod
    def empty(
        cls, shape: tuple[int, int, int, int], stored: torch.dtype, read: torch.dtype, device: torch.device
    ) -> PagedTensor:
        """Not cleared: the system gives memory only to the blocks that are used."""
        scales = torch.empty(shape[:3], dtype=_SCALE_DTYPE, device=device) if stored in PACKED else None
        data = torch.empty(shape, dtype=stored, device=device)
        return cls(data, scales, read, data.unbind())

    def write(self, layer: int, slots: torch.Tensor, heads: torch.Tensor) -> None:
        """Store (tokens, kv_heads, head_dim) at `slots` (tokens,), int64."""
        heads = heads.transpose(0, 1)
        if self.scales is not None:
            scales = heads.abs().amax(dim=-1).float().clamp_min(1e-12) / PACKED[self.data.dtype]
            self.scales[layer].index_copy_(1, slots, scales)
            heads = heads.float() / scales.unsqueeze(-1)
            if self.data.dtype is torch.int8:
                heads = heads.round()
        _bits(self.layers[layer]).index_copy_(1, slots, _bits(heads.to(self.data.dtype)))

    def read(self, layer: int, start: int, end: int) -> torch.Tensor:
        """Slots [start, end) of all heads, (kv_heads, slots, head_dim): a view where nothing has to be unpacked."""
        data = self.layers[layer].narrow(1, start, end - start)
        return self._unpacked(data, None if self.scales is None else self.scales[layer, :, start:end])

    def gather(self, layer: int, slots: torch.Tensor) -> torch.Tensor:
        """These slots of all heads, (kv_heads, slots, head_dim)."""
        data = _bits(self.layers[layer]).index_select(1, slots).view(self.data.dtype)
        scales = None if self.scales is None else self.scales[layer].index_select(1, slots)
        return self._unpacked(data, scales)

    def copy(self, source: slice, target: slice) -> None:
        """Copy slots in all layers."""
        for tensor in (self.data, self.scales):
            if tensor is not None:
                tensor[:, :, target] = tensor[:, :, source]

    def _unpacked(self, data: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
        if scales is not None:
            data = data.float() * scales.unsqueeze(-1)
        return data if data.dtype is self.dtype else data.to(self.dtype)


class KVCache:
    """Keys and values of `num_blocks` blocks of `block_size` slots, and one block more that nobody owns.

    That one takes what stands in for missing sequences, where a batch is filled up to a fixed size.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int,
        device: torch.device,
        *,
        stored: torch.dtype = torch.float32,
        read: torch.dtype = torch.float32,
    ) -> None:
        """`stored` is the dtype in memory, `read` the one that attention computes in."""
        shape = (config.num_layers, config.num_kv_heads, (num_blocks + 1) * block_size, config.head_dim)
        self.keys = PagedTensor.empty(shape, stored, read, device)
        self.values = PagedTensor.empty(shape, stored, read, device)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = device
        self.dtype = read

    def write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store (tokens, kv_heads, head_dim) at `slots` (tokens,), int64."""
        self.keys.write(layer, slots, keys)
        self.values.write(layer, slots, values)

    def copy(self, copies: list[tuple[int, int]]) -> None:
        """Copy whole blocks, in order."""
        size = self.block_size
        for source, target in copies:
            for tensor in (self.keys, self.values):
                tensor.copy(slice(source * size, (source + 1) * size), slice(target * size, (target + 1) * size))


def num_bytes_per_block(config: ModelConfig, block_size: int, stored: torch.dtype) -> int:
    """Memory of one block over all layers, scales included."""
    num_bytes_per_head = config.head_dim * stored.itemsize + (_SCALE_DTYPE.itemsize if stored in PACKED else 0)
    return 2 * config.num_layers * config.num_kv_heads * block_size * num_bytes_per_head


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory in a dtype that can be indexed: torch does not index 8-bit floats everywhere."""
    return tensor.view(torch.uint8) if tensor.dtype is torch.float8_e4m3fn else tensor
