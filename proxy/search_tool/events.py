"""An event that goes on as it came. Knows no wire format."""

from __future__ import annotations

from sluice.proxy.translation.sse import Event


def rendered(event: Event) -> bytes:
    """The event as bytes, its data untouched."""
    head = b"event: " + event.name.encode() + b"\n" if event.name else b""
    return head + b"".join(b"data: " + line + b"\n" for line in event.data.split(b"\n")) + b"\n"
