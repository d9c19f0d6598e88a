"""`GET /v1/stats` and the recent conversations behind it, as JSON. Counts and ids, never content."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sluice.compressor import StateError
from sluice.proxy.errors import InvalidFieldError, UnknownConversationError
from sluice.proxy.meter.holdout import Comparison
from sluice.proxy.meter.meter import Meter
from sluice.proxy.meter.stats import Stats, compare_conversations, days_until, stats_of
from sluice.proxy.meter.store import MAX_CONVERSATIONS, MAX_DAYS, Conversation, MeterStore

T = TypeVar("T")

_COMPARISON_LIFE_S = 10.0
_SCOPES = {True: "all workers", False: "this process"}


class StatsRoutes:
    """The routes of one meter.

    Args:
        meter: what is read.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._compared: tuple[float, Comparison] | None = None

    async def stats(self, request: Request) -> Response:
        """`GET /v1/stats?days=30`.

        Raises:
            InvalidFieldError: `days` is no whole number in range.
        """
        num_days = _number(request, "days", 30, 1, MAX_DAYS)
        days = days_until(datetime.now(UTC).date(), num_days)
        store, is_shared = await self._meter.reading()
        try:
            found = await self._read(store, days, is_shared)
        except StateError:
            found = await self._read(self._meter.local, days, False)
        return _json(found)

    async def conversations(self, request: Request) -> Response:
        """`GET /v1/stats/conversations?start=0&limit=100`: the newest first.

        Raises:
            InvalidFieldError: a number is out of range.
        """
        start = _number(request, "start", 0, 0, MAX_CONVERSATIONS)
        limit = _number(request, "limit", 100, 1, 1_000)
        store, _ = await self._meter.reading()
        try:
            found = await store.conversations(start, limit)
        except StateError:
            found = await self._meter.local.conversations(start, limit)
        return _json({"conversations": found})

    async def conversation(self, request: Request) -> Response:
        """`GET /v1/stats/conversations/{id}`: the turns of one.

        Raises:
            UnknownConversationError: none is kept under this id.
        """
        name: str = request.path_params["conversation_id"]
        store, _ = await self._meter.reading()
        try:
            rows = await store.turns(name)
        except StateError:
            rows = await self._meter.local.turns(name)
        if not rows:
            raise UnknownConversationError(name)
        fields = type(rows[0]).__struct_fields__
        return _json({"id": name, "turns": [{field: getattr(row, field) for field in fields} for row in rows]})

    async def _read(self, store: MeterStore, days: list[str], is_shared: bool) -> Stats:
        cells = await store.sums(days)
        comparison = await self._comparison(store)
        return stats_of(cells, comparison, since=days[0], until=days[-1], scope=_SCOPES[is_shared])

    async def _comparison(self, store: MeterStore) -> Comparison:
        """The arms compared, at most every few seconds: a thousand resamples take a moment."""
        now_s = time.monotonic()
        if self._compared is None or now_s - self._compared[0] > _COMPARISON_LIFE_S:
            recent: list[Conversation] = await store.conversations(0, MAX_CONVERSATIONS)
            self._compared = now_s, await asyncio.to_thread(compare_conversations, recent)
        return self._compared[1]


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
        raise InvalidFieldError(f"{name} must be a whole number from {low} to {high}, not {text[:20]!r}", param=name)
    return int(text)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})
