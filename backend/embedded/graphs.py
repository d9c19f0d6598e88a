"""Decoding steps as CUDA graphs: recorded once for each batch size, then replayed by a single call.

A step of one token launches hundreds of small kernels, and launching takes longer than computing them. Batches are
filled up to the next recorded size with rows that compute nothing of use, in the cache's spare block.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

import numpy as np
import torch

from sluice.backend.embedded.attention.paged import PagedAttention
from sluice.backend.embedded.device import to_device
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.sequence import Sequence

Forward = Callable[[], torch.Tensor]
_TOKEN, _POSITION, _SLOT, _LENGTH, _TABLE = range(5)
"""Columns of the inputs; the block table takes the rest."""


def batch_sizes(max_num_sequences: int) -> list[int]:
    """Sizes that are recorded: powers of two, from 8 on every eighth, and the greatest."""
    sizes = {1, 2, 4, *range(8, max_num_sequences + 1, 8), max_num_sequences}
    return sorted(size for size in sizes if size <= max_num_sequences)


class DecodeGraphs:
    """Recorded decoding steps of one model."""

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        attention: PagedAttention,
        *,
        max_num_sequences: int,
        record: Callable[[Forward], Forward] | None = None,
    ) -> None:
        """Records all sizes, which takes some seconds; `record` makes what replays a step (default: a CUDA graph)."""
        self._decoder = decoder
        self._cache = cache
        self._attention = attention
        num_blocks = -(-decoder.config.max_model_len // cache.block_size)
        self._filler = np.zeros(_TABLE + num_blocks, dtype=np.int32)
        self._filler[[_SLOT, _LENGTH, _TABLE]] = cache.num_blocks * cache.block_size, 1, cache.num_blocks
        sizes = batch_sizes(max_num_sequences)
        rows = torch.from_numpy(np.tile(self._filler, (sizes[-1], 1)))
        self._inputs = rows.to(cache.device)
        record = record or _Recorder()
        # The greatest first, as the memory that it needs serves the others too. What was recorded is kept: its tensors
        # are read again at each replay.
        self._recorded = {size: self._forward(self._inputs[:size]) for size in reversed(sizes)}
        self._replays = {size: record(forward) for size, forward in self._recorded.items()}

    def run(self, sequences: Many[Sequence]) -> torch.Tensor | None:
        """Compute the newest token of each sequence; None if there are more than were recorded for.

        Returns float32 logits (sequences, vocabulary), which the next run overwrites.
        """
        size = min((size for size in self._replays if size >= len(sequences)), default=None)
        if size is None:
            return None
        num_blocks = max(len(sequence.block_table) for sequence in sequences)
        rows = np.tile(self._filler[: _TABLE + num_blocks], (size, 1))
        block_size = self._cache.block_size
        for row, sequence in zip(rows, sequences, strict=False):
            position, table = sequence.num_computed_tokens, sequence.block_table
            slot = table[position // block_size] * block_size + position % block_size
            row[:_TABLE] = sequence.tokens[position], position, slot, position + 1
            row[_TABLE : _TABLE + len(table)] = np.asarray(table, dtype=np.int32)
        self._inputs[:size, : rows.shape[1]].copy_(to_device(torch.from_numpy(rows), self._cache.device))
        return self._replays[size]()[: len(sequences)]

    def _forward(self, inputs: torch.Tensor) -> Forward:
        attend = self._attention.decode(inputs[:, _TABLE:], inputs[:, _LENGTH])

        def forward() -> torch.Tensor:
            token_ids, positions, slots = inputs[:, :_LENGTH].t().contiguous().long().unbind()
            return self._decoder.forward(token_ids, positions, slots, attend)

        return forward


class _Recorder:
    """Records CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, forward: Forward) -> Forward:
        """Run once to compile kernels and to let libraries settle, then record."""
        stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch has no types for it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = forward()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay
