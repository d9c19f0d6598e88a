"""Server-sent events, read from bytes that are split anywhere, and written. Knows no wire format.

After the WHATWG's description: lines end with CR, LF or both; `data` lines of one event are joined; unknown fields are
skipped. Comments are no events: some servers send them so that nobody takes a long wait for a lost connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from sluice.proxy.translation.errors import AnswerTooLargeError
from sluice.proxy.translation.json_codec import Json, encode

MAX_EVENT_BYTES = 16 * 2**20
"""Largest event that is held while its end is awaited, in bytes."""
DONE = b"[DONE]"
"""Data of the event that ends a chat stream, and with some servers any stream."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    name: str
    """Its `event` field; empty where it has none."""
    data: bytes
    """Its `data` lines, joined by line feeds."""


class EventParser:
    """Cuts a stream of bytes into events, as soon as each is whole.

    Attributes:
        comments: those that were whole with the bytes last fed, as they are to be written.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.comments = b""
        self._max_event_bytes = max_event_bytes
        self._rest: list[bytes] = []
        self._num_bytes = 0
        self._skip_lf = False
        self._at_start = True
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; returns the events that they complete.

        Raises:
            AnswerTooLargeError: an event is larger than the limit.
        """
        self.comments = b""
        if not data:
            return []
        if self._skip_lf:
            data = data.removeprefix(b"\n")
        events = []
        # A CR at the very end ends its line now; the LF that may follow in the next bytes is skipped there.
        self._skip_lf = data.endswith(b"\r")
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            self._rest.append(line)
            if (event := self._take_line(b"".join(self._rest))) is not None:
                events.append(event)
            self._rest.clear()
        self._rest.append(lines[-1])
        self._num_bytes = self._num_bytes + len(data) if not events else len(lines[-1])
        if self._num_bytes > self._max_event_bytes:
            raise AnswerTooLargeError(self._max_event_bytes)
        return events

    def end(self) -> list[Event]:
        """The last event, where the stream ends without the empty line that should close it."""
        return self.feed(b"\n\n")

    def _take_line(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            name, data = self._name, self._data
            self._name, self._data = "", []
            return Event(name, b"\n".join(data)) if data else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif not field:
            self.comments += b": " + value + b"\n\n"
        return None


def is_done(event: Event) -> bool:
    """Whether an event is the mark at a stream's end."""
    return event.data.strip() == DONE


def rendered(event: Event) -> bytes:
    """Write an event as it was read, its data untouched."""
    head = b"event: " + event.name.encode() + b"\n" if event.name else b""
    return head + b"".join(b"data: " + line + b"\n" for line in event.data.split(b"\n")) + b"\n"


def event(data: Json, *, name: str = "") -> bytes:
    """Write an event that holds JSON, with its name where there is one."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + encode(data) + b"\n\n"
