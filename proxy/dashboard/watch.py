"""Notes what the dashboard shows beyond the meter's figures, behind the requests' backs.

`see` only notes a request, the newest of each conversation; it is packed in a thread and written by one task. What
cannot be written is lost: it is for looking at, and the next request of the conversation brings it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import NamedTuple

import msgspec

from sluice.backend.surrogates import whole
from sluice.compressor import StateError
from sluice.compressor.ledger import Omitted
from sluice.compressor.replies import runs
from sluice.compressor.turn import parse
from sluice.proxy.dashboard.kept import KeptMessage, KeptRequest, Summary, pack, summarize
from sluice.proxy.dashboard.store import Searched, WatchStore
from sluice.proxy.log import fields, logger, where
from sluice.proxy.prepared import Prepared
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES

_MAX_PENDING = 256
_MAX_REQUEST_BYTES = 32 * 2**20
"""Larger requests are not kept."""
_MAX_QUERY_CHARS = 500


class _Seen(NamedTuple):
    prepared: Prepared
    wire: WireName
    at_s: float


class Watch:
    """Keeps requests and searches to be looked at.

    Args:
        store: where. Closed with this.
        keeps_content: whether requests are kept, and what was searched for.
        pause_s: seconds over which requests are gathered: of a conversation's, only the last is written.
    """

    def __init__(self, store: WatchStore, *, keeps_content: bool, pause_s: float = 0.5) -> None:
        self.store = store
        self.keeps_content = keeps_content
        self._pause_s = pause_s
        self._requests: dict[str, _Seen] = {}
        self._searches: list[Searched] = []
        self._worker: asyncio.Task[None] | None = None
        self._working = asyncio.Lock()
        self._closing = asyncio.Event()

    def see(self, prepared: Prepared, wire: WireName, at_s: float) -> None:
        """Note a request that was answered. Returns at once and never raises."""
        compressed = prepared.compressed
        if not self.keeps_content or compressed is None or not compressed.conversation:
            return
        if len(self._requests) >= _MAX_PENDING and compressed.conversation not in self._requests:
            return
        self._requests[compressed.conversation] = _Seen(prepared, wire, at_s)
        self._wake()

    def searched(self, searched: Searched) -> None:
        """Note a search that was answered. Returns at once and never raises."""
        query = None
        if searched.query is not None and self.keeps_content:
            query = whole(searched.query[:_MAX_QUERY_CHARS])
        if len(self._searches) < _MAX_PENDING:
            self._searches.append(msgspec.structs.replace(searched, query=query))
        self._wake()

    async def flush(self) -> None:
        """Write what was noted so far."""
        async with self._working:
            requests, self._requests = self._requests, {}
            searches, self._searches = self._searches, []
            for searched in searches:
                await _attempt(self.store.add_search(searched))
            for seen in requests.values():
                await _attempt(self._keep(seen))

    async def aclose(self) -> None:
        """Write what is outstanding, once, and close."""
        self._closing.set()
        if self._worker is not None:
            await self._worker
        await self.flush()
        await self.store.aclose()

    async def _keep(self, seen: _Seen) -> None:
        if (packed := await asyncio.to_thread(_packed, seen)) is not None:
            await self.store.keep(*packed)

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="sluice-watch")

    async def _work(self) -> None:
        while (self._requests or self._searches) and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._closing.wait()
            await self.flush()


async def _attempt(writing: Awaitable[None]) -> None:
    """Write one thing; what is only looked at must cost nothing else, and none of the others."""
    try:
        await writing
    except StateError as error:
        logger.debug(fields("watch_store_lost", reason=error))
    except Exception as error:
        logger.error(fields("watch_failed", error=where(error)))


def _packed(seen: _Seen) -> tuple[Summary, bytes] | None:
    prepared, dialect = seen.prepared, WIRES[seen.wire].dialect
    assert prepared.parsed is not None
    assert prepared.compressed is not None
    assert dialect is not None
    came, went = prepared.parsed.messages, prepared.messages_out
    if sum(map(len, came)) > _MAX_REQUEST_BYTES or len(came) != len(went):
        return None
    roles = [parse(raw, dialect).role for raw in came]
    num_leading = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    omitted: list[tuple[Omitted, ...]] = [()] * len(came)
    messages_of = runs(roles[num_leading:])
    if len(messages_of) == len(prepared.compressed.renditions):
        for run, rendition in zip(messages_of, prepared.compressed.renditions, strict=True):
            omitted[num_leading + run.start] = rendition.omitted
    messages = tuple(
        KeptMessage(raw, None if out == raw else out, spans)
        for raw, out, spans in zip(came, went, omitted, strict=True)
    )
    summary = summarize(prepared.compressed.conversation, prepared.tenant, seen.at_s, came, went, dialect)
    return summary, pack(KeptRequest(seen.wire, num_leading, messages))
