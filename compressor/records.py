"""The ledger's records in a store: looked up in one round trip, read once, found again behind a changed message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sluice.compressor import ledger
from sluice.compressor.errors import StateError
from sluice.compressor.ledger import Rendition
from sluice.compressor.lru import LRU
from sluice.compressor.state import StateStore

logger = logging.getLogger(__name__)


class Records:
    """Reads records.

    Args:
        store: where they are.
        timeout_s: how long a look-up may take, in seconds.
        max_renditions: renditions that are kept as they were read.
    """

    def __init__(self, store: StateStore, timeout_s: float, max_renditions: int) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._renditions: LRU[bytes, tuple[bytes, Rendition]] = LRU(max_renditions)

    async def look_up(self, hashes: list[bytes]) -> tuple[list[bytes | None], bool]:
        """The records under these keys, and whether the store failed to say."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._store.get_many(hashes), False
        except StateError as error:
            logger.warning("state store lost on look-up: %s", error)
            return [error.known.get(key) for key in hashes], True
        except TimeoutError:
            logger.warning("state store gave no answer in %.1f s", self._timeout_s)
            return [None] * len(hashes), True

    def read(self, key: bytes, record: bytes | None) -> Rendition | None:
        """What a record holds; read once in a process."""
        if record is None:
            return None
        known = self._renditions.get(key)
        if known is not None and known[0] == record:
            return known[1]
        rendition = ledger.decode(record)
        if rendition is not None:
            self._renditions.put(key, (record, rendition))
        return rendition

    async def find_again(
        self, records: list[Rendition | None], hashes: Sequence[bytes], identities: Sequence[bytes]
    ) -> list[Rendition | None]:
        """The records, and those of messages that stand where they stood, behind one that the client changed."""
        missing = [index for index, record in enumerate(records) if record is None]
        keys, _ = await self.look_up([ledger.place(hashes[0], index, identities[index]) for index in missing])
        wanted = {index: key for index, key in zip(missing, keys, strict=True) if key is not None}
        found, _ = await self.look_up(list(wanted.values()))
        records = list(records)
        for index, record in zip(wanted, found, strict=True):
            records[index] = ledger.decode(record) if record else None
        return records
