"""Keys and counts in Redis, for several proxies: one round trip each. Decides by the arithmetic of `limits.py`.

While Redis is lost, limits let every request in, and keys that it has told before stay good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from pydantic import ValidationError

from sluice.compressor.errors import StateError
from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.access.limits import BURST_S, budget_error, budgets_of, rate_error
from sluice.proxy.errors import KeysUnavailableError
from sluice.proxy.log import fields, logger
from sluice.proxy.state.client import KEY_PREFIX, RedisClient

_HASH = KEY_PREFIX + b"keys"
_MAX_REMEMBERED = 10_000


class RedisKeys:
    """Keys in Redis, for several proxies.

    Args:
        client: closed by whoever made it.
        fresh_s: seconds for which a key is not asked for again; a key that is removed works for as long.
        clock: seconds, monotonic.
    """

    def __init__(
        self, client: RedisClient, *, fresh_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._fresh_s = fresh_s
        self._clock = clock
        self._seen: dict[str, tuple[float, ProxyKey]] = {}

    async def find(self, key_id: str) -> ProxyKey | None:
        """See `KeySource`. While Redis is lost, keys that it has told stay good, and others cannot be told."""
        seen_at, seen = self._seen.get(key_id, (0.0, None))
        if seen is not None and self._clock() - seen_at < self._fresh_s:
            return seen
        get = cast("Callable[[bytes, str], Awaitable[bytes | None]]", self._client.redis.hget)
        try:
            data = await self._client.run(lambda: get(_HASH, key_id))
        except StateError:
            if seen is None:
                raise KeysUnavailableError from None
            return seen
        if data is None:
            self._seen.pop(key_id, None)
            return None
        if (key := _read(key_id, data)) is None:
            return None
        if len(self._seen) >= _MAX_REMEMBERED:
            self._seen.clear()
        self._seen[key_id] = (self._clock(), key)
        return key

    async def list(self) -> Sequence[ProxyKey]:
        """All keys.

        Raises:
            StateError: Redis does not answer.
        """
        get_all = cast("Callable[[bytes], Awaitable[dict[bytes, bytes]]]", self._client.redis.hgetall)
        found = await self._client.run(lambda: get_all(_HASH))
        read = [key for key_id, data in found.items() if (key := _read(key_id.decode(), data)) is not None]
        return sorted(read, key=lambda key: key.name)

    async def add(self, key: ProxyKey) -> None:
        """Keep a key.

        Raises:
            StateError: Redis does not answer.
        """
        put = cast("Callable[[bytes, str, str], Awaitable[int]]", self._client.redis.hset)
        await self._client.run(lambda: put(_HASH, key.id, key.model_dump_json(exclude_none=True)))

    async def remove(self, key_id: str) -> bool:
        """Forget a key; whether it was there.

        Raises:
            StateError: Redis does not answer.
        """
        delete = cast("Callable[[bytes, str], Awaitable[int]]", self._client.redis.hdel)
        return bool(await self._client.run(lambda: delete(_HASH, key_id)))


def _read(key_id: str, data: bytes) -> ProxyKey | None:
    try:
        return ProxyKey.model_validate_json(data)
    except ValidationError:  # of another version, say
        logger.warning(fields("key_not_readable", key=key_id))
        return None


# KEYS: the rate's, then one for each budget. ARGV: seconds a request, seconds of burst, then each budget's limit.
# Returns {0} or {number of the budget, or -1 for the rate, seconds to wait}.
_ADMIT = """
for i = 2, #KEYS do
  if tonumber(redis.call('GET', KEYS[i]) or '0') >= tonumber(ARGV[i + 1]) then return {i - 1, '0'} end
end
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
if step > 0 then
  local t = redis.call('TIME')
  local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
  burst = math.max(burst, step)
  local full = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now), now + burst)
  local wait = full + step - now - burst
  if wait <= 0.000002 then full = full + step end
  redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1)
  if wait > 0.000002 then return {-1, tostring(wait)} end
end
return {0, '0'}
"""


class RedisLimits:
    """Counts in Redis, for several proxies; one round trip a request. While it is lost, every request is let in.

    Args:
        client: closed by whoever made it.
        clock: seconds since the epoch; the rate goes by Redis' own.
    """

    def __init__(self, client: RedisClient, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._script = client.redis.register_script(_ADMIT)
        self._is_lost = False

    async def admit(self, key: ProxyKey) -> None:
        """See `Limits`."""
        budgets = budgets_of(key, self._clock())
        if not budgets and key.requests_per_minute is None:
            return
        step = 60.0 / key.requests_per_minute if key.requests_per_minute is not None else 0.0
        names = [_name(f"{key.id}:rate"), *(_name(budget.counter) for budget in budgets)]
        values = [step, BURST_S, *(budget.limit for budget in budgets)]
        script = cast(Any, self._script)
        try:
            verdict, wait_s = await self._client.run(lambda: script(keys=names, args=values))
        except StateError as error:
            if not self._is_lost:
                logger.warning(fields("limits_not_checked", reason=error, effect="all requests are let in meanwhile"))
            self._is_lost = True
            return
        if self._is_lost:
            logger.warning(fields("limits_checked_again"))
        self._is_lost = False
        if verdict > 0:
            raise budget_error(key, budgets[verdict - 1])
        if verdict < 0:
            raise rate_error(key, float(wait_s))

    async def spend(self, key: ProxyKey, *, tokens: int, dollars: float) -> None:
        """See `Limits`. What cannot be noted is lost."""
        budgets = budgets_of(key, self._clock())
        if not budgets:
            return
        pipe = self._client.pipeline()
        for budget in budgets:
            pipe.incrbyfloat(_name(budget.counter), tokens if budget.unit == "tokens" else dollars)
            pipe.expire(_name(budget.counter), int(budget.ends_in_s) + 3600)
        try:
            await self._client.run(pipe.execute)
        except StateError as error:
            level = logging.DEBUG if self._is_lost else logging.WARNING  # said once, by `admit`
            logger.log(level, fields("spending_not_noted", key=key.id, reason=error))


def _name(counter: str) -> bytes:
    return KEY_PREFIX + b"l:" + counter.encode()
