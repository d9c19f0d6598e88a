"""What proxies tell each other through Redis: where a conversation was sent, and what waits at each replica.

Only hashes of prompts and names of replicas are written. A Redis that fails is a Redis that says nothing.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from redis.exceptions import RedisError

from sluice.backend.router.prompt import Prompt

_PREFIX = "sluice:route"
_NUM_ASKED = 4
"""Newest parts that are asked for: what was sent last ends in one of them."""
_LOAD_TTL_S = 5.0
"""Older words of load say nothing any more."""
_LOAD_KEPT_S = 60
_SILENT = (RedisError, OSError, TimeoutError, msgspec.DecodeError)


class Placements(Protocol):
    """Where conversations were sent."""

    async def find(self, prompt: Prompt) -> tuple[str, int] | None:
        """The replica that a conversation was sent to last, and how many of these tokens it had then."""
        ...

    async def put(self, prompt: Prompt, replica: str) -> None:
        """Tell the others that the conversation, as it is now, was sent there."""
        ...

    async def share(self, queued: Mapping[str, float]) -> dict[str, float]:
        """Tell the others what waits at each replica by our doing; returns what does by theirs."""
        ...

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        ...


class RedisPlacements:
    """Placements in Redis.

    Args:
        client: `redis.asyncio.Redis`, with a timeout of its own.
        ttl_s: how long a placement is kept.
    """

    def __init__(self, client: Any, *, ttl_s: float = 3600.0) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._id = uuid.uuid4().hex

    async def find(self, prompt: Prompt) -> tuple[str, int] | None:
        """See `Placements`."""
        asked = list(zip(prompt.hashes, prompt.ends, strict=True))
        asked = [*asked[1:2], *asked[max(2, len(asked) - _NUM_ASKED) :]]
        with contextlib.suppress(*_SILENT):
            found = await self._client.mget([_key(part) for part, _ in asked])
            for name, (_, end) in zip(reversed(found), reversed(asked), strict=True):
                if name is not None:
                    return name.decode() if isinstance(name, bytes) else name, end
        return None

    async def put(self, prompt: Prompt, replica: str) -> None:
        """See `Placements`. The first part behind the root is kept too: agents rewrite what is behind it."""
        with contextlib.suppress(*_SILENT):
            pipe = self._client.pipeline(transaction=False)
            for part in {prompt.hashes[min(1, len(prompt.hashes) - 1)], prompt.hashes[-1]}:
                pipe.set(_key(part), replica, ex=max(1, int(self._ttl_s)))
            await pipe.execute()

    async def share(self, queued: Mapping[str, float]) -> dict[str, float]:
        """See `Placements`."""
        others: dict[str, float] = {}
        with contextlib.suppress(*_SILENT):
            now_s = time.time()
            await self._client.hset(f"{_PREFIX}:load", self._id, msgspec.json.encode((now_s, dict(queued))))
            await self._client.expire(f"{_PREFIX}:load", _LOAD_KEPT_S)
            for who, raw in (await self._client.hgetall(f"{_PREFIX}:load")).items():
                at_s, loads = msgspec.json.decode(raw, type=tuple[float, dict[str, float]])
                if now_s - at_s > _LOAD_KEPT_S:
                    await self._client.hdel(f"{_PREFIX}:load", who)  # a proxy that has ended
                elif who != self._id.encode() and now_s - at_s < _LOAD_TTL_S:
                    for name, tokens in loads.items():
                        others[name] = others.get(name, 0.0) + tokens
        return others

    async def aclose(self) -> None:
        """See `Placements`."""
        with contextlib.suppress(*_SILENT):
            await self._client.aclose()


def _key(part: bytes) -> str:
    return f"{_PREFIX}:{part.hex()}"
