"""Runs a scheduled step on the model: sequences to tensors, one forward pass, tokens chosen and drafts verified.

Drafts are verified by drawing each position as if there were none and comparing: the output is as it is without them,
drawn or greedy (for a draft that is certain, this is the rejection sampling of arXiv 2211.17192).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from typing import TYPE_CHECKING

import numpy as np
import torch

from sluice.backend.embedded.attention import AttentionBackend, Span
from sluice.backend.embedded.device import to_device
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.sampler import Row, Sampled, sample
from sluice.backend.embedded.scheduler import Scheduled, Step
from sluice.backend.embedded.sequence import Sequence

if TYPE_CHECKING:  # CUDA's alone
    from sluice.backend.embedded.graphs import DecodeGraphs


class ModelRunner:
    """Model, cache and attention of one engine."""

    def __init__(
        self, decoder: Decoder, cache: KVCache, attention: AttentionBackend, graphs: DecodeGraphs | None = None
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._attention = attention
        self._graphs = graphs

    @torch.inference_mode()
    def run(
        self, step: Step, forks: Mapping[Sequence, Many[Sequence]], meanwhile: Callable[[], None]
    ) -> dict[Sequence, list[Sampled]]:
        """New tokens of each sequence: accepted draft tokens and one more; none where a prompt is not through yet.

        `forks` are copies of a sequence that begin now: each draws its first token from the same logits. `meanwhile` is
        called once, while the device computes; where that is this thread, before it does.
        """
        is_queued = self._cache.device.type != "cpu"
        if not is_queued:
            meanwhile()
        self._cache.copy(step.copies)
        logits = self._decode(step)
        if logits is None:
            logits = self._forward(step)
        if is_queued:
            meanwhile()
        rows: list[Row] = []
        num_logits = 0
        for item in step.scheduled:
            if item.is_sampled:
                rows += _rows(item, forks.get(item.sequence, ()), num_logits)
                num_logits += len(item.draft) + 1
        chosen = iter(sample(logits, rows) if rows else [])
        results: dict[Sequence, list[Sampled]] = {}
        for item in step.scheduled:
            results[item.sequence] = []
            if item.is_sampled:
                results[item.sequence] = _accept(item.draft, [next(chosen) for _ in range(len(item.draft) + 1)])
                results |= {fork: [next(chosen)] for fork in forks.get(item.sequence, ())}
        return results

    def _decode(self, step: Step) -> torch.Tensor | None:
        """Logits of a step that computes one token of each sequence, where such steps are recorded."""
        if self._graphs is None or not all(item.is_sampled and item.num_tokens == 1 for item in step.scheduled):
            return None
        return self._graphs.run([item.sequence for item in step.scheduled])

    def _forward(self, step: Step) -> torch.Tensor:
        """Logits behind the last known token of each sampled sequence, and behind each of its draft tokens."""
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        spans: list[Span] = []
        wanted: list[int] = []
        size = self._cache.block_size
        for item in step.scheduled:
            sequence, first = item.sequence, item.sequence.num_computed_tokens
            known = item.num_tokens - len(item.draft)
            table, end = sequence.block_table, first + item.num_tokens
            spans.append(Span(len(token_ids), item.num_tokens, end, table))
            token_ids += sequence.tokens[first : first + known]
            token_ids += item.draft
            positions += range(first, end)
            slots += [table[position // size] * size + position % size for position in range(first, end)]
            if item.is_sampled:
                wanted += range(len(token_ids) - len(item.draft) - 1, len(token_ids))
        packed = torch.from_numpy(np.array(token_ids + positions + slots + wanted, dtype=np.int64))
        sizes = [len(token_ids), len(positions), len(slots), len(wanted)]
        ids, at, into, behind = torch.split(to_device(packed, self._cache.device), sizes)  # one transfer for all
        return self._decoder.forward(ids, at, into, self._attention.begin(spans), behind)


def _rows(item: Scheduled, forks: Many[Sequence], index: int) -> list[Row]:
    """What to draw for one sequence: a token behind the known ones and each draft token, and its forks' first."""
    draft, sequence = item.draft, item.sequence
    allowed: Many[bytes | None] = [None] * (len(draft) + 1)
    if sequence.constraint is not None:
        allowed = sequence.constraint.allowed(draft)
    return [
        *(_row(sequence, index + number, draft[:number], mask) for number, mask in enumerate(allowed)),
        *(_row(fork, index, (), fork.constraint.allowed(())[0] if fork.constraint else None) for fork in forks),
    ]


def _row(sequence: Sequence, index: int, draft: Many[int], allowed: bytes | None) -> Row:
    return Row(index, sequence.params, sequence.seed, sequence.tokens, sequence.num_prompt_tokens, draft, allowed)


def _accept(draft: Many[int], chosen: list[Sampled]) -> list[Sampled]:
    """The drawn tokens up to the first that the draft does not have, that one included."""
    num_equal = next((n for n, token in enumerate(draft) if chosen[n].token != token), len(draft))
    return chosen[: num_equal + 1]
