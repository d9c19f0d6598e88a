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

_COMPARISON_LIFE_S = 30.0


class StatsReader:
    """Reads one meter.

    Args:
        meter: what is read; what it recorded so far is always in what is returned.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._compared: tuple[float, Comparison] | None = None

    async def stats(self, num_days: int) -> Stats:
        """Everything at a glance, over so many days up to today (UTC)."""
        days = days_until(datetime.now(UTC).date(), num_days)

        async def read(store: MeterStore) -> Stats:
            scope = "this process" if store is self._meter.local else "all workers"
            cells = await store.sums(days)
            comparison = await self._comparison(store)
            return stats_of(cells, comparison, since=days[0], until=days[-1], scope=scope)

        return await self._read(read)

    async def conversations(self, start: int, limit: int) -> list[Conversation]:
        """Recent conversations, by their last turn, newest first."""
        return await self._read(lambda store: store.conversations(start, limit))

    async def num_conversations(self) -> int:
        """How many conversations there are."""
        return await self._read(lambda store: store.num_conversations())

    async def conversation(self, name: str) -> Conversation | None:
        """One conversation; None where it is not known."""
        return await self._read(lambda store: store.conversation(name))

    async def turns(self, conversation: str) -> Sequence[TurnRow]:
        """The newest turns of a conversation, in order; none where it is not known."""
        return await self._read(lambda store: store.turns(conversation))

    async def _read(self, read: Callable[[MeterStore], Awaitable[T]]) -> T:
        store = await self._meter.reading()
        try:
            return await read(store)
        except StateError:
            return await read(self._meter.local)

    async def _comparison(self, store: MeterStore) -> Comparison:
        """The arms compared, at most every half minute: to read and to draw from ten thousand takes a moment."""
        now_s = time.monotonic()
        if self._compared is None or now_s - self._compared[0] > _COMPARISON_LIFE_S:
            recent = await store.conversations(0, MAX_CONVERSATIONS)
            self._compared = now_s, await asyncio.to_thread(compare_conversations, recent)
        return self._compared[1]
