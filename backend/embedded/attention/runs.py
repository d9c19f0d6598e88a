"""For CPUs: reads neighbouring blocks as views of the cache, so that nothing is gathered.

The block manager places a sequence's blocks side by side, so its context is mostly one run of them, or two behind a
shared beginning. Few queries (decoding, verification): plain matrix products, heads of a group side by side. Many
(prefill): flash attention on each run, joined by their log-sum-exps as in FlashDecoding and cascade inference. A cache
that is kept in fewer bits is unpacked run by run as it is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sluice.backend.embedded.attention.base import Span
from sluice.backend.embedded.kv_cache import KVCache

_FEW_QUERIES = 16
Pieces = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (kv_heads, tokens, head_dim) of each run, in order."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def runs_of(block_table: Sequence[int], context_len: int, block_size: int) -> list[tuple[int, int]]:
    """Slots of the context as few ranges [start, end), in order."""
    runs: list[tuple[int, int]] = []
    num_blocks = -(-context_len // block_size)
    first = previous = block_table[0]
    for block in block_table[1:num_blocks]:
        if block != previous + 1:
            runs.append((first * block_size, (previous + 1) * block_size))
            first = block
        previous = block
    filled = context_len - (num_blocks - 1) * block_size
    runs.append((first * block_size, previous * block_size + filled))
    return runs


class RunsAttention:
    """Attention over runs of blocks; the cache is read as float32."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def begin(self, spans: Sequence[Span]) -> RunsPass:
        """Runs and masks of each sequence."""
        return RunsPass(self._cache, spans)


class RunsPass:
    """One pass of it."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._parts = [(span, runs_of(span.block_table, span.context_len, cache.block_size)) for span in spans]
        lengths = {span.num_tokens for span in spans if 1 < span.num_tokens <= _FEW_QUERIES}
        self._masks = {n: torch.full((n, n), float("-inf")).triu(1) for n in lengths}

    def __call__(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """See `AttentionPass`."""
        num_kv_heads = self._cache.keys.data.shape[1]
        # (tokens, kv_heads, group, head_dim): the heads of a group share keys and values.
        grouped = queries.view(queries.shape[0], num_kv_heads, -1, queries.shape[2])
        out = torch.empty_like(grouped)
        for span, runs in self._parts:
            piece = slice(span.start, span.start + span.num_tokens)
            if span.num_tokens == 1:
                _few(grouped[span.start], self._read(layer, runs), out=out[span.start])
            elif span.num_tokens <= _FEW_QUERIES:
                few = grouped[piece].permute(1, 2, 0, 3).flatten(1, 2)
                attended = _few(few, self._read(layer, runs), mask=self._masks[span.num_tokens])
                shape = (num_kv_heads, -1, span.num_tokens, queries.shape[2])
                out[piece] = attended.view(shape).permute(2, 0, 1, 3)
            else:
                past, own = _split(runs, span.num_tokens)
                many = grouped[piece].permute(1, 2, 0, 3)
                attended = _many(many, self._read(layer, past), self._read(layer, own))
                out[piece] = attended.permute(2, 0, 1, 3)
        return out.view_as(queries)

    def _read(self, layer: int, runs: list[tuple[int, int]]) -> Pieces:
        keys, values = self._cache.keys, self._cache.values
        return [(keys.read(layer, start, end), values.read(layer, start, end)) for start, end in runs]


def _few(
    queries: torch.Tensor, pieces: Pieces, *, mask: torch.Tensor | None = None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Attend with queries (kv_heads, group × n, head_dim); `mask` (n, n) is added for the last n keys."""
    parts = [torch.bmm(queries, keys.transpose(1, 2)) for keys, _ in pieces]
    scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    if mask is not None:
        num_tokens = mask.shape[0]
        scores.view(scores.shape[0], -1, num_tokens, scores.shape[2])[..., -num_tokens:] += mask
    weights = torch.softmax(scores, dim=-1)
    if len(parts) == 1:  # mostly: nothing more than it takes, as this runs for each sequence in each layer
        return torch.bmm(weights, pieces[0][1], out=out)
    shares = torch.split(weights, [part.shape[2] for part in parts], dim=2)
    out = torch.bmm(shares[0], pieces[0][1], out=out)
    for share, (_, values) in zip(shares[1:], pieces[1:], strict=True):
        out.baddbmm_(share, values)
    return out


def _many(queries: torch.Tensor, past: Pieces, own: Pieces) -> torch.Tensor:
    """Attend with queries (kv_heads, group, n, head_dim) to all of `past` and causally to `own`, their n tokens."""
    parts = [_flash_part(queries, keys, values, causal=False) for keys, values in past]
    if len(own) > 1:  # the new tokens lie apart: put them together, as the causal part needs them in one piece
        own = [(torch.cat([keys for keys, _ in own], dim=1), torch.cat([values for _, values in own], dim=1))]
    parts.append(_flash_part(queries, *own[0], causal=True))
    out, lse = parts[0]
    for part, part_lse in parts[1:]:
        # sigmoid(b - a) is b's share of exp(a) + exp(b).
        out = torch.lerp(out, part, torch.sigmoid(part_lse - lse).unsqueeze(-1))
        lse = torch.logaddexp(lse, part_lse)
    return out


def _split(runs: list[tuple[int, int]], num_tokens: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Ranges of all but the last tokens, and of the last `num_tokens`."""
    past = list(runs)
    own: list[tuple[int, int]] = []
    while num_tokens:
        start, end = past.pop()
        cut = max(start, end - num_tokens)
        own.insert(0, (cut, end))
        num_tokens -= end - cut
        if cut > start:
            past.append((start, cut))
    return past, own


def _flash_part(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp (kv_heads, group, n) over one run; key heads stand in for the batch, groups for heads."""
    shape = (keys.shape[0], queries.shape[1], *keys.shape[1:])
    out, lse = _flash(queries, keys[:, None].expand(shape), values[:, None].expand(shape), 0.0, causal, scale=1.0)
    return out, lse
