"""Makes the watch that the settings ask for."""

from __future__ import annotations

from sluice.proxy.dashboard.store import MemoryWatchStore, WatchStore
from sluice.proxy.dashboard.watch import Watch
from sluice.proxy.settings import Settings

_MIN_TIMEOUT_S = 2.0
"""Nobody waits for it, and a request with its content is more than a request's state."""


def make_watch(settings: Settings) -> Watch:
    """Make the watch."""
    number, num_bytes = settings.content_max_conversations, settings.content_max_bytes
    store: WatchStore
    if settings.redis_url is None:
        store = MemoryWatchStore(max_conversations=number, max_bytes=num_bytes, ttl_s=settings.ttl_s)
    else:
        from sluice.proxy.dashboard.redis_store import RedisWatchStore

        store = RedisWatchStore(
            settings.redis_url.get_secret_value(),
            max_conversations=number,
            max_bytes=num_bytes,
            ttl_s=settings.ttl_s,
            timeout_s=max(_MIN_TIMEOUT_S, settings.redis_timeout_s),
        )
    return Watch(store, keeps_content=settings.store_content)
