"""A Redis that may fail: operations are bounded in time, faults are `StateError`, and a dead one costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from sluice.compressor.errors import StateError, StateRefusedError
from sluice.proxy.breaker import Breaker

T = TypeVar("T")

_LATE_S = 0.02
"""Where a timer comes later than this, the process had no time, and nothing is said about Redis."""
_MAX_WAITS = 4
KEY_PREFIX = b"sluice:1:"
"""The number is the version of the layout. Proxy keys and the tenants' secret, which never expire, stand under it, too:
what changes its form changes its own version (`ledger.RECORD_VERSION`), and what cannot be read counts as lost."""


class RedisClient:
    """A pool of connections to one Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: longest wait for one operation, connecting included, in seconds.
        breaker: decides whether a Redis that failed is asked again.
    """

    def __init__(self, url: str, *, timeout_s: float, breaker: Breaker | None = None) -> None:
        self._timeout_s = timeout_s
        self.breaker = breaker or Breaker()
        self._running: set[asyncio.Future[Any]] = set()
        self.redis: Redis = Redis.from_url(
            url,
            # Our own limit comes first, and tells a late Redis from a late process; theirs ends what is left.
            socket_timeout=2 * timeout_s + 1.0,
            socket_connect_timeout=2 * timeout_s + 1.0,
            # One more try, on a new connection: those in the pool may be older than the server.
            retry=Retry(NoBackoff(), 1),
            protocol=2,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    def pipeline(self) -> Pipeline:
        """Make a pipeline: one round trip, no transaction."""
        return self.redis.pipeline(transaction=False)

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation under the breaker and the time limit.

        Raises:
            StateRefusedError: Redis answered with an error.
            StateError: it failed, took too long, or was not tried.
        """
        if not self.breaker.admits():
            raise StateError("Redis failed a moment ago and is not asked again yet")
        # A task of its own, never cancelled: a reply that is left unread on a connection would be taken for the
        # next operation's. The client's own timeouts end it.
        task = asyncio.ensure_future(operation())
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            await _in_time(task, self._timeout_s)
            result = task.result()
        except ResponseError as error:
            # It is there and answers, so that what it holds can still be had: full, read-only, out of disk.
            self.breaker.succeeded()
            raise StateRefusedError(f"Redis: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            self.breaker.failed()
            detail = str(error) or f"no answer within {self._timeout_s:g} s"
            raise StateError(f"Redis: {detail}") from error
        self.breaker.succeeded()
        return result

    async def aclose(self) -> None:
        """Close all connections, once what is running has ended."""
        if self._running:
            await asyncio.wait(self._running)
        await self.redis.aclose()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waited for it has been told, or is gone


async def _in_time(task: asyncio.Future[Any], timeout_s: float) -> None:
    """Wait for an operation.

    Raises:
        TimeoutError: it takes too long, of time that this process had for it.
    """
    clock = asyncio.get_running_loop().time
    for _ in range(_MAX_WAITS):
        due_s = clock() + timeout_s
        await asyncio.wait((task,), timeout=timeout_s)
        if task.done():
            return
        if clock() - due_s < _LATE_S:
            break
    raise TimeoutError
