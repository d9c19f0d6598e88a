"""One upstream answer with several readers, each at its own pace, from the first byte on.

A task of its own reads the answer, so that whoever asked first may hang up without the others noticing. It ends when
the last reader has gone. Knows no keys and keeps nothing for later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sluice.proxy.headers import Header
from sluice.proxy.meter.turn import Source
from sluice.proxy.upstreams import RoutedAnswer


class Flight:
    """An answer under way.

    Args:
        answer: the upstream's; its body not yet read.
        max_bytes: what is held of it at most. Past that nobody may join, and the slowest reader sets the pace.
        on_whole: given all chunks once they have come to their end; not called for an answer past `max_bytes`. It must
            not raise: readers that are not at the end yet would take the answer for broken.
        on_end: called when nobody can join any more; perhaps twice.
    """

    def __init__(
        self,
        answer: RoutedAnswer,
        max_bytes: int,
        on_whole: Callable[[Sequence[bytes]], Awaitable[None]],
        on_end: Callable[[], None],
    ) -> None:
        self.status = answer.status
        self.headers: Sequence[Header] = answer.headers
        self.upstream = answer.upstream
        self.num_retries = answer.num_retries
        self.sluice_headers = answer.sluice_headers
        self.is_joinable = True
        self.is_ended = False
        self.error: Exception | None = None
        self._answer = answer
        self._max_bytes = max_bytes
        self._on_whole = on_whole
        self._on_end = on_end
        self._chunks: list[bytes] = []
        self._num_gone = 0
        """Chunks before those that are held: all readers have had them."""
        self._num_held_bytes = 0
        self._readers: set[FlightReader] = set()
        self._num_coming = 0
        """Requests that are about to read."""
        self._payer: FlightReader | None = None
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._read_all(), name="sluice-answer")

    def coming(self) -> None:
        """Announce a reader: it may join however long the answer is, and nothing is let go before it is there."""
        self._num_coming += 1

    def gone(self) -> None:
        """Take an announcement back."""
        self._num_coming -= 1
        self._let_go()
        self._abandon_if_unread()

    def reader(self, source: Source) -> FlightReader:
        """A reader from the first byte on, of a flight that can be joined. `source` is what its client is told."""
        assert self.is_joinable or self._num_coming, "too long to be joined"
        reader = FlightReader(self, source)
        self._readers.add(reader)
        return reader

    def take(self, reader: FlightReader) -> bytes | None:
        """The next chunk for a reader; None where it has yet to come."""
        index = reader.position - self._num_gone
        if index >= len(self._chunks):
            return None
        reader.position += 1
        data = self._chunks[index]
        if not self.is_joinable:
            self._let_go()
        return data

    def leave(self, reader: FlightReader, is_at_end: bool) -> bool:
        """Take a reader off; whether it is the one whom the answer is charged to."""
        self._readers.discard(reader)
        # Whoever is the first to have it whole pays; where nobody has, the last one.
        if self._payer is None and (is_at_end or not self._readers):
            self._payer = reader
        self._let_go()
        self._abandon_if_unread()
        return self._payer is reader

    def _abandon_if_unread(self) -> None:
        if not self._readers and not self._num_coming and not self.is_ended:
            self.is_joinable = False
            self._task.cancel()
            # A task that has not begun does not get to its own clearing up.
            self._end()
            self._on_end()

    async def _read_all(self) -> None:
        try:
            while data := await self._answer.read():
                self._chunks.append(data)
                self._num_held_bytes += len(data)
                if self._num_held_bytes > self._max_bytes:
                    self.is_joinable = False
                self._wake()
                while not self.is_joinable and self._num_held_bytes > self._max_bytes:
                    self._room.clear()
                    self._let_go()
                    if self._num_held_bytes > self._max_bytes:
                        await self._room.wait()
            # Readers do not wait for it to be kept; meanwhile those that come can still join.
            self._end()
            if self.is_joinable:
                await self._on_whole(self._chunks)
        except Exception as error:  # each reader raises it
            self.error = error
        finally:
            self._end()
            self._on_end()

    def _end(self) -> None:
        if not self.is_ended:
            self.is_ended = True
            self._answer.close()
            self._wake()

    def _let_go(self) -> None:
        """Free the chunks that no reader needs any more."""
        if self.is_joinable or self._num_coming:
            return
        position = min((reader.position for reader in self._readers), default=self._num_gone + len(self._chunks))
        num = position - self._num_gone
        if num > 0:
            self._num_held_bytes -= sum(map(len, self._chunks[:num]))
            del self._chunks[:num]
            self._num_gone += num
        if self._num_held_bytes <= self._max_bytes:
            self._room.set()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.changed.set()


class FlightReader:
    """One reader of a flight: an `Answer`."""

    def __init__(self, flight: Flight, source: Source) -> None:
        self.status = flight.status
        self.headers = flight.headers
        self.upstream = flight.upstream
        self.num_retries = flight.num_retries if source is Source.UPSTREAM else 0
        self.sluice_headers = flight.sluice_headers
        if source is Source.SHARED:
            self.sluice_headers = [(b"x-sluice-upstream", flight.upstream.encode()), (b"x-sluice-answer", b"shared")]
        self.source = source
        """Whether this answer is charged to its reader; final once closed."""
        self.position = 0
        self.changed = asyncio.Event()
        self._flight: Flight | None = flight
        self._is_at_end = False

    async def read(self) -> bytes:
        """See `Answer`."""
        flight = self._flight
        assert flight is not None, "read after close"
        while (data := flight.take(self)) is None:
            if flight.is_ended:
                if flight.error is not None:
                    raise flight.error
                self._is_at_end = True
                return b""
            self.changed.clear()
            await self.changed.wait()
        return data

    def close(self) -> None:
        """See `Answer`."""
        if self._flight is not None:
            is_payer = self._flight.leave(self, self._is_at_end)
            self.source = Source.UPSTREAM if is_payer else Source.SHARED
            self._flight = None
