"""Where requests and searches are kept to be looked at: the interface, and the store in this process."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from sluice.proxy.dashboard.kept import Summary

MAX_SEARCHES = 200


class Searched(msgspec.Struct, array_like=True, frozen=True):
    """One code search that was answered."""

    at_s: float
    root: str
    """The repository's name."""
    mode: str
    num_results: int
    num_tokens: int
    """Of all results together."""
    took_ms: float
    query: str | None = None
    """None where content is not kept."""
    tenant: bytes = b""
    """Whose it is."""


class WatchStore(Protocol):
    """Keeps the last request of recent conversations, and recent searches."""

    async def keep(self, summary: Summary, packed: bytes) -> None:
        """Keep a request in the place of the conversation's earlier one; the oldest conversations make room.

        One that is larger by itself than all may be together is not kept.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def request(self, conversation: str) -> tuple[Summary, bytes] | None:
        """The request that is kept of a conversation; None where none is.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def summaries(self) -> list[Summary]:
        """Of all requests that are kept, newest first.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def add_search(self, searched: Searched) -> None:
        """Note a search.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def searches(self) -> list[Searched]:
        """Recent searches, newest first.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class MemoryWatchStore:
    """A store in this process.

    Args:
        max_conversations: whose requests are kept.
        max_bytes: of all requests together, packed.
        ttl_s: seconds after which a request is forgotten.
        clock: the wall clock, in seconds.
    """

    def __init__(
        self, *, max_conversations: int, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_conversations = max_conversations
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._num_bytes = 0
        self._requests: OrderedDict[str, tuple[Summary, bytes]] = OrderedDict()
        self._searches: deque[Searched] = deque(maxlen=MAX_SEARCHES)

    async def keep(self, summary: Summary, packed: bytes) -> None:
        """See `WatchStore`. Never raises."""
        self._forget(summary.conversation)
        if len(packed) > self._max_bytes:
            return
        self._requests[summary.conversation] = summary, packed
        self._num_bytes += len(packed)
        while self._requests and (len(self._requests) > self._max_conversations or self._num_bytes > self._max_bytes):
            self._forget(next(iter(self._requests)))

    async def request(self, conversation: str) -> tuple[Summary, bytes] | None:
        """See `WatchStore`. Never raises."""
        self._expire()
        return self._requests.get(conversation)

    async def summaries(self) -> list[Summary]:
        """See `WatchStore`. Never raises."""
        self._expire()
        return [summary for summary, _ in reversed(self._requests.values())]

    async def add_search(self, searched: Searched) -> None:
        """See `WatchStore`. Never raises."""
        self._searches.appendleft(searched)

    async def searches(self) -> list[Searched]:
        """See `WatchStore`. Never raises."""
        return list(self._searches)

    async def aclose(self) -> None:
        """See `WatchStore`."""

    def _expire(self) -> None:
        since_s = self._clock() - self._ttl_s
        for name in [name for name, (summary, _) in self._requests.items() if summary.at_s < since_s]:
            self._forget(name)

    def _forget(self, conversation: str) -> None:
        if (held := self._requests.pop(conversation, None)) is not None:
            self._num_bytes -= len(held[1])
