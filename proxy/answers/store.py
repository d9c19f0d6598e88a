"""Where answers are kept: the interface, and the store in this process. A store that fails is an empty cache."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from sluice.proxy.answers.kept import Kept

_ENTRY_BYTES = 500
"""What an entry takes beside its body, about."""


class AnswerStore(Protocol):
    """Keeps answers for their time."""

    async def get(self, key: bytes) -> Kept | None:
        """The answer under this key; None where there is none, or the store does not answer."""
        ...

    async def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer; where the store does not answer, it is not kept."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class MemoryAnswers:
    """Answers in this process.

    Args:
        ttl_s: seconds for which an answer is kept.
        max_bytes: of all together; those used longest ago go first.
        clock: the wall clock, in seconds.
    """

    def __init__(self, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._num_bytes = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    async def get(self, key: bytes) -> Kept | None:
        """See `AnswerStore`."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept.at_s >= self._ttl_s:
            self._drop(key)
            return None
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    async def put(self, key: bytes, kept: Kept) -> None:
        """See `AnswerStore`."""
        self._drop(key)
        self._kept[key] = kept
        self._num_bytes += kept.num_bytes + _ENTRY_BYTES
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    async def aclose(self) -> None:
        """See `AnswerStore`."""

    def _drop(self, key: bytes) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._num_bytes -= kept.num_bytes + _ENTRY_BYTES
