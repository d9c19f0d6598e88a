"""Requests and searches in Redis, so that every worker shows the same. All of it expires.

A request is one key; an index of summaries, a sorted set of times and a hash of sizes stand beside, kept in step by one
script, which also makes room. What is kept is content: whoever may read this Redis may read it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar, cast

import msgspec

from sluice.proxy.breaker import Breaker
from sluice.proxy.dashboard.kept import Summary
from sluice.proxy.dashboard.store import MAX_SEARCHES, Searched
from sluice.proxy.state.client import KEY_PREFIX as STATE_PREFIX
from sluice.proxy.state.client import RedisClient

T = TypeVar("T")

KEY_PREFIX = STATE_PREFIX + b"watch:"
_RECENT, _INDEX, _SIZES, _SEARCHES = (KEY_PREFIX + name for name in (b"recent", b"index", b"sizes", b"searches"))
_REQUEST = KEY_PREFIX + b"request:"

# KEYS: recent, index, sizes. ARGV: request prefix, conversation, packed, summary, time, ttl, most requests, most bytes.
_KEEP = """
local prefix, name, packed = ARGV[1], ARGV[2], ARGV[3]
local at, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local function forget(gone)
  redis.call('DEL', prefix .. gone)
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
  redis.call('HDEL', KEYS[3], gone)
end
if string.len(packed) > tonumber(ARGV[8]) then
  forget(name)
  return
end
redis.call('SET', prefix .. name, packed, 'EX', ttl)
redis.call('ZADD', KEYS[1], at, name)
redis.call('HSET', KEYS[2], name, ARGV[4])
redis.call('HSET', KEYS[3], name, string.len(packed))
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at - ttl)) do forget(gone) end
local total = 0
for _, size in ipairs(redis.call('HVALS', KEYS[3])) do total = total + tonumber(size) end
local count = redis.call('ZCARD', KEYS[1])
while count > 0 and (count > tonumber(ARGV[7]) or total > tonumber(ARGV[8])) do
  local gone = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  total = total - tonumber(redis.call('HGET', KEYS[3], gone) or '0')
  forget(gone)
  count = count - 1
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ttl) end
"""

_summary = msgspec.msgpack.Decoder(Summary)
_searched = msgspec.msgpack.Decoder(Searched)


class RedisWatchStore:
    """A store in Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        max_conversations: whose requests are kept.
        max_bytes: of all requests together, packed.
        ttl_s: seconds after which a request is forgotten.
        timeout_s: longest silence of Redis, connecting included, in seconds.
        breaker: decides whether a Redis that failed is asked again.
    """

    def __init__(
        self,
        url: str,
        *,
        max_conversations: int,
        max_bytes: int,
        ttl_s: float,
        timeout_s: float = 2.0,
        breaker: Breaker | None = None,
    ) -> None:
        self._client = RedisClient(url, timeout_s=timeout_s, breaker=breaker)
        self._script = self._client.redis.register_script(_KEEP)
        self._bounds = (max_conversations, max_bytes)
        self._ttl_s = max(1, int(ttl_s))

    async def keep(self, summary: Summary, packed: bytes) -> None:
        """See `WatchStore`."""
        name, about = summary.conversation.encode(), msgspec.msgpack.encode(summary)
        args: list[bytes | float] = [_REQUEST, name, packed, about, summary.at_s, self._ttl_s, *self._bounds]
        await self._client.run(lambda: self._script(keys=[_RECENT, _INDEX, _SIZES], args=args))

    async def request(self, conversation: str) -> tuple[Summary, bytes] | None:
        """See `WatchStore`."""
        pipe = self._client.pipeline()
        pipe.hget(_INDEX.decode(), conversation)
        pipe.get(_REQUEST + conversation.encode())
        about, packed = await self._client.run(pipe.execute)
        summary = _read(_summary, about)
        return (summary, packed) if summary is not None and packed is not None else None

    async def summaries(self) -> list[Summary]:
        """See `WatchStore`."""
        found = await self._client.run(
            lambda: cast("Awaitable[list[bytes]]", self._client.redis.hvals(_INDEX.decode()))
        )
        read = [summary for data in found if (summary := _read(_summary, data)) is not None]
        return sorted(read, key=lambda summary: -summary.at_s)

    async def add_search(self, searched: Searched) -> None:
        """See `WatchStore`."""
        pipe = self._client.pipeline()
        pipe.lpush(_SEARCHES.decode(), msgspec.msgpack.encode(searched))
        pipe.ltrim(_SEARCHES.decode(), 0, MAX_SEARCHES - 1)
        pipe.expire(_SEARCHES, self._ttl_s)
        await self._client.run(pipe.execute)

    async def searches(self) -> list[Searched]:
        """See `WatchStore`."""
        redis = self._client.redis
        found = await self._client.run(lambda: cast("Awaitable[list[bytes]]", redis.lrange(_SEARCHES.decode(), 0, -1)))
        return [searched for data in found if (searched := _read(_searched, data)) is not None]

    async def aclose(self) -> None:
        """See `WatchStore`."""
        await self._client.aclose()


def _read(decoder: msgspec.msgpack.Decoder[T], data: bytes | None) -> T | None:
    """Decode what another version may have written in another form; None where it did."""
    try:
        return decoder.decode(data) if data is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
