"""What a decoder computes between its matrix products: one interface, one module for each way."""

from sluice.backend.embedded.device import has_kernels
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.ops.base import HeadNorms, Ops
from sluice.backend.embedded.ops.plain import PlainOps

__all__ = ["HeadNorms", "Ops", "PlainOps", "make_ops"]


def make_ops(config: ModelConfig, cache: KVCache) -> Ops:
    """The fastest that can be used with this cache."""
    if has_kernels(cache.device):
        from sluice.backend.embedded.ops.fused import FusedOps

        return FusedOps(config, cache)
    return PlainOps(config, cache)
