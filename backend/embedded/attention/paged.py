"""For CUDA: a Triton kernel reads the blocks where they lie; prompts go through `FlashPass`.

Which kernel a sequence takes depends on how many tokens of it are computed: few (decoding, verification) wait for
memory, many for arithmetic. Everything a decoding pass needs lies in tensors, so that a CUDA graph can replay it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sluice.backend.embedded.attention.base import Span
from sluice.backend.embedded.attention.flash import FlashPass, has_flash
from sluice.backend.embedded.attention.gathered import GatheredPass
from sluice.backend.embedded.attention.paged_kernel import attend_split, join_splits
from sluice.backend.embedded.device import to_device
from sluice.backend.embedded.kv_cache import KVCache

_FEW_QUERIES = 16
_TILE = 64
"""Tokens of the context that a program reads at a time."""
_MIN_SIDE = 16
"""Least rows, and least inputs, that a matrix unit multiplies."""
_MAX_SPLITS = 64
_PROGRAMS_PER_PROCESSOR = 2


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """What the kernel needs to know of the sequences, on the device, all int32."""

    tables: torch.Tensor
    """(sequences, blocks), rows at any distance."""
    context_lens: torch.Tensor
    """(sequences,), at any distance; this pass's tokens included."""
    starts: torch.Tensor
    """(sequences,): of its tokens in the pass."""
    num_tokens: torch.Tensor
    """(sequences,)."""
    max_num_tokens: int
    max_context_len: int


class PagedAttention:
    """Attention over blocks; the cache is read in a dtype of 16 bits, or float32 for comparisons."""

    def __init__(self, cache: KVCache, num_processors: int | None = None) -> None:
        """`num_processors` of the device; None asks it."""
        self._cache = cache
        self._num_processors = num_processors or torch.cuda.get_device_properties(cache.device).multi_processor_count

    def begin(self, spans: Sequence[Span]) -> PagedPass:
        """Tables and lengths of the short spans, slots of the long ones."""
        few = [span for span in spans if span.num_tokens <= _FEW_QUERIES]
        many = [span for span in spans if span.num_tokens > _FEW_QUERIES]
        prompts = FlashPass if has_flash(self._cache) else GatheredPass
        return PagedPass(
            self._cache,
            self._batch(few) if few else None,
            prompts(self._cache, many) if many else None,
            self._num_splits(len(few), max((span.context_len for span in few), default=1)),
        )

    def decode(self, tables: torch.Tensor, context_lens: torch.Tensor) -> PagedPass:
        """A pass of one token for each sequence over tensors that stay and whose content changes, for CUDA graphs.

        `tables` (sequences, blocks) and `context_lens` (sequences,) are int32.
        """
        num_sequences, max_context_len = tables.shape[0], tables.shape[1] * self._cache.block_size
        starts = torch.arange(num_sequences, dtype=torch.int32, device=tables.device)
        batch = PagedBatch(tables, context_lens, starts, torch.ones_like(starts), 1, max_context_len)
        return PagedPass(self._cache, batch, None, self._num_splits(num_sequences, max_context_len))

    def _batch(self, spans: Sequence[Span]) -> PagedBatch:
        size = self._cache.block_size
        num_blocks = [-(-span.context_len // size) for span in spans]
        rows = np.zeros((len(spans), max(num_blocks) + 3), dtype=np.int32)
        for row, span, length in zip(rows, spans, num_blocks, strict=True):
            row[0], row[1], row[2] = span.context_len, span.start, span.num_tokens
            row[3 : 3 + length] = np.asarray(span.block_table, dtype=np.int32)[:length]
        on_device = to_device(torch.from_numpy(rows), self._cache.device)
        starts, num_tokens = on_device[:, 1:3].t().contiguous().unbind()
        return PagedBatch(
            on_device[:, 3:],
            on_device[:, 0],
            starts,
            num_tokens,
            max(span.num_tokens for span in spans),
            max(span.context_len for span in spans),
        )

    def _num_splits(self, num_sequences: int, max_context_len: int) -> int:
        """As many as keep all processors busy, a power of two; not more than there are tiles."""
        if num_sequences == 0:
            return 1
        num_programs = num_sequences * self._cache.keys.data.shape[1]
        wanted = self._num_processors * _PROGRAMS_PER_PROCESSOR // num_programs
        limit = min(wanted, -(-max_context_len // _TILE), _MAX_SPLITS)
        return 1 << max(limit, 1).bit_length() - 1


class PagedPass:
    """One pass of it."""

    def __init__(
        self, cache: KVCache, few: PagedBatch | None, many: FlashPass | GatheredPass | None, num_splits: int
    ) -> None:
        self._cache = cache
        self._few = few
        self._many = many
        self._num_splits = num_splits

    def __call__(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """See `AttentionPass`."""
        queries = queries.to(self._cache.dtype)
        out = torch.empty_like(queries)
        if self._few is not None:
            self._attend_few(out, layer, queries, self._few)
        if self._many is not None:
            self._many.attend_into(out, layer, queries)
        return out

    def _attend_few(self, out: torch.Tensor, layer: int, queries: torch.Tensor, batch: PagedBatch) -> None:
        keys, values = self._cache.keys, self._cache.values
        num_kv_heads, num_slots, head_dim = keys.data.shape[1:]
        num_sequences, num_heads, num_splits = len(batch.starts), queries.shape[1], self._num_splits
        group, padded_dim = num_heads // num_kv_heads, max(_power_of_two(head_dim), _MIN_SIDE)
        rows = max(_power_of_two(batch.max_num_tokens * group), _MIN_SIDE)
        shape = (queries.shape[0], num_heads, num_splits)
        lse = torch.empty(shape, dtype=torch.float32, device=out.device)
        # A single part is the whole.
        parts = out if num_splits == 1 else torch.empty((*shape, head_dim), dtype=torch.float32, device=out.device)
        has_scales = keys.scales is not None and values.scales is not None
        attend_split[(num_sequences, num_kv_heads, num_splits)](
            parts,
            lse,
            queries.contiguous(),
            keys.layers[layer],
            values.layers[layer],
            keys.scales[layer] if keys.scales is not None else lse,
            values.scales[layer] if values.scales is not None else lse,
            batch.tables,
            batch.context_lens,
            batch.starts,
            batch.num_tokens,
            num_heads,
            num_slots,
            batch.tables.stride(0),
            batch.context_lens.stride(0),
            num_splits,
            group=group,
            rows=rows,
            head_dim=head_dim,
            padded_dim=padded_dim,
            block_size=self._cache.block_size,
            tile=_TILE,
            has_scales=has_scales,
        )
        if num_splits == 1:
            return
        join_splits[(num_sequences, batch.max_num_tokens, num_heads)](
            out,
            parts,
            lse,
            batch.starts,
            batch.num_tokens,
            num_heads,
            num_splits,
            head_dim=head_dim,
            padded_dim=padded_dim,
            padded_splits=_power_of_two(num_splits),
        )


def _power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << (number - 1).bit_length()
