"""Reads the usage out of an answer while its bytes pass by: whole JSON or a stream of events, cut anywhere.

Never raises, holds a bounded piece of the answer, and decodes nothing but what may hold a count.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sluice.backend.surrogates import decode_whole
from sluice.proxy.headers import Header, find
from sluice.proxy.meter.usage import Usage, usage_of
from sluice.proxy.wire.types import WireName

MAX_HELD_BYTES = 4 * 2**20
"""Longest event, or whole body, that is looked into. What is longer goes unmetered."""

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT_END = re.compile(b"|".join(_EVENT_ENDS))
_KEY = b'"usage"'
_NO_USAGE = b'"usage":null'
"""In all events of a chat stream but the last."""
_REFUSED = re.compile(rb";\s*q\s*=\s*0(?:\.0*)?\s*$")
"""Behind an encoding that the client does not take (RFC 9110, 12.4.2)."""


class _Holder(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Body(msgspec.Struct):
    """Where the wires keep it: at the top, in `response` (responses' events), in `message` (`message_start`)."""

    usage: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")
    message: msgspec.Raw = msgspec.Raw(b"null")


_body_decoder = msgspec.json.Decoder(_Body)
_holder_decoder = msgspec.json.Decoder(_Holder)


class UsageReader:
    """A tap for one answer: `feed` it each chunk, then ask for the `usage`.

    Args:
        wire: the format of the answer.
        stream: whether it is a stream of events.
        encoding: its `content-encoding`; gzip and deflate are read, anything else goes unmetered.
    """

    def __init__(self, wire: WireName, stream: bool, encoding: str | None = None) -> None:
        self._wire = wire
        self._stream = stream
        self._inflate = _decompressor(encoding)
        self._held = bytearray()
        """The event, or the body, that is not yet whole."""
        self._has_key = False
        """Whether it may hold a count."""
        self._is_skipping = False
        """Whether it is too long to be looked into."""
        self._fields: dict[str, Any] = {}

    def feed(self, data: bytes) -> None:
        """Show it the next bytes, as sent."""
        try:
            for part in self._inflate(data):
                if self._stream:
                    self._take_events(part)
                else:
                    self._held += part
                if len(self._held) > MAX_HELD_BYTES:
                    self._is_skipping = True
                if self._is_skipping:
                    del self._held[:-3]
        except Exception:  # whatever an upstream sends, the answer goes on
            self._is_skipping = True
            self._held.clear()

    def usage(self) -> Usage | None:
        """What the answer said so far; None where it said nothing, or could not be read."""
        try:
            if not self._is_skipping:
                self._look_into(bytes(self._held))
            return usage_of(self._wire, self._fields)
        except Exception:  # as above
            return None

    def _take_events(self, part: bytes) -> None:
        """Look into the events that end in this piece, and hold the one that does not."""
        if not self._held and part.endswith(b"\n\n") and part.count(_KEY) == part.count(_NO_USAGE):
            self._is_skipping = False
            return  # whole events, none of which holds a count: what nearly all pieces are
        start = max(0, len(self._held) - len(_KEY))  # a key, or the end of an event, may itself be cut
        self._held += part
        if not self._has_key:
            self._has_key = self._held.count(_KEY, start) > self._held.count(_NO_USAGE, start)
        if self._has_key or self._is_skipping:
            self._cut_events(start)
            self._has_key = _KEY in self._held
            return
        # Nearly all events hold no count: all that matters of those is where the last one ends.
        ends = [at + len(mark) for mark in _EVENT_ENDS if (at := self._held.rfind(mark, start)) >= 0]
        if ends:
            del self._held[: max(ends)]

    def _cut_events(self, search_from: int) -> None:
        end = 0
        for match in _EVENT_END.finditer(self._held, search_from):
            if not self._is_skipping and self._held.find(_KEY, end, match.start()) >= 0:
                self._look_into(bytes(self._held[end : match.start()]))
            self._is_skipping = False
            end = match.end()
        if end:
            del self._held[:end]

    def _look_into(self, data: bytes) -> None:
        if _KEY not in data:
            return
        if self._stream:
            lines = data.splitlines()
            data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        try:
            body = decode_whole(_body_decoder.decode, data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for raw in (body.usage, *(_inner(holder) for holder in (body.message, body.response))):
            self._merge(raw)

    def _merge(self, raw: bytes | msgspec.Raw) -> None:
        """Lay the counts of one report over those of earlier ones: later reports are cumulative."""
        if bytes(raw) == b"null":
            return
        fields = msgspec.json.decode(raw)
        if isinstance(fields, dict):
            self._fields.update({key: value for key, value in fields.items() if value is not None})


def _inner(holder: msgspec.Raw) -> msgspec.Raw:
    try:
        return _holder_decoder.decode(holder).usage
    except msgspec.DecodeError:
        return msgspec.Raw(b"null")  # not an object: an error's message


def reader_for(wire: WireName, headers: Sequence[Header]) -> UsageReader:
    """Make the reader for an answer with these headers, names in any case."""
    lowered = [(key.lower(), value) for key, value in headers]
    content_type = find(lowered, b"content-type") or ""
    is_stream = content_type.lower().startswith("text/event-stream")
    return UsageReader(wire, is_stream, find(lowered, b"content-encoding"))


def readable(headers: Sequence[Header]) -> list[Header]:
    """A request's headers, asking for the encodings that can be read here, where the client takes one of them."""
    return [(key, _readable(value) if key == b"accept-encoding" else value) for key, value in headers]


def _readable(accepted: bytes) -> bytes:
    taken = (part for part in accepted.split(b",") if _REFUSED.search(part) is None)
    names = [part.partition(b";")[0].strip().lower() for part in taken]
    return b", ".join(name for name in names if name in (b"gzip", b"deflate")) or accepted


def _decompressor(encoding: str | None) -> Callable[[bytes], Sequence[bytes]]:
    """What makes plain bytes of an answer's, in pieces of bounded size."""
    name = (encoding or "identity").strip().lower()
    if name in ("", "identity"):
        return lambda data: (data,)
    if name not in ("gzip", "x-gzip", "deflate"):
        return lambda data: ()
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip from zlib by the head
    num_left = 4 * MAX_HELD_BYTES

    def inflate(data: bytes) -> Sequence[bytes]:
        nonlocal num_left
        part = inflater.decompress(data, max(num_left, 1))
        num_left -= len(part)
        if num_left <= 0 or inflater.unconsumed_tail:
            raise ValueError("unpacks to more than is looked into")
        return (part,)

    return inflate
