"""What became of each window, kept in the state store: its logits, or that its lines were scored by their features.

Whoever finds a window there does as was done before, so that a decision that is made again comes out the same. Kept
under a digest of what the model reads and of its version; first come, first kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np

from sluice.compressor.errors import StateError
from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.compressor.state import StateStore

logger = logging.getLogger(__name__)

_SCORED, _FELL_BACK = b"s", b"f"
_NUMBER = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a window."""

    logits: Floats | None
    """None: its lines were scored by their features."""


def key_of(window: Window, version: str) -> bytes:
    """Under which a window's outcome is kept, 16 bytes; it tells nothing of what the window holds."""
    return blake2b(window.key + version.encode(), digest_size=16, person=b"sluice-score").digest()


def rounded(logits: Floats) -> Floats:
    """Logits as they are kept: whoever uses them first has to use these, or what is found later is not the same."""
    return logits.astype(_NUMBER).astype(np.float32)


def encode(outcome: Outcome) -> bytes:
    """The record of an outcome."""
    return _FELL_BACK if outcome.logits is None else _SCORED + outcome.logits.astype(_NUMBER).tobytes()


def decode(record: bytes, num_lines: int) -> Outcome | None:
    """The outcome in a record; None where it is none for so many lines."""
    if record == _FELL_BACK:
        return Outcome(None)
    if record[:1] != _SCORED or len(record) != 1 + num_lines * len(HEADS) * _NUMBER.itemsize:
        return None
    return Outcome(np.frombuffer(record, _NUMBER, offset=1).astype(np.float32).reshape(num_lines, len(HEADS)))


class ScoreCache(Protocol):
    """Keeps records. Its methods return at once and may be called from any thread."""

    def get_many(self, keys: Sequence[bytes]) -> Future[list[bytes | None]]:
        """The records under these keys; `StateError` where that cannot be told."""
        ...

    def put_new(self, records: Mapping[bytes, bytes]) -> None:
        """Keep what is not there yet; one that cannot be kept is forgotten."""
        ...


class StoreCache:
    """Keeps records in a state store, which lives on an event loop.

    Args:
        store: where they are kept, as long as the ledger's.
        loop: on which the store is used.
    """

    def __init__(self, store: StateStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def get_many(self, keys: Sequence[bytes]) -> Future[list[bytes | None]]:
        """See `ScoreCache`."""
        if self._loop.is_closed():
            nothing: Future[list[bytes | None]] = Future()
            nothing.set_result([None] * len(keys))
            return nothing
        return asyncio.run_coroutine_threadsafe(self._store.get_many(keys), self._loop)

    def put_new(self, records: Mapping[bytes, bytes]) -> None:
        """See `ScoreCache`."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._put(records), self._loop)

    async def _put(self, records: Mapping[bytes, bytes]) -> None:
        try:
            await self._store.put_new(records)
        except StateError as error:
            logger.warning("state store lost on scores: %s", error)
