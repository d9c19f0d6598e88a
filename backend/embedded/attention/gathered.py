"""Reference: gathers each sequence's keys and values into one piece, then torch's own attention.

Runs on every device and for every dtype; the others are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention

from sluice.backend.embedded.attention.base import Span
from sluice.backend.embedded.device import to_device
from sluice.backend.embedded.kv_cache import KVCache


class GatheredAttention:
    """Attention over gathered blocks."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def begin(self, spans: Sequence[Span]) -> GatheredPass:
        """Slots of each sequence."""
        return GatheredPass(self._cache, spans)


class GatheredPass:
    """One pass of it."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._parts = [(span, self._slots(span), self._mask(span)) for span in spans]

    def __call__(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """See `AttentionPass`."""
        out = torch.empty_like(queries)
        self.attend_into(out, layer, queries)
        return out

    def attend_into(self, out: torch.Tensor, layer: int, queries: torch.Tensor) -> None:
        """Write what the spans' queries attend to into their rows of `out`; the other rows stay."""
        dtype = self._cache.dtype
        for span, slots, mask in self._parts:
            piece = slice(span.start, span.start + span.num_tokens)
            out[piece] = scaled_dot_product_attention(
                queries[piece].to(dtype).transpose(0, 1).unsqueeze(0),
                self._cache.keys.gather(layer, slots).unsqueeze(0),
                self._cache.values.gather(layer, slots).unsqueeze(0),
                attn_mask=mask,
                scale=1.0,
                enable_gqa=True,
            )[0].transpose(0, 1)

    def _slots(self, span: Span) -> torch.Tensor:
        return to_device(torch.from_numpy(slots_of(span, self._cache.block_size)), self._cache.device)

    def _mask(self, span: Span) -> torch.Tensor | None:
        """Hides from each query what comes after it."""
        if span.num_tokens == 1:
            return None
        device = self._cache.device
        mask = torch.ones(span.num_tokens, span.context_len, dtype=torch.bool, device=device)
        return mask.tril(span.context_len - span.num_tokens)


def slots_of(span: Span, block_size: int) -> npt.NDArray[np.int64]:
    """Slots of the span's context in the cache, in order."""
    blocks = np.asarray(span.block_table, dtype=np.int64)[:, None]
    return (blocks * block_size + np.arange(block_size)).reshape(-1)[: span.context_len]
