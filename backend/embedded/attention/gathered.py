"""Reference: gathers each sequence's keys and values into one piece, then torch's own attention.

Runs on every device and for every dtype; the others are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from sluice.backend.embedded.attention.base import Span
from sluice.backend.embedded.kv_cache import KVCache


class GatheredAttention:
    """Attention over gathered blocks."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def begin(self, spans: Sequence[Span]) -> GatheredPass:
        """Slots and masks of each sequence."""
        return GatheredPass(self._cache, spans)


class GatheredPass:
    """One pass of it."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        device, size = cache.keys.device, cache.block_size
        self._parts = []
        for span in spans:
            blocks = torch.tensor(span.block_table, device=device)
            slots = (blocks.unsqueeze(1) * size + torch.arange(size, device=device)).flatten()[: span.context_len]
            mask = torch.ones(span.num_tokens, span.context_len, dtype=torch.bool, device=device)
            self._parts.append((span, slots, mask.tril(span.context_len - span.num_tokens)))

    def __call__(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """See `AttentionPass`."""
        out = torch.empty_like(queries)
        for span, slots, mask in self._parts:
            piece = slice(span.start, span.start + span.num_tokens)
            keys = self._cache.keys[layer].index_select(1, slots).to(queries.dtype)
            values = self._cache.values[layer].index_select(1, slots).to(queries.dtype)
            out[piece] = scaled_dot_product_attention(
                queries[piece].transpose(0, 1).unsqueeze(0),
                keys.unsqueeze(0),
                values.unsqueeze(0),
                attn_mask=mask,
                scale=1.0,
                enable_gqa=True,
            )[0].transpose(0, 1)
        return out
