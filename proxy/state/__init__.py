"""State stores that need a client library, and the choice between all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluice.compressor.state import MemoryStore, StateStore
from sluice.proxy.settings import Settings

if TYPE_CHECKING:
    from sluice.backend.router.placements import Placements

__all__ = ["make_placements", "make_store"]


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


def make_placements(settings: Settings) -> Placements | None:
    """Make what proxies tell each other of replicas through; None where no upstream has any, or there is no Redis."""
    if settings.redis_url is None or not any(upstream.replicas for upstream in settings.all_upstreams):
        return None
    from redis.asyncio import Redis

    from sluice.backend.router.placements import RedisPlacements

    timeout_s = settings.redis_timeout_s
    client = Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    return RedisPlacements(client)
