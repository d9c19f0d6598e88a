"""Attention over the paged cache: one interface, one module for each way."""

from sluice.backend.embedded.attention.base import AttentionBackend, AttentionPass, Span
from sluice.backend.embedded.attention.gathered import GatheredAttention
from sluice.backend.embedded.attention.runs import RunsAttention
from sluice.backend.embedded.device import has_kernels
from sluice.backend.embedded.kv_cache import KVCache

__all__ = ["AttentionBackend", "AttentionPass", "GatheredAttention", "RunsAttention", "Span", "make_attention"]


def make_attention(cache: KVCache) -> AttentionBackend:
    """The fastest that can be used with this cache."""
    if cache.device.type == "cpu":
        return RunsAttention(cache)
    if has_kernels(cache.device):
        from sluice.backend.embedded.attention.paged import PagedAttention

        return PagedAttention(cache)
    return GatheredAttention(cache)
