"""An answer that is kept: whole, status 200, with the chunks it came in. Knows when an answer is whole."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice.proxy.answers.shown import with_hit_shown
from sluice.proxy.headers import Header, find
from sluice.proxy.wire.types import WireName

_KEPT_HEADERS = (b"content-type", b"content-encoding")
"""What belongs to the answer itself; dates, request ids, limits and cookies belonged to the first exchange."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A whole answer."""

    headers: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    at_s: float
    """When it was kept, by the wall clock."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its body."""
        return sum(map(len, self.chunks))


def keep(wire: WireName, headers: Sequence[Header], chunks: Sequence[bytes], at_s: float) -> Kept | None:
    """Make an answer of status 200, read to its end, one that is kept; None where it is not whole, or is an error.

    Its `usage` says from then on that it was kept.

    Args:
        wire: its format.
        headers: the upstream's, names in any case.
        chunks: its body.
        at_s: now, by the wall clock.
    """
    lowered = [(key.lower(), value) for key, value in headers]
    if find(lowered, b"content-encoding") in (None, "", "identity"):
        is_stream = (find(lowered, b"content-type") or "").lower().startswith("text/event-stream")
        body = b"".join(chunks)
        if not (_is_whole_stream(wire, body) if is_stream else _is_whole_json(body)):
            return None
        chunks = with_hit_shown(chunks, is_stream=is_stream)
    return Kept([(key, value) for key, value in lowered if key in _KEPT_HEADERS], list(chunks), at_s)


def _is_whole_stream(wire: WireName, body: bytes) -> bool:
    """Whether the last event is the one that ends a stream of this format."""
    events = [event for event in body.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
    if not events:
        return False
    lines = events[-1].split(b"\n")
    data = b"".join(line[5:] for line in lines if line.startswith(b"data:")).strip()
    if wire in (WireName.CHAT, WireName.COMPLETIONS):
        # An error in mid-stream may still be followed by the end.
        return data == b"[DONE]" and not any(event.lstrip().startswith(b'data: {"error"') for event in events)
    try:
        kind = msgspec.json.decode(data, type=_Event).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return kind == ("message_stop" if wire is WireName.MESSAGES else "response.completed")


def _is_whole_json(body: bytes) -> bool:
    try:
        return not msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Event(msgspec.Struct):
    type: str = ""


class _Body(msgspec.Struct):
    error: object = None
