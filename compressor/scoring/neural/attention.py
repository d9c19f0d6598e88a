"""Attention over sequences that lie end to end; each token reads its sequence's keys, all or those up to its own."""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from sluice.compressor.scoring.neural.layers import Heads

_TAKEN = inspect.signature(varlen_attn).parameters
# Before torch 2.12 there is no such argument, and fewer heads of keys than of queries are taken as they are.
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in _TAKEN else {}
_CAUSAL: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _TAKEN else {"is_causal": True}


class Sequences(NamedTuple):
    """Where the sequences lie (see `packing.Layout`)."""

    bounds: Tensor
    key_rows: Tensor | None
    key_bounds: Tensor
    max_tokens: int
    """No sequence has more keys."""
    is_causal: bool
    """Whether a token reads only what is above it. The last of a sequence's keys is its last token's own."""


def attend(heads: Heads, sequences: Sequences) -> Tensor:
    """Attention of each sequence, (tokens, heads · head_dim)."""
    query, key, value = heads
    if sequences.key_rows is not None:
        key, value = key[sequences.key_rows], value[sequences.key_rows]
    compute = _all_at_once if query.is_cuda else _one_by_one
    return compute(query, key, value, sequences).reshape(len(query), -1)


def _all_at_once(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> Tensor:
    attended = varlen_attn(
        query,
        key,
        value,
        sequences.bounds,
        sequences.key_bounds,
        sequences.max_tokens,
        sequences.max_tokens,
        **_GROUPED,
        **(_CAUSAL if sequences.is_causal else {}),
    )
    assert isinstance(attended, Tensor)
    return attended


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> Tensor:
    attended = torch.empty_like(query)
    spans = zip(pairwise(sequences.bounds.tolist()), pairwise(sequences.key_bounds.tolist()), strict=True)
    for (start, stop), (first, last) in spans:
        parts = (query[start:stop], key[first:last], value[first:last])
        heads = [part.transpose(0, 1).unsqueeze(0) for part in parts]
        num, num_keys = stop - start, last - first
        is_plain = num == num_keys
        mask = None
        if sequences.is_causal and not is_plain:
            mask = torch.ones(num, num_keys, dtype=torch.bool).tril(num_keys - num)
        found = functional.scaled_dot_product_attention(
            heads[0],
            heads[1],
            heads[2],
            attn_mask=mask,
            is_causal=sequences.is_causal and is_plain,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        attended[start:stop] = found[0].transpose(0, 1)
    return attended
