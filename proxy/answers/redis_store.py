"""Answers in Redis, shared by workers. A Redis that fails is an empty cache."""

from __future__ import annotations

import msgspec

from sluice.compressor.errors import StateError
from sluice.proxy.answers.kept import Kept
from sluice.proxy.log import fields, logger
from sluice.proxy.state.client import KEY_PREFIX, RedisClient

_KEY_PREFIX = KEY_PREFIX + b"answer:"
_decoder = msgspec.msgpack.Decoder(Kept)


class RedisAnswers:
    """Answers in Redis, whose own `maxmemory` bounds them all together.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        ttl_s: seconds for which an answer is kept.
        timeout_s: longest silence of Redis, connecting included, in seconds.
    """

    def __init__(self, url: str, ttl_s: float, timeout_s: float = 0.25) -> None:
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._client = RedisClient(url, timeout_s=timeout_s)

    async def get(self, key: bytes) -> Kept | None:
        """See `AnswerStore`."""
        try:
            data = await self._client.run(lambda: self._client.redis.get(_KEY_PREFIX + key))
            return _decoder.decode(data) if isinstance(data, bytes) else None
        except (StateError, msgspec.DecodeError) as error:
            logger.warning(fields("answer_store_lost", reason=type(error).__name__))
            return None

    async def put(self, key: bytes, kept: Kept) -> None:
        """See `AnswerStore`."""
        try:
            data = msgspec.msgpack.encode(kept)
            await self._client.run(lambda: self._client.redis.set(_KEY_PREFIX + key, data, px=self._ttl_ms))
        except StateError as error:
            logger.warning(fields("answer_store_lost", reason=type(error).__name__))

    async def aclose(self) -> None:
        """See `AnswerStore`."""
        await self._client.aclose()
