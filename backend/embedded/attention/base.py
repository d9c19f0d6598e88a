"""The interface of attention over the paged cache.

A pass computes tokens of several sequences at once, one after another in one row; a `Span` says which are whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence's tokens in a pass: the last `num_tokens` of a context of `context_len`."""

    start: int
    """Of its tokens in the pass."""
    num_tokens: int
    context_len: int
    """Including its tokens of this pass, whose keys and values are in the cache by then."""
    block_table: Sequence[int]


class AttentionPass(Protocol):
    """Attention for one pass; made once, called for each layer."""

    def __call__(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """Attend: `queries` (tokens, heads, head_dim), scaled already, to the same shape."""
        ...


class AttentionBackend(Protocol):
    """Makes passes over one cache."""

    def begin(self, spans: Sequence[Span]) -> AttentionPass:
        """Prepare what all layers share."""
        ...
