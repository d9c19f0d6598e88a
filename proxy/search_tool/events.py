"""Events that go on as they came, and the mark that some servers put at a stream's end. Knows no wire format."""

from __future__ import annotations

from sluice.proxy.translation.sse import Event

DONE = b"[DONE]"
"""Data of the event that ends a chat stream, and with some servers any stream."""


def is_done(event: Event) -> bool:
    """Whether an event is that mark."""
    return event.data.strip() == DONE


def rendered(event: Event) -> bytes:
    """The event as bytes, its data untouched."""
    head = b"event: " + event.name.encode() + b"\n" if event.name else b""
    return head + b"".join(b"data: " + line + b"\n" for line in event.data.split(b"\n")) + b"\n"
