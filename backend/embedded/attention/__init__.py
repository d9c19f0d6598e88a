"""Attention over the paged cache: one interface, one module for each way."""

from sluice.backend.embedded.attention.base import AttentionBackend, AttentionPass, Span
from sluice.backend.embedded.attention.gathered import GatheredAttention
from sluice.backend.embedded.attention.runs import RunsAttention
from sluice.backend.embedded.kv_cache import KVCache

__all__ = ["AttentionBackend", "AttentionPass", "GatheredAttention", "RunsAttention", "Span", "make_attention"]


def make_attention(cache: KVCache) -> AttentionBackend:
    """The fastest that can be used with this cache."""
    return RunsAttention(cache) if cache.keys.device.type == "cpu" else GatheredAttention(cache)
