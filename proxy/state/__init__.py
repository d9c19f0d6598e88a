"""State stores that need a client library, and the choice between all of them."""

from __future__ import annotations

from sluice.compressor.state import MemoryStore, StateStore
from sluice.proxy.settings import Settings

__all__ = ["make_store"]


def make_store(settings: Settings) -> StateStore:
    """Make the store that the settings ask for: Redis with a copy in this process before it, or this process alone."""
    memory = MemoryStore(ttl_s=settings.ttl_s, max_bytes=settings.state_max_bytes)
    if settings.redis_url is None:
        return memory
    from sluice.proxy.state.fronted import FrontedStore
    from sluice.proxy.state.redis import RedisStore

    url = settings.redis_url.get_secret_value()
    remote = RedisStore(url, ttl_s=settings.ttl_s, timeout_s=settings.redis_timeout_s)
    return FrontedStore(remote, memory, ttl_s=settings.ttl_s)
