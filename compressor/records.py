"""The ledger's records in a store: looked up in one round trip, read and written once, found again behind a change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto

from sluice.compressor import ledger
from sluice.compressor.errors import StateError
from sluice.compressor.ledger import Rendition
from sluice.compressor.lru import LRU
from sluice.compressor.state import StateStore
from sluice.compressor.turn import Turn

logger = logging.getLogger(__name__)


_BYTES_A_RENDITION = 1_000
"""What one takes as it was read, beside its texts."""


class Written(Enum):
    """What became of what was decided."""

    OURS = auto()
    """It is written."""
    THEIRS = auto()
    """Another worker had written something else, which stands."""
    NOT = auto()
    """The store did not answer."""


class Records:
    """Reads and writes records.

    Args:
        store: where they are.
        timeout_s: how long a look-up, or a write, may take, in seconds.
        max_rendition_bytes: how much of renditions is kept as it was read, by estimate; 0 keeps none.
        on_unreadable: called for each record that is there and cannot be read: damaged, or of another version.
    """

    def __init__(
        self,
        store: StateStore,
        timeout_s: float,
        max_rendition_bytes: int,
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._on_unreadable = on_unreadable
        self._has_warned = False
        self._is_lost = False
        """Whether the store failed when it was last asked."""
        self._renditions: LRU[bytes, tuple[bytes, Rendition]] = LRU(max_rendition_bytes, _num_bytes)

    async def look_up(self, hashes: list[bytes]) -> tuple[list[bytes | None], bool]:
        """The records under these keys, and whether the store failed to say."""
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._store.get_many(hashes)
        except StateError as error:
            self._lost("look-up", error)
            return [error.known.get(key) for key in hashes], True
        except TimeoutError:
            self._lost("look-up", f"no answer in {self._timeout_s:.1f} s")
            return [None] * len(hashes), True
        if self._is_lost and hashes:
            logger.warning("state store answers again")
            self._is_lost = False
        return found, False

    def read(self, key: bytes, record: bytes | None) -> Rendition | None:
        """What a record holds; read once in a process."""
        if record is None:
            return None
        known = self._renditions.get(key)
        if known is not None and known[0] == record:
            return known[1]
        rendition = self.decode(record)
        if rendition is not None:
            self._renditions.put(key, (record, rendition))
        return rendition

    def decode(self, record: bytes) -> Rendition | None:
        """What a record holds; None where it cannot be read, which is told, and counts as lost."""
        rendition = ledger.decode(record)
        if rendition is None:
            self._on_unreadable()
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "a record in the state store cannot be read, and counts as lost: damaged, or written by another "
                    "version; prefixes change once. Said once; sluice_records_unreadable counts them"
                )
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
            records[index] = self.decode(record) if record else None
        return records

    async def freeze(self, turn: Turn, tenant: bytes) -> Written:
        """Write what was decided. Where another worker was first, what it wrote stands, and the turn holds that."""
        for index in turn.new:
            turn.records[index] = turn.renditions[index]
        for index in turn.moved:
            turn.records[index] = turn.settled(index)
        records = {
            turn.hashes[index]: ledger.encode(record)
            for index in (*turn.new, *turn.moved)
            if (record := turn.records[index]) is not None
        }
        places = {ledger.place(turn.hashes[0], index, turn.identities[index]): turn.hashes[index] for index in turn.new}
        try:
            async with asyncio.timeout(self._timeout_s):
                standing = await self._store.put_new({**records, **places})
                if turn.originals:
                    await self._store.put_originals(tenant, turn.originals)
        except (StateError, TimeoutError) as error:
            # Not written: the next turn decides the same again, since decisions depend on the prefix alone.
            self._lost("write", str(error) or "no answer")
            return Written.NOT
        lost_race = [index for index in turn.new if standing[turn.hashes[index]] != records[turn.hashes[index]]]
        for index in lost_race:
            turn.records[index] = self.decode(standing[turn.hashes[index]]) or turn.records[index]
        if not lost_race:
            return Written.OURS
        turn.renditions = turn.in_force()
        return Written.THEIRS

    def _lost(self, step: str, why: object) -> None:
        """Say that the store is lost, once until it answers again: requests go on, and each would say the same."""
        level = logging.DEBUG if self._is_lost else logging.WARNING
        logger.log(level, "state store lost on %s: %s", step, why)
        self._is_lost = True

    async def freeze_refused(self, turn: Turn, epoch: Rendition, tenant: bytes) -> None:
        """Write the epoch of a request that the upstream refused beside its records; the turn then holds it."""
        key = ledger.refusal(turn.hashes[-1])
        try:
            async with asyncio.timeout(self._timeout_s):
                epoch = self.decode((await self._store.put_new({key: ledger.encode(epoch)}))[key]) or epoch
                await self._store.put_originals(tenant, turn.originals)
        except (StateError, TimeoutError) as error:
            self._lost("write", str(error) or "no answer")
        turn.refused = {**turn.refused, len(turn.hashes) - 1: epoch}
        turn.renditions = turn.in_force()


def _num_bytes(read: tuple[bytes, Rendition]) -> int:
    """Of a record and what it holds: the same bytes twice, and what is around them."""
    return _BYTES_A_RENDITION + 2 * len(read[0])
