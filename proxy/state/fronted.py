"""A copy of recent state in this process before a store that can be lost, so that losing it rewrites no prefix.

What is known here is never asked for there. A miss there is a miss; an error there is `StateError`, carrying what is
known here. What could not be written is kept, within bounds, and written when the store is back.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from sluice.compressor.errors import StateError, StateRefusedError
from sluice.compressor.state import MemoryStore
from sluice.proxy.log import fields, logger
from sluice.proxy.state.redis import RedisStore

T = TypeVar("T")

_BATCH = 500
"""Entries written in one round trip when the store is back."""
_MAX_TICKS = 16
"""A store that stays lost, or full, is tried more and more seldom, down to once in so many ticks."""
_MAX_TOUCHED = 100_000
"""Keys whose last slide is remembered, and keys that are to be slid: one that is forgotten of the former is slid again,
which does no harm, and one that finds no room among the latter is noted when it is next used."""


class FrontedStore:
    """A store in this process before one in Redis.

    Args:
        remote: the store that outlives this process.
        local: the copy.
        ttl_s: seconds that an entry lives in both. One that is used here alone is slid there every quarter of it.
        tick_s: seconds between attempts to write what is outstanding.
        max_pending_bytes: bound on what is kept to be written later; the oldest goes first.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        remote: RedisStore,
        local: MemoryStore,
        *,
        ttl_s: float,
        tick_s: float = 0.5,
        max_pending_bytes: int = 64 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._local = local
        self._touch_after_s = ttl_s / 4
        self._tick_s = tick_s
        self._max_pending_bytes = max_pending_bytes
        self._clock = clock
        self._secret: bytes | None = None
        self._is_lost = False
        self._touched_at: OrderedDict[bytes, float] = OrderedDict()
        self._to_touch: set[bytes] = set()
        self._records: OrderedDict[bytes, bytes] = OrderedDict()
        self._originals: OrderedDict[tuple[bytes, str], str] = OrderedDict()
        self._num_pending_bytes = 0
        self._keeper: asyncio.Task[None] | None = None

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `StateStore`. A `StateError` carries the records that are known here."""
        held = dict(zip(keys, await self._local.get_many(keys), strict=True))
        missing = [key for key, record in held.items() if record is None]
        self._used(key for key, record in held.items() if record is not None)
        if missing:
            try:
                fetched = await self._ask(self._remote.get_many(missing))
            except StateError as error:
                known = {key: record for key, record in held.items() if record is not None}
                raise StateError(str(error), known) from error
            found = {key: record for key, record in zip(missing, fetched, strict=True) if record is not None}
            held |= await self._local.put_new(found)
            self._touched(found)
        return [held[key] for key in keys]

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `StateStore`. Never raises: what cannot be written there stands here."""
        keys = list(records)
        held = {key: data for key, data in zip(keys, await self._local.get_many(keys), strict=True) if data is not None}
        fresh = {key: record for key, record in records.items() if key not in held}
        try:
            standing = await self._local.put_new(await self._ask(self._remote.put_new(fresh)))
            self._touched(standing)
        except (StateError, asyncio.CancelledError) as error:
            # Whoever gave up waiting forwards what it decided, so that it has to stand.
            standing = await self._local.put_new(fresh)
            self._keep_records(standing)
            if isinstance(error, asyncio.CancelledError):
                raise
        return {**held, **standing}

    async def put_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        """See `StateStore`. Never raises: what cannot be written there is found here."""
        await self._local.put_originals(tenant, originals)
        try:
            await self._ask(self._remote.put_originals(tenant, originals))
        except (StateError, asyncio.CancelledError) as error:
            self._keep_originals(tenant, originals)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def find_originals(self, tenant: bytes, prefix: str) -> dict[str, str]:
        """See `StateStore`. While the other store is lost, what is found here has to do."""
        found = await self._local.find_originals(tenant, prefix)
        try:
            found |= await self._ask(self._remote.find_originals(tenant, prefix))
        except StateError:
            if not found:
                raise
        return dict(sorted(found.items()))

    async def secret(self) -> bytes:
        """See `StateStore`.

        If the other store is lost at the start, this process takes a secret of its own for as long as it lives:
        tenants that change their name in mid-conversation would cost more than state that others cannot find.
        """
        if self._secret is None:
            try:
                secret = await self._ask(self._remote.secret())
            except StateError as error:
                secret = await self._local.secret()
                effect = "until it is started again, other processes do not find what this one keeps"
                logger.warning(fields("state_secret_is_local", reason=error, effect=effect))
            self._secret = self._secret or secret
        return self._secret

    async def ping(self) -> None:
        """See `StateStore`: whether the other store answers."""
        await self._ask(self._remote.ping())

    async def aclose(self) -> None:
        """See `StateStore`. What is outstanding gets one last attempt."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        try:
            await self._catch_up()
        except StateError as error:
            logger.warning(fields("state_not_written", num_entries=self.num_pending, reason=error))
        await self._remote.aclose()

    @property
    def num_pending(self) -> int:
        """Entries that are kept to be written later."""
        return len(self._records) + len(self._originals)

    async def _ask(self, operation: Awaitable[T]) -> T:
        """Await an operation of the other store; what it held may be gone when it comes back."""
        try:
            result = await operation
        except StateRefusedError:  # what it holds is still there
            raise
        except StateError:
            self._is_lost = True
            raise
        if self._is_lost:
            self._is_lost = False
            self._touched_at.clear()
        return result

    def _used(self, keys: Iterable[bytes]) -> None:
        """Note that records were served from here alone, so that they do not expire there under a live conversation."""
        if len(self._to_touch) >= _MAX_TOUCHED:
            return  # the store has been lost for long
        due = self._clock() - self._touch_after_s
        num_before = len(self._to_touch)
        self._to_touch.update(key for key in keys if self._touched_at.get(key, due) <= due)
        if len(self._to_touch) > num_before:
            self._wake()

    def _touched(self, keys: Iterable[bytes]) -> None:
        now = self._clock()
        for key in keys:
            self._touched_at[key] = now
            self._touched_at.move_to_end(key)
        while len(self._touched_at) > _MAX_TOUCHED:
            self._touched_at.popitem(last=False)

    def _keep_records(self, records: Mapping[bytes, bytes]) -> None:
        for key, record in records.items():
            if key not in self._records:
                self._records[key] = record
                self._num_pending_bytes += len(key) + len(record)
        self._bound_pending()

    def _keep_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        for recall_id, text in originals.items():
            if (tenant, recall_id) not in self._originals:
                self._originals[tenant, recall_id] = text
                self._num_pending_bytes += len(text)
        self._bound_pending()

    def _bound_pending(self) -> None:
        while self._num_pending_bytes > self._max_pending_bytes and self._originals:
            _, text = self._originals.popitem(last=False)
            self._num_pending_bytes -= len(text)
        while self._num_pending_bytes > self._max_pending_bytes and self._records:
            key, record = self._records.popitem(last=False)
            self._num_pending_bytes -= len(key) + len(record)
        if self.num_pending:
            self._wake()

    def _wake(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep_up(), name="sluice-state")

    async def _keep_up(self) -> None:
        """Write and slide what is outstanding, again and again until nothing is."""
        wait_s = self._tick_s
        while self.num_pending or self._to_touch:
            await asyncio.sleep(wait_s)
            try:
                await self._catch_up()
                wait_s = self._tick_s
            except StateError:
                wait_s = min(2 * wait_s, _MAX_TICKS * self._tick_s)

    async def _catch_up(self) -> None:
        while self._records:
            records = dict(itertools.islice(self._records.items(), _BATCH))
            await self._ask(self._remote.put_new(records))
            for key, record in records.items():
                if self._records.pop(key, None) is not None:
                    self._num_pending_bytes -= len(key) + len(record)
            self._touched(records)
        while self._originals:
            (tenant, recall_id), text = next(iter(self._originals.items()))
            await self._ask(self._remote.put_originals(tenant, {recall_id: text}))
            if self._originals.pop((tenant, recall_id), None) is not None:
                self._num_pending_bytes -= len(text)
        while self._to_touch:
            keys = list(itertools.islice(self._to_touch, _BATCH))
            is_there = await self._ask(self._remote.touch(keys))
            self._to_touch.difference_update(keys)
            self._touched(keys)
            gone = [key for key, found in zip(keys, is_there, strict=True) if not found]
            held = zip(gone, await self._local.get_many(gone), strict=True)
            await self._ask(self._remote.put_new({key: data for key, data in held if data is not None}))
