"""Reads what the meter recorded, for `/v1/stats` and dashboards; from this process where the shared store is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sluice.compressor import StateError
from sluice.proxy.meter.holdout import Comparison
from sluice.proxy.meter.meter import Meter
from sluice.proxy.meter.stats import Stats, compare_conversations, days_until, stats_of
from sluice.proxy.meter.store import MAX_CONVERSATIONS, Conversation, MeterStore, TurnRow

T = TypeVar("T")

_RECENT_LIFE_S = 10.0
_COMPARISON_LIFE_S = 30.0
_MAX_COMPARED = 256
"""Keys whose comparison is remembered."""


class StatsReader:
    """Reads one meter. Whoever has a proxy key is told of what ran under that key; `key` None is everything.

    Args:
        meter: what is read; what it recorded so far is always in what is returned.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._compared: dict[str | None, tuple[float, Comparison]] = {}
        self._taking = asyncio.Lock()
        self._taken: tuple[float, list[Conversation]] | None = None

    async def stats(self, num_days: int, key: str | None = None) -> Stats:
        """Everything at a glance, over so many days up to today (UTC)."""
        days = days_until(datetime.now(UTC).date(), num_days)

        async def read(store: MeterStore) -> Stats:
            scope = "this process" if store is self._meter.local else "all workers"
            cells = await store.sums(days)
            if key is not None:
                cells = {cell: sums for cell, sums in cells.items() if cell.key == key}
            comparison = await self._comparison(store, key)
            return stats_of(cells, comparison, since=days[0], until=days[-1], scope=scope)

        return await self._read(read)

    async def conversations(self, start: int, limit: int, key: str | None = None) -> list[Conversation]:
        """Recent conversations, by their last turn, newest first."""
        if key is not None:
            return (await self.recent(key))[start : start + limit]
        return await self._read(lambda store: store.conversations(start, limit))

    async def recent(self, key: str | None = None) -> list[Conversation]:
        """All recent conversations, as of some seconds ago, so that any number of readers cost one read."""
        async with self._taking:
            now_s = time.monotonic()
            if self._taken is None or now_s - self._taken[0] > _RECENT_LIFE_S:
                self._taken = now_s, await self._read(lambda store: store.conversations(0, MAX_CONVERSATIONS))
            found = self._taken[1]
        return found if key is None else [one for one in found if one.about.key == key]

    async def num_conversations(self) -> int:
        """How many conversations there are."""
        return await self._read(lambda store: store.num_conversations())

    async def conversation(self, name: str, key: str | None = None) -> Conversation | None:
        """One conversation; None where it is not known, or another key's."""
        found = await self._read(lambda store: store.conversation(name))
        return found if found is None or key in (None, found.about.key) else None

    async def turns(self, conversation: str, key: str | None = None) -> Sequence[TurnRow]:
        """The newest turns of a conversation, in order; none where it is not known, or another key's."""
        if key is not None and await self.conversation(conversation, key) is None:
            return ()
        return await self._read(lambda store: store.turns(conversation))

    async def _read(self, read: Callable[[MeterStore], Awaitable[T]]) -> T:
        store = await self._meter.reading()
        try:
            return await read(store)
        except StateError:
            return await read(self._meter.local)

    async def _comparison(self, store: MeterStore, key: str | None) -> Comparison:
        """The arms compared, at most every half minute: to read and to draw from ten thousand takes a moment."""
        now_s = time.monotonic()
        at_s, compared = self._compared.get(key, (-_COMPARISON_LIFE_S, None))
        if compared is None or now_s - at_s > _COMPARISON_LIFE_S:
            recent = await store.conversations(0, MAX_CONVERSATIONS)
            own = recent if key is None else [one for one in recent if one.about.key == key]
            compared = await asyncio.to_thread(compare_conversations, own)
            self._compared[key] = now_s, compared
            while len(self._compared) > _MAX_COMPARED:
                del self._compared[next(iter(self._compared))]
        return compared
