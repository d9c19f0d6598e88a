"""Prompts on CUDA: all spans in one call of torch's flash attention, which takes sequences of any lengths side by side.

Their keys and values are gathered first, once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sluice.backend.embedded.attention.base import Span
from sluice.backend.embedded.attention.gathered import slots_of
from sluice.backend.embedded.device import to_device
from sluice.backend.embedded.kv_cache import KVCache

_MAX_HEAD_DIM = 256


def has_flash(cache: KVCache) -> bool:
    """Whether torch's kernels take what this cache gives."""
    head_dim = cache.keys.data.shape[3]
    return cache.device.type == "cuda" and cache.dtype.itemsize == 2 and head_dim % 8 == 0 and head_dim <= _MAX_HEAD_DIM


class FlashPass:
    """One pass of it."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        parts = [
            np.concatenate([np.arange(span.start, span.start + span.num_tokens) for span in spans]),
            np.concatenate([slots_of(span, cache.block_size) for span in spans]),
            np.cumsum([0, *(span.num_tokens for span in spans)]),
            np.cumsum([0, *(span.context_len for span in spans)]),
        ]
        packed = torch.from_numpy(np.concatenate(parts, dtype=np.int64))
        sizes = [len(part) for part in parts]
        self._rows, self._slots, query_ends, key_ends = torch.split(to_device(packed, cache.device), sizes)
        self._query_ends, self._key_ends = query_ends.int(), key_ends.int()
        self._max_num_tokens = max(span.num_tokens for span in spans)
        self._max_context_len = max(span.context_len for span in spans)

    def attend_into(self, out: torch.Tensor, layer: int, queries: torch.Tensor) -> None:
        """Write what the spans' queries attend to into their rows of `out`; the other rows stay."""
        is_all = len(self._rows) == len(queries)
        attended = torch.ops.aten._flash_attention_forward(
            queries if is_all else queries[self._rows],
            self._cache.keys.gather(layer, self._slots).transpose(0, 1),
            self._cache.values.gather(layer, self._slots).transpose(0, 1),
            self._query_ends,
            self._key_ends,
            self._max_num_tokens,
            self._max_context_len,
            0.0,  # dropout
            True,  # causal, the last query sees the last key
            False,
            scale=1.0,
        )[0]
        if is_all:
            out.copy_(attended)
        else:
            out[self._rows] = attended
