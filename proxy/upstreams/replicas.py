"""Several replicas of one model as one upstream: each request goes where its prefix is, or on to another that lives.

The choice is `sluice.backend.router`'s. A request is sent elsewhere only while nothing of its answer was handed on: an
answer is handed on once its first bytes are there. Knows no wire format but the error that an event stream begins with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sluice.proxy.errors import (
    UpstreamConnectTimeoutError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamPoolTimeoutError,
    UpstreamUnreachableError,
)
from sluice.proxy.headers import Header
from sluice.proxy.log import fields, logger
from sluice.proxy.upstreams.answers import BegunAnswer
from sluice.proxy.upstreams.http import HttpUpstream
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.types import Answer

if TYPE_CHECKING:
    from sluice.backend.router.placements import Placements
    from sluice.backend.router.replicas import ReplicaSet

_FAILED_STATUSES = frozenset({500, 502, 503, 504})
"""What a replica says whose engine is dead, or that can take no more."""
_MAX_FAILED_ANSWERS = 1
"""So many such answers are taken for the replica's fault; the next is taken for the request's, and handed on."""
_DEAD = UpstreamUnreachableError | UpstreamDisconnectedError | UpstreamConnectTimeoutError
"""What a replica that is gone looks like."""
_MAX_DROPPED = 2
"""So many replicas may die over one request; it may be the request that kills them."""
_ERROR_EVENT = b'data: {"error"'


class Upstream(Protocol):
    """What a request is sent to; see `HttpUpstream`."""

    origin: str

    async def send(self, method: str, path: str, headers: Sequence[Header], body: bytes = b"") -> Answer:
        """Send one request and return when the answer's head is there."""
        ...

    async def ping(self, path: str, *, must_be_ok: bool) -> None:
        """Return once it answers."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class ReplicaUpstream:
    """An upstream of several replicas.

    Args:
        origin: the ledger's name for all of them.
        replicas: their origins.
        limits: how long each step may take, for each.
        kv_events: where they publish their KV events, in the same order; empty: nowhere.
        health_path: what answers 200 while a replica is well.
        placements: shared with other proxies; None: there are none.
    """

    def __init__(
        self,
        origin: str,
        replicas: Sequence[str],
        limits: HttpLimits,
        *,
        kv_events: Sequence[str] = (),
        health_path: str = "/health",
        placements: Placements | None = None,
    ) -> None:
        # Here, as a proxy in front of hosted providers alone needs no backend.
        from sluice.backend.router.replicas import Replica, ReplicaSet

        self.origin = origin
        self._https = {url: HttpUpstream(url, limits) for url in replicas}
        self._set = ReplicaSet(
            [Replica(url, kv_events[index] if kv_events else None, health_path) for index, url in enumerate(replicas)],
            placements=placements,
            on_change=lambda line: logger.warning(fields("replica", note=line)),
        )
        self._started: asyncio.Task[None] | None = None

    @property
    def replicas(self) -> ReplicaSet:
        """The replicas, and what is known of them."""
        return self._set

    async def send(self, method: str, path: str, headers: Sequence[Header], body: bytes = b"") -> Answer:
        """Send one request to the replica that suits it, or to the next where that one fails; see `HttpUpstream`.

        Raises:
            UpstreamError: none of them answered; the last one's.
        """
        from sluice.backend.errors import NoReplicaError
        from sluice.backend.router import read_prompt

        await self._start()
        prompt = read_prompt(body) if body else None
        failed: list[str] = []
        stale: set[str] = set()
        num_failed_answers = num_dropped = 0
        error: UpstreamError = UpstreamUnreachableError(f"none of {len(self._https)} replicas answers")
        while True:
            try:
                route = await self._set.choose(prompt, exclude=failed)
            except NoReplicaError:
                raise error from None
            answer: Answer | None = None
            try:
                answer = await self._https[route.replica].send(method, path, headers, body)
                begun = _Begun(answer, await answer.read())
            except BaseException as caught:
                if answer is not None:
                    answer.close()
                self._set.begun(route)
                if not isinstance(caught, _DEAD | UpstreamPoolTimeoutError):
                    raise  # it was at work: whoever else gets this would be as long at it
                error = caught
                if caught.was_stale and route.replica not in stale:
                    stale.add(route.replica)  # the replica closed an idle connection: it is asked once more
                    continue
                failed.append(route.replica)
                if isinstance(caught, _DEAD):
                    self._set.lost(route.replica)
                num_dropped += isinstance(caught, UpstreamDisconnectedError)
                if num_dropped == _MAX_DROPPED:
                    raise
                continue
            if begun.has_failed and num_failed_answers < _MAX_FAILED_ANSWERS and len(failed) + 1 < len(self._https):
                num_failed_answers += 1
                failed.append(route.replica)
                begun.close()
                self._set.begun(route)
                continue
            self._set.begun(route, body if begun.status == 200 else b"")
            return begun

    async def ping(self, path: str, *, must_be_ok: bool) -> None:
        """Return once one replica answers; see `HttpUpstream`.

        Raises:
            UpstreamError: none does; the first one's.
        """
        asked = [asyncio.create_task(http.ping(path, must_be_ok=must_be_ok)) for http in self._https.values()]
        try:
            errors: list[BaseException] = []
            for done in asyncio.as_completed(asked):
                try:
                    await done
                except UpstreamError as error:
                    errors.append(error)
                else:
                    return
            raise errors[0]
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._started is not None:
            await self._started
        await self._set.aclose()
        for http in self._https.values():
            await http.aclose()

    async def _start(self) -> None:
        """Learn what is well, once; those who come meanwhile wait for it."""
        if self._started is None:
            self._started = asyncio.create_task(self._set.start())
        await asyncio.shield(self._started)


class _Begun(BegunAnswer):
    """An answer whose first bytes are there."""

    def __init__(self, answer: Answer, first: bytes) -> None:
        super().__init__(answer, first)
        self.has_failed = answer.status in _FAILED_STATUSES or (answer.status == 200 and first.startswith(_ERROR_EVENT))
