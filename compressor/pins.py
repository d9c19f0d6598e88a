"""Lines that a person wants kept, whatever the judge says: a list for each conversation that only grows.

A store writes each record once, so that a list of them is kept in numbered slots: the first that is free takes the
next pin, or takes an earlier one back. A pin acts on decisions from then on: an epoch keeps its lines where they stand,
and what was dropped of them is given back at the end of the newest tool result. History is never rewritten for it, nor
for its end. Plain functions; knows no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

import msgspec

from sluice.compressor.recovery import Gap


class Pin(msgspec.Struct, array_like=True, frozen=True):
    """Lines of one tool result that are to be kept, or are to be kept no longer."""

    recall_id: str
    """Of the result: 32 hex digits."""
    start: int
    """First line, from 0 in the result."""
    stop: int
    """Line after the last."""
    is_set: bool = True
    """False takes back what earlier pins say of these lines."""


def slot(root: bytes, number: int) -> bytes:
    """Key of one slot of a conversation's list.

    Args:
        root: chain hash of the conversation's first message, which no other tenant's conversation shares.
        number: from 0.
    """
    return blake2b(b"pin" + number.to_bytes(4, "big") + root, digest_size=16).digest()


def encode(pin: Pin) -> bytes:
    """Write a pin."""
    return msgspec.msgpack.encode(pin)


def decode(record: bytes) -> Pin | None:
    """Read a pin; None where its form is not known."""
    try:
        return msgspec.msgpack.decode(record, type=Pin)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def pinned_lines(pins: Iterable[Pin], recall_id: str) -> set[int]:
    """Indexes of the pinned lines of one result; of each line the latest pin counts."""
    pinned: set[int] = set()
    for pin in pins:
        if pin.recall_id == recall_id:
            lines = range(pin.start, pin.stop)
            pinned = pinned.union(lines) if pin.is_set else pinned.difference(lines)
    return pinned


def says(pins: Iterable[Pin], pin: Pin) -> bool:
    """Whether a list says already what a pin would have it say."""
    pinned, lines = pinned_lines(pins, pin.recall_id), range(pin.start, pin.stop)
    return pinned.issuperset(lines) if pin.is_set else pinned.isdisjoint(lines)


def pinned_gaps(gaps: Iterable[Gap], pins: Sequence[Pin]) -> list[Gap]:
    """The pinned parts of what was dropped, in order."""
    return [part for gap in gaps for part in _parts(gap, pinned_lines(pins, gap.recall_id))]


def _parts(gap: Gap, pinned: set[int]) -> Iterator[Gap]:
    start: int | None = None
    for index in range(gap.start, gap.stop + 1):
        is_pinned = index < gap.stop and index in pinned
        if is_pinned and start is None:
            start = index
        elif not is_pinned and start is not None:
            yield replace(gap, start=start, stop=index)
            start = None
