"""Answers requests out of what was kept, and lets twins that come at once share one call of the upstream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluice.proxy.answers.flight import Flight
from sluice.proxy.answers.kept import Kept, keep
from sluice.proxy.answers.store import AnswerStore
from sluice.proxy.headers import Header
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter.turn import Source
from sluice.proxy.upstreams import Answer, RoutedAnswer
from sluice.proxy.wire.types import WireName


class SourcedAnswer(Answer, Protocol):
    """An answer that says where it came from."""

    @property
    def source(self) -> Source:
        """Where it came from; final once it is closed."""
        ...

    @property
    def upstream(self) -> str:
        """Name of the upstream that gave it, then or now; empty where that is not known."""
        ...

    @property
    def num_retries(self) -> int:
        """How often the request was sent again."""
        ...

    @property
    def sluice_headers(self) -> Sequence[Header]:
        """Headers that tell the client where it came from."""
        ...


@dataclass(eq=False)
class _Pending:
    """A call of the upstream that has not been answered, and those who wait for it."""

    outcome: asyncio.Future[Flight | None]
    """The flight; None where each has to go on by itself. Cancelled where the call failed: somebody else may try."""
    num_waiting: int = 0


class Answers:
    """The exact prompt cache of one process, on a store that others may share.

    Args:
        store: where answers are kept. Closed with this.
        max_answer_bytes: longest answer that is kept or shared.
        clock: the wall clock, in seconds.
    """

    def __init__(
        self, store: AnswerStore, max_answer_bytes: int = 2**20, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._max_answer_bytes = max_answer_bytes
        self._clock = clock
        self._pending: dict[bytes, _Pending] = {}
        self._flights: dict[bytes, Flight] = {}

    async def fetch(
        self, key: bytes, wire: WireName, send: Callable[[], Awaitable[RoutedAnswer]], *, may_take: bool = True
    ) -> SourcedAnswer:
        """Answer a request: from what was kept, from a twin's call, or by a call of its own.

        Args:
            key: names the request.
            wire: its format.
            send: calls the upstream. Cancelled where this is.
            may_take: whether an answer that was kept, or is under way, will do.

        Raises:
            UpstreamError: the call failed.
        """
        if may_take and (kept := await self._store.get(key)) is not None:
            return _Replay(kept)
        while may_take:
            if (flight := self._flights.get(key)) is not None and flight.is_joinable and flight.error is None:
                return flight.reader(Source.SHARED)
            if (pending := self._pending.get(key)) is None:
                break
            try:
                joined = await _join(pending)
            except _CallFailedError:
                continue  # whoever is first here makes the call again
            return joined if joined is not None else Unshared(await send())
        if key in self._pending or key in self._flights:
            return Unshared(await send())
        return await self._lead(key, wire, send)

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    async def _lead(self, key: bytes, wire: WireName, send: Callable[[], Awaitable[RoutedAnswer]]) -> SourcedAnswer:
        """Call the upstream, for whoever asks the same meanwhile as well."""
        pending = self._pending[key] = _Pending(asyncio.get_running_loop().create_future())
        try:
            answer = await send()
        except BaseException:
            pending.outcome.cancel()
            raise
        finally:
            del self._pending[key]
        if answer.status != 200:
            # Each gets an error of its own: waiting for one another's would only be slower.
            pending.outcome.set_result(None)
            return Unshared(answer)

        async def on_whole(chunks: Sequence[bytes]) -> None:
            try:
                kept = keep(wire, answer.headers, chunks, self._clock())
                if kept is not None:
                    await self._store.put(key, kept)
            except Exception as error:  # whoever reads it has a whole answer all the same
                logger.error(fields("answer_not_kept", error=where(error)))

        flight = self._flights[key] = Flight(answer, self._max_answer_bytes, on_whole, lambda: self._ended(key, flight))
        for _ in range(pending.num_waiting):
            flight.coming()
        reader = flight.reader(Source.UPSTREAM)
        pending.outcome.set_result(flight)
        return reader

    def _ended(self, key: bytes, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _join(pending: _Pending) -> SourcedAnswer | None:
    """Wait for a twin's call and read along; None where its answer is not for sharing.

    Raises:
        _CallFailedError: the call failed, or whoever made it hung up.
    """
    pending.num_waiting += 1
    try:
        await asyncio.wait((pending.outcome,))
        if pending.outcome.cancelled():
            raise _CallFailedError
        flight = pending.outcome.result()
        if flight is None:
            return None
        if flight.error is not None:
            raise _CallFailedError
        return flight.reader(Source.SHARED)
    finally:
        if not pending.outcome.done():
            pending.num_waiting -= 1
        elif not pending.outcome.cancelled() and (found := pending.outcome.result()) is not None:
            found.gone()


class Unshared:
    """An answer of the upstream for one reader.

    Args:
        answer: the upstream's.
    """

    source = Source.UPSTREAM

    def __init__(self, answer: RoutedAnswer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.upstream = answer.upstream
        self.num_retries = answer.num_retries
        self.sluice_headers: Sequence[Header] = answer.sluice_headers
        self.read = answer.read
        self.close = answer.close


class _Replay:
    """An answer that was kept, in the chunks that it came in."""

    status = 200
    source = Source.HIT
    upstream = ""
    num_retries = 0
    sluice_headers: Sequence[Header] = ((b"x-sluice-answer", b"hit"),)

    def __init__(self, kept: Kept) -> None:
        self.headers: Sequence[Header] = kept.headers
        self._chunks = iter(kept.chunks)

    async def read(self) -> bytes:
        return next(self._chunks, b"")

    def close(self) -> None:
        self._chunks = iter(())


class _CallFailedError(Exception):
    """The call that was waited for failed, or whoever made it hung up."""
