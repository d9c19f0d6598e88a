"""An upstream's answer, wrapped so that it reads as one of another wire format; nothing is read before it is asked for.

An event goes out as soon as its cause came in. What is not streamed is held until it is whole, under a cap.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from sluice.proxy.errors import UpstreamDisconnectedError, UpstreamError
from sluice.proxy.headers import Header, find
from sluice.proxy.translation.deltas import Delta
from sluice.proxy.translation.errors import AnswerTooLargeError, UnreadableAnswerError
from sluice.proxy.translation.faults import read_fault
from sluice.proxy.translation.json_codec import Json, encode
from sluice.proxy.translation.sequence import Sequencer
from sluice.proxy.translation.sse import Event, EventParser
from sluice.proxy.upstreams.types import Answer

MAX_ANSWER_BYTES = 64 * 2**20
"""Largest answer that is held to be translated, in bytes; events go out as they come, however many."""
_QUIET_S = 10.0
"""After so long without a byte the client is sent a comment, where the upstream still speaks: a model that thinks for
minutes what the client did not ask to see would look like a lost connection."""
_END_WAIT_S = 1.0
"""How long the end of the upstream's connection is waited for when the answer is done: one that ends is used again."""
_COMMENT = b":\n\n"
_REPLACED = frozenset((b"content-type", b"content-length", b"content-encoding"))
_READABLE = frozenset(("gzip", "x-gzip", "deflate"))
_REQUEST_IDS = (b"request-id", b"x-request-id")


class Reader(Protocol):
    """Reads answers of one wire format."""

    is_complete: bool
    """Whether the answer has come to its end."""
    is_done: bool
    """Whether nothing more of it can come, its usage included."""

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer that is not streamed."""
        ...

    def feed(self, event: Event) -> list[Delta]:
        """Read one event of an answer that is."""
        ...


class Writer(Protocol):
    """Writes answers in one wire format."""

    def push(self, delta: Delta) -> bytes:
        """Take a piece; returns the events that it causes."""
        ...

    def finish(self) -> bytes:
        """The last events."""
        ...

    def whole(self) -> Json:
        """The answer as one body, after `finish`; an error's body where it is one."""
        ...


class TranslatedAnswer:
    """An answer in the client's format.

    Args:
        answer: the upstream's.
        reader: knows the upstream's format.
        writer: knows the client's.
        stream: whether the client asked for events.
    """

    def __init__(self, answer: Answer, reader: Reader, writer: Writer, *, stream: bool) -> None:
        self._answer = answer
        self._reader, self._writer = reader, writer
        headers = [(name.lower(), value) for name, value in answer.headers]
        content_type = (find(headers, b"content-type") or "").lower()
        self._comes_as_events = content_type.startswith("text/event-stream")
        self._is_error = not 200 <= answer.status < 300
        self._goes_as_events = stream and not self._is_error
        self.status = answer.status
        self.headers: Sequence[Header] = _headers(headers, events=self._goes_as_events)
        self._encoding = find(headers, b"content-encoding") or "identity"
        # For upstreams that compress unasked.
        self._decompressor = zlib.decompressobj(47) if self._encoding in _READABLE else None
        self._parser = EventParser()
        self._sequencer = Sequencer()
        self._is_at_end = False
        self._is_finished = False
        """Whether the client was sent the last events."""
        self._said_at_s = time.monotonic()

    async def read(self) -> bytes:
        """Return the next bytes as soon as there are any; none at the end.

        Raises:
            UpstreamError: the answer broke off, stalled, or is none in the upstream's format.
        """
        if self._is_at_end:
            return b""
        if self._goes_as_events and self._comes_as_events:
            return await self._next_events()
        deltas = await self._all_deltas()
        events = b"".join(self._writer.push(delta) for delta in deltas) + self._writer.finish()
        self._is_at_end = True
        return events if self._goes_as_events else encode(self._writer.whole())

    def close(self) -> None:
        """Release the connection."""
        self._answer.close()

    async def _next_events(self) -> bytes:
        if self._is_finished:
            await self._drain()
        while not self._is_at_end:
            data = await self._next_or_end()
            events = self._parser.feed(data) if data else self._parser.end()
            written = self._parser.comments
            written += b"".join(self._writer.push(delta) for event in events for delta in self._read(event))
            if not data or self._reader.is_done:
                if not self._reader.is_complete:
                    raise _broken_off()
                self._is_at_end, self._is_finished = not data, True
                written += self._writer.finish()
            elif not written and time.monotonic() - self._said_at_s >= _QUIET_S:
                written = _COMMENT
            if written:
                self._said_at_s = time.monotonic()
                return written
        return b""

    async def _next_or_end(self) -> bytes:
        """The upstream's next bytes; none at the end, and where it breaks off behind a complete answer."""
        try:
            return await self._next()
        except UpstreamError:
            if not self._reader.is_complete:
                raise
            return b""

    async def _drain(self) -> None:
        """Wait a little for the upstream to end what is done; else its connection is given up."""
        self._is_at_end = True
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(_END_WAIT_S):
                while await self._answer.read():
                    pass

    def _read(self, event: Event) -> list[Delta]:
        if not event.data.strip():  # some servers keep connections alive with it
            return []
        return [ready for delta in self._reader.feed(event) for ready in self._sequencer.push(delta)]

    async def _all_deltas(self) -> list[Delta]:
        pieces = []
        num_bytes = 0
        while data := await self._next():
            pieces.append(data)
            num_bytes += len(data)
            if num_bytes > MAX_ANSWER_BYTES:
                raise AnswerTooLargeError(MAX_ANSWER_BYTES)
        body = b"".join(pieces)
        if self._is_error:
            return [read_fault(body, self.status)]
        if not self._comes_as_events:
            return [ready for delta in self._reader.whole(body) for ready in self._sequencer.push(delta)]
        events = [*self._parser.feed(body), *self._parser.end()]
        deltas = [delta for event in events for delta in self._read(event)]
        if not self._reader.is_complete:
            raise _broken_off()
        return deltas

    async def _next(self) -> bytes:
        """The upstream's next bytes, decompressed; none at the end."""
        if self._decompressor is None and self._encoding != "identity":
            raise UnreadableAnswerError(f"the upstream's answer is compressed as {self._encoding!r}, unasked")
        while data := await self._answer.read():
            if self._decompressor is not None:
                try:
                    data = self._decompressor.decompress(data, MAX_ANSWER_BYTES + 1)
                except zlib.error as error:
                    raise UnreadableAnswerError(f"the upstream's answer cannot be decompressed: {error}") from None
                if len(data) > MAX_ANSWER_BYTES:
                    raise AnswerTooLargeError(MAX_ANSWER_BYTES)
            if data:
                return data
        return b""


def _headers(headers: Sequence[Header], *, events: bool) -> list[Header]:
    kept = [(name, value) for name, value in headers if name not in _REPLACED]
    kept.append((b"content-type", b"text/event-stream; charset=utf-8" if events else b"application/json"))
    # Each provider's clients look for the request's id under a name of their own.
    key = next((value for name, value in headers if name in _REQUEST_IDS), None)
    if key is not None:
        kept += [(name, key) for name in _REQUEST_IDS if all(name != known for known, _ in headers)]
    return kept


def _broken_off() -> UpstreamDisconnectedError:
    return UpstreamDisconnectedError("the upstream ended its stream before the answer was whole")
