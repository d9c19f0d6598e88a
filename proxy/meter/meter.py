"""The meter: takes turns as they end, works out what they come to, and adds them up behind the requests' backs.

`record` only notes a turn; everything else happens in one task. Where the store is lost, what was recorded is kept
and written later; what this process saw itself can always be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from sluice.compressor import StateError
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter.composition import Arrived, ToolNames, shares_of
from sluice.proxy.meter.composition import counters_of as composed
from sluice.proxy.meter.counterfactual import Last
from sluice.proxy.meter.prices import Price, PriceTable
from sluice.proxy.meter.store import About, Cell, Counters, Entry, MemoryMeterStore, MeterStore, TurnRow
from sluice.proxy.meter.turn import Charge, Source, Turn, charge, counters_of, day_of
from sluice.proxy.meter.usage import Usage

CLIENT_GONE_STATUS = 499
"""Status under which requests are counted whose client hung up; nobody is sent it."""
_BATCH = 256
MAX_PENDING_BATCHES = 64
_MAX_NAME_CHARS = 120


class Exporter(Protocol):
    """Where turns are sent on to: Prometheus' counters, OpenTelemetry."""

    def export(self, turn: Turn, charged: Charge) -> None:
        """Hand on one turn; returns at once."""
        ...

    def close(self) -> None:
        """Send what is outstanding."""
        ...


class Meter:
    """Records turns.

    Args:
        prices: of the models.
        store: where sums are kept beside this process; None keeps them here alone. Closed with the meter.
        exporters: where turns are sent on to. Closed with the meter.
        pause_s: seconds over which turns are gathered before they are written.
    """

    def __init__(
        self,
        prices: PriceTable,
        store: MeterStore | None = None,
        *,
        exporters: Sequence[Exporter] = (),
        pause_s: float = 0.5,
    ) -> None:
        self._prices = prices
        self._local = MemoryMeterStore()
        self._store = store
        self._exporters = exporters
        self._pause_s = pause_s
        self._turns: deque[tuple[Turn, Arrived | None]] = deque(maxlen=_BATCH * MAX_PENDING_BATCHES)
        self._unwritten: deque[tuple[bytes, list[Entry]]] = deque(maxlen=MAX_PENDING_BATCHES)
        self._working = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._tools = ToolNames()
        self.num_lost = 0
        """Turns that were let go because the store was lost for too long."""

    def record(self, turn: Turn, arrived: Arrived | None = None) -> None:
        """Note a turn that has ended. Returns at once and never raises.

        Args:
            turn: the turn.
            arrived: the messages that are new in it, of which nothing but their lengths is kept.
        """
        try:
            self.num_lost += len(self._turns) == self._turns.maxlen
            self._turns.append((turn, arrived))
            if self._worker is None or self._worker.done():
                self._worker = asyncio.get_running_loop().create_task(self._work(), name="sluice-meter")
        except Exception as error:  # a count is never worth a request
            logger.error(fields("meter_failed", error=where(error)))

    async def flush(self) -> None:
        """Work off what was recorded so far."""
        async with self._working:
            while self._turns:
                await self._settle([self._turns.popleft() for _ in range(min(_BATCH, len(self._turns)))])
            await self._write()

    async def reading(self) -> MeterStore:
        """The store to read from, with all that was recorded: this process's where the shared one lacks something."""
        await self.flush()
        return self._local if self._store is None or self._unwritten else self._store

    @property
    def local(self) -> MeterStore:
        """What this process saw."""
        return self._local

    async def aclose(self) -> None:
        """Write what is outstanding, once, and close."""
        if self._worker is not None:
            self._closing.set()
            await self._worker
        await self.flush()
        if self._unwritten:
            logger.warning(fields("meter_not_written", num_turns=sum(len(batch) for _, batch in self._unwritten)))
        for exporter in self._exporters:
            await asyncio.to_thread(exporter.close)
        if self._store is not None:
            await self._store.aclose()

    async def _work(self) -> None:
        while (self._turns or self._unwritten) and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._closing.wait()
            await self.flush()

    async def _settle(self, turns: Sequence[tuple[Turn, Arrived | None]]) -> None:
        """Work out a batch, and have it written."""
        lasts = await self._lasts({turn.conversation for turn, _ in turns if turn.conversation})
        compositions = await asyncio.to_thread(self._compositions, [arrived for _, arrived in turns])
        entries = []
        for (turn, _), composition in zip(turns, compositions, strict=True):
            try:
                charged = charge(turn, self._price(turn), lasts.get(turn.conversation))
                if charged.last is not None:
                    lasts[turn.conversation] = charged.last
                entries.append(_entry(turn, charged, composition))
                for exporter in self._exporters:
                    exporter.export(turn, charged)
            except Exception as error:  # one odd turn must not cost the others
                logger.error(fields("meter_failed", error=where(error)))
        await self._local.add(b"", entries)
        if self._store is not None:
            if len(self._unwritten) == self._unwritten.maxlen:
                self.num_lost += len(self._unwritten[0][1])
            self._unwritten.append((os.urandom(12).hex().encode(), entries))

    def _compositions(self, batch: Sequence[Arrived | None]) -> list[Counters]:
        """Where the tokens of each turn's new messages come from."""
        found: list[Counters] = []
        for arrived in batch:
            try:
                found.append(composed(shares_of(arrived), self._tools) if arrived is not None else {})
            except Exception as error:  # one odd message must not cost the others
                logger.error(fields("meter_failed", error=where(error)))
                found.append({})
        return found

    def _price(self, turn: Turn) -> Price | None:
        return self._prices.find(turn.upstream_model or turn.model, is_local=turn.is_local)

    async def _lasts(self, conversations: set[str]) -> dict[str, Last]:
        names = sorted(conversations)
        known = await self._local.lasts(names)
        if self._store is not None and not self._unwritten:
            with contextlib.suppress(StateError):
                known |= await self._store.lasts(names)
        return known

    async def _write(self) -> None:
        while self._store is not None and self._unwritten:
            batch, entries = self._unwritten[0]
            try:
                await self._store.add(batch, entries)
            except StateError as error:
                logger.debug(fields("meter_store_lost", reason=error))
                return
            self._unwritten.popleft()


def _entry(turn: Turn, charged: Charge, composition: Counters) -> Entry:
    model, key, upstream = (_name(text) for text in (turn.model, turn.key, turn.upstream))
    counters = {**counters_of(turn, charged), **composition}
    cell = Cell(day_of(turn.at_s), model, key, turn.mode, turn.arm)
    if not turn.conversation:
        return Entry(cell, counters)
    usage = turn.usage if turn.usage is not None and turn.source is Source.UPSTREAM else Usage()
    row = TurnRow(
        at_s=turn.at_s,
        status=turn.status,
        tokens_in=turn.tokens_in or 0,
        tokens_out=turn.tokens_out or 0,
        num_prompt=usage.num_prompt,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write_5m + usage.cache_write_1h,
        output_tokens=usage.output_tokens,
        cost=charged.cost,
        cost_untouched=charged.cost_untouched,
        overhead_ms=turn.overhead_s * 1000,
        epoch=turn.epoch,
        bypass=turn.bypass,
        source=turn.source,
    )
    about = About(model, key, turn.mode, turn.arm, upstream, turn.at_s)
    return Entry(cell, counters, turn.conversation, about, row, charged.last)


def _name(text: str) -> str:
    """A name that a client chose, short and printable."""
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_NAME_CHARS])
