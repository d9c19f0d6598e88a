"""What the pages list: conversations sorted and searched, the saving by group, the latest rewrites.

What takes a look at all conversations (orders but the newest first, searches, comparisons) is answered from a snapshot
that is some seconds old, so that any number of open pages cost one read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sluice.proxy.meter import StatsReader
from sluice.proxy.meter.holdout import Comparison
from sluice.proxy.meter.stats import compare_by
from sluice.proxy.meter.store import Conversation, TurnRow
from sluice.proxy.meter.turn import day_of

_COMPARISON_LIFE_S = 60.0
_COMPARISON_WAIT_S = 0.2
_MAX_GROUPS = 12
_MAX_COMPARED = 256
"""Keys whose comparison is remembered."""
_MAX_REWRITTEN = 20
"""Conversations whose rewrites are listed, of the newest `_NUM_LOOKED_AT`."""
_NUM_LOOKED_AT = 200
_MAX_POINTS = 40
"""Of a sparkline."""

SORTS: Mapping[str, Callable[[Conversation], float]] = {
    "recent": lambda one: one.about.last_at_s,
    "cost": lambda one: one.sums.get("cost", 0.0),
    "saved": lambda one: one.sums.get("cost_untouched", 0.0) - one.sums.get("cost", 0.0),
    "turns": lambda one: one.sums.get("turns", 0.0),
    "tokens": lambda one: one.sums.get("tokens_in", 0.0),
}
"""Orders of the list, the largest first."""


class Rewritten(msgspec.Struct, frozen=True):
    """One rewrite of a conversation's history."""

    conversation: str
    at_s: float
    reason: str
    idle_s: float | None
    """Seconds since the turn before; None where that is not known."""
    tokens_before: int
    """That were forwarded on the turn before."""
    tokens_after: int


class _Compared(NamedTuple):
    at_s: float
    groups: dict[str, dict[str, Comparison]]


class Reader:
    """Reads the meter for the pages.

    Args:
        stats: what is read.
        clock: seconds, monotonic.
    """

    def __init__(self, stats: StatsReader, clock: Callable[[], float] = time.monotonic) -> None:
        self._stats = stats
        self._clock = clock
        self._compared: dict[str | None, _Compared] = {}
        self._comparing: dict[str | None, asyncio.Task[None]] = {}

    async def page(
        self, start: int, limit: int, sort: str, query: str, titles: Mapping[str, str], key: str | None = None
    ) -> tuple[list[Conversation], int]:
        """Some of the conversations, and how many there are.

        Args:
            start: how many to pass over.
            limit: how many to give.
            sort: a key of `SORTS`.
            query: words that id, model, key, mode, upstream or title must hold; empty takes all.
            titles: of those conversations whose content may be seen.
            key: under which they ran; None: any.
        """
        if key is None and sort == "recent" and not query.strip():
            return await self._stats.conversations(start, limit), await self._stats.num_conversations()
        found: Sequence[Conversation] = await self._stats.recent(key)
        if words := query.lower().split():
            found = [one for one in found if all(word in _haystack(one, titles) for word in words)]
        if sort != "recent":
            found = sorted(found, key=SORTS[sort], reverse=True)
        return list(found[start : start + limit]), len(found)

    async def sizes(self, conversations: Sequence[Conversation]) -> list[tuple[list[int], list[int]]]:
        """For each conversation the tokens that came in and that were forwarded over its turns, thinned out."""
        turns = await asyncio.gather(*(self._stats.turns(one.id) for one in conversations))
        return [_thinned(rows) for rows in turns]

    async def measured(self, key: str | None = None) -> dict[str, dict[str, Comparison]]:
        """The saving against the holdout by day (of the first turn), model and key, where both arms hold something.

        Never waited for: thousands of resamples take a moment, and the next look finds them.
        """
        found = self._compared.get(key, _Compared(-_COMPARISON_LIFE_S, {}))
        if self._clock() - found.at_s < _COMPARISON_LIFE_S:
            return found.groups
        if key not in self._comparing:
            task = asyncio.get_running_loop().create_task(self._compare(key), name="sluice-compare")
            self._comparing[key] = task
            task.add_done_callback(lambda _: self._comparing.pop(key, None))
        await asyncio.wait((self._comparing[key],), timeout=_COMPARISON_WAIT_S)
        return self._compared.get(key, found).groups

    async def aclose(self) -> None:
        """Wait for what is being compared."""
        if self._comparing:
            await asyncio.wait(self._comparing.values())

    async def _compare(self, key: str | None) -> None:
        groups = await asyncio.to_thread(_compare, await self._stats.recent(key))
        self._compared[key] = _Compared(self._clock(), groups)
        while len(self._compared) > _MAX_COMPARED:
            del self._compared[next(iter(self._compared))]

    async def rewritten(self, key: str | None = None) -> list[Rewritten]:
        """The latest rewrites, newest first."""
        newest = await self._stats.conversations(0, _NUM_LOOKED_AT, key)
        found = [one for one in newest if one.sums.get("epochs", 0) > 0][:_MAX_REWRITTEN]
        turns = await asyncio.gather(*(self._stats.turns(one.id) for one in found))
        all_of_them = [each for one, rows in zip(found, turns, strict=True) for each in rewrites_of(one.id, rows)]
        return sorted(all_of_them, key=lambda each: -each.at_s)[:_MAX_REWRITTEN]


def rewrites_of(conversation: str, rows: Sequence[TurnRow]) -> list[Rewritten]:
    """The rewrites among a conversation's turns, in order."""
    found = []
    for index, row in enumerate(rows):
        if row.epoch is not None:
            before = rows[index - 1] if index else None
            idle_s = row.at_s - before.at_s if before is not None else None
            num_before = before.tokens_out if before is not None else 0
            found.append(Rewritten(conversation, row.at_s, row.epoch, idle_s, num_before, row.tokens_out))
    return found


def _compare(found: Sequence[Conversation]) -> dict[str, dict[str, Comparison]]:
    return {
        "day": compare_by(found, lambda one: day_of(one.first_at_s), _MAX_GROUPS),
        "model": compare_by(found, lambda one: one.about.model, _MAX_GROUPS),
        "key": compare_by(found, lambda one: one.about.key, _MAX_GROUPS),
    }


def _haystack(one: Conversation, titles: Mapping[str, str]) -> str:
    about = one.about
    words = (one.id, about.model, about.key, about.mode, about.arm, about.upstream, titles.get(one.id, ""))
    return " ".join(words).lower()


def _thinned(rows: Sequence[TurnRow]) -> tuple[list[int], list[int]]:
    rows = [row for row in rows if row.tokens_in]
    step = max(1, -(-len(rows) // _MAX_POINTS))
    chosen = rows[::-step][::-1]  # the newest is always among them
    return [row.tokens_in for row in chosen], [row.tokens_out for row in chosen]
