"""State in Redis: records written once, originals in a bucket per tenant and id prefix, one shared secret.

Every operation is one round trip and bounded in time; whatever goes wrong becomes `StateError`. A circuit breaker
makes a dead Redis cost nothing; one that takes no writes is still read. Needs Redis ≥ 6.2 (`GETEX`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from redis.asyncio.client import Pipeline
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from sluice.compressor.state import RECALL_PREFIX_CHARS
from sluice.proxy.breaker import Breaker
from sluice.proxy.state.client import KEY_PREFIX, RedisClient


class RedisStore:
    """A store in Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        ttl_s: seconds after which an entry that nobody asked for is gone.
        timeout_s: longest wait for one operation, connecting included, in seconds.
        breaker: decides whether a Redis that failed is asked again.
    """

    def __init__(
        self, url: str, *, ttl_s: float = 86_400.0, timeout_s: float = 1.0, breaker: Breaker | None = None
    ) -> None:
        self._ttl_ms = math.ceil(ttl_s * 1000)
        self._client = RedisClient(url, timeout_s=timeout_s, breaker=breaker)
        self.breaker = self._client.breaker
        self._run = self._client.run
        self._pipeline = self._client.pipeline

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `StateStore`."""
        if not keys:
            return []
        names = [_record_key(key) for key in keys]
        pipe = self._pipeline()
        for name in names:
            pipe.getex(name, px=self._ttl_ms)

        async def look_up() -> list[bytes | None]:
            replies = await pipe.execute(raise_on_error=False)
            if any(map(_is_no_write, replies)):
                replies = await cast("Awaitable[list[bytes | None]]", self._client.redis.mget(names))
            return cast("list[bytes | None]", _checked(replies))

        return await self._run(look_up)

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `StateStore`."""
        if not records:
            return {}
        pipe = self._pipeline()
        for key, record in records.items():
            pipe.set(_record_key(key), record, nx=True, px=self._ttl_ms)
            pipe.getex(_record_key(key), px=self._ttl_ms)
        replies = await self._run(pipe.execute)
        return {
            key: record if standing is None else cast("bytes", standing)
            for (key, record), standing in zip(records.items(), replies[1::2], strict=True)
        }

    async def put_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        """See `StateStore`."""
        if not originals:
            return
        pipe = self._pipeline()
        for recall_id, text in originals.items():
            bucket = _bucket_key(tenant, recall_id)
            pipe.hset(bucket, recall_id, cast("str", text.encode("utf-8", "surrogatepass")))
            pipe.pexpire(bucket, self._ttl_ms)
        await self._run(pipe.execute)

    async def find_originals(self, tenant: bytes, prefix: str) -> dict[str, str]:
        """See `StateStore`."""
        bucket = _bucket_key(tenant, prefix)
        pipe = self._pipeline()
        pipe.hgetall(bucket)
        pipe.pexpire(bucket, self._ttl_ms)
        (texts,) = await self._run(lambda: _one_of(pipe, 0))
        found = {key.decode(): text.decode("utf-8", "surrogatepass") for key, text in texts.items()}
        return {recall_id: found[recall_id] for recall_id in sorted(found) if recall_id.startswith(prefix)}

    async def secret(self) -> bytes:
        """See `StateStore`. It never expires: tenants hashed under another are other tenants."""
        pipe = self._pipeline()
        pipe.set(KEY_PREFIX + b"secret", secrets.token_bytes(32), nx=True)
        pipe.get(KEY_PREFIX + b"secret")
        (found,) = await self._run(lambda: _one_of(pipe, 1))
        return cast("bytes", found)

    async def touch(self, keys: Sequence[bytes]) -> list[bool]:
        """Slide the expiry of records in one round trip; for each, whether it is there."""
        if not keys:
            return []
        pipe = self._pipeline()
        for key in keys:
            pipe.pexpire(_record_key(key), self._ttl_ms)
        return [bool(reply) for reply in await self._run(pipe.execute)]

    async def ping(self) -> None:
        """See `StateStore`."""
        await self._run(cast("Callable[[], Awaitable[bool]]", self._client.redis.ping))

    async def aclose(self) -> None:
        """See `StateStore`."""
        await self._client.aclose()


async def _one_of(pipe: Pipeline, index: int) -> list[Any]:
    """The reply to one command of a pipeline, in a list; where that holds nothing, the first error of the others."""
    replies = await pipe.execute(raise_on_error=False)
    return _checked([replies[index]] if replies[index] is not None else replies)[:1]


def _is_no_write(reply: object) -> bool:
    """Whether Redis refused to slide an expiry, which counts as a write: it is full, read-only, or out of disk."""
    return isinstance(reply, ResponseError) and (
        isinstance(reply, OutOfMemoryError | ReadOnlyError) or str(reply).startswith("MISCONF")
    )


def _checked(replies: list[Any]) -> list[Any]:
    """Replies, none of which is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _record_key(key: bytes) -> bytes:
    return KEY_PREFIX + b"r:" + key


def _bucket_key(tenant: bytes, recall_id: str) -> bytes:
    return KEY_PREFIX + b"o:" + tenant + b":" + recall_id[:RECALL_PREFIX_CHARS].encode()
