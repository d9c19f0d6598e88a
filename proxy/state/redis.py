"""State in Redis: records written once, originals in a bucket per tenant and id prefix, one shared secret.

Every operation is one round trip and bounded in time; whatever goes wrong becomes `StateError`. A circuit breaker
makes a dead Redis cost nothing. Needs Redis ≥ 6.2 (`GETEX`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

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
        self, url: str, *, ttl_s: float = 86_400.0, timeout_s: float = 0.25, breaker: Breaker | None = None
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
        pipe = self._pipeline()
        for key in keys:
            pipe.getex(_record_key(key), px=self._ttl_ms)
        return cast("list[bytes | None]", await self._run(pipe.execute))

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
        texts: dict[bytes, bytes] = (await self._run(pipe.execute))[0]
        found = {key.decode(): text.decode("utf-8", "surrogatepass") for key, text in texts.items()}
        return {recall_id: found[recall_id] for recall_id in sorted(found) if recall_id.startswith(prefix)}

    async def secret(self) -> bytes:
        """See `StateStore`. It never expires: tenants hashed under another are other tenants."""
        pipe = self._pipeline()
        pipe.set(KEY_PREFIX + b"secret", secrets.token_bytes(32), nx=True)
        pipe.get(KEY_PREFIX + b"secret")
        return cast("bytes", (await self._run(pipe.execute))[1])

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


def _record_key(key: bytes) -> bytes:
    return KEY_PREFIX + b"r:" + key


def _bucket_key(tenant: bytes, recall_id: str) -> bytes:
    return KEY_PREFIX + b"o:" + tenant + b":" + recall_id[:RECALL_PREFIX_CHARS].encode()
