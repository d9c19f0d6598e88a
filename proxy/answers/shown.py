"""Says in an answer's own `usage` that it came out of the prompt cache: clients that read no headers read that.

One field more is put into the object, where it stands in the bytes; all else stays as it was. Plain functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sluice.proxy.body import Shape, parse_body
from sluice.proxy.errors import RequestError

_FIELD = b'"sluice_answer":"hit"'
_OBJECT = Shape(None)
_HOLDERS = ("message", "response")
"""Fields of events that hold an answer, and that its `usage` in turn: `message_start`, and responses' events."""
_DATA = re.compile(rb"^data:[ ]?([^\r\n]*)", re.MULTILINE)


def with_hit_shown(chunks: Sequence[bytes], *, is_stream: bool) -> list[bytes]:
    """An answer's chunks, each `usage` in it with `"sluice_answer": "hit"`.

    Args:
        chunks: the whole body, as it came; not compressed.
        is_stream: whether it is a stream of events.
    """
    body = b"".join(chunks)
    if b'"usage"' not in body:
        return list(chunks)
    places = [
        place
        for start, data in ([(m.start(1), m[1]) for m in _DATA.finditer(body)] if is_stream else [(0, body)])
        for place in _usages(data, start)
    ]
    return _inserted(chunks, places)


def _usages(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Where in the body an object's `usage` begins, and what is to be put there."""
    if b'"usage"' not in data:
        return
    try:
        found = parse_body(data, _OBJECT)
    except RequestError:
        return
    usage = found.field("usage")
    if usage.startswith(b"{"):
        is_empty = usage[1:].lstrip().startswith(b"}")
        yield start + found.fields["usage"][0] + 1, _FIELD if is_empty else _FIELD + b","
    for name in _HOLDERS:
        if found.field(name).startswith(b"{"):
            yield from _usages(found.field(name), start + found.fields[name][0])


def _inserted(chunks: Sequence[bytes], places: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """The chunks with something put in at some places of the whole; they are cut where they were."""
    left = sorted(places)
    shown: list[bytes] = []
    end = 0
    for chunk in chunks:
        start, end = end, end + len(chunk)
        parts: list[bytes] = []
        done = 0
        while left and left[0][0] <= end:
            at, more = left.pop(0)
            parts += (chunk[done : at - start], more)
            done = at - start
        shown.append(b"".join([*parts, chunk[done:]]))
    return shown
