"""From a decided turn to what is forwarded, and to what the next request goes on from. Plain functions."""

from __future__ import annotations

from dataclasses import replace

from sluice.compressor.reading import Reading
from sluice.compressor.trail import Trail
from sluice.compressor.turn import Turn
from sluice.compressor.types import Compressed


def forwarded(turn: Turn, reading: Reading, as_sent: Compressed) -> Compressed:
    """What goes out. Of messages that have not changed, as long as nothing else stands for them, what went out before.

    An epoch, begun here or found, changes what stands for messages that have not changed.
    """
    renditions = [rendition for rendition in turn.renditions if rendition is not None]
    assert len(renditions) == len(turn.raws), "every message is decided by now"
    trail, num_same = reading.trail, reading.num_same
    num_before = len(trail.renditions)
    if renditions[:num_before] == trail.renditions:
        num_markers, num_lines, num_chars = trail.num_markers, trail.num_lines_omitted, trail.num_chars_saved
    else:
        num_before = num_same = num_markers = num_lines = num_chars = 0
    messages = as_sent.messages[: len(as_sent.messages) - len(reading.sent)]
    messages += trail.forwarded[: trail.stops[num_same - 1] if num_same else 0]
    for raws, rendition in zip(turn.raws[num_same:], renditions[num_same:], strict=True):
        messages += raws if rendition.body is None else [turn.dialect.carry(raws[0], rendition.body)]
    for rendition in renditions[num_before:]:
        num_markers += rendition.num_markers
        num_lines += rendition.num_lines_omitted
        num_chars += rendition.num_chars_saved
    return replace(
        as_sent,
        messages=messages,
        conversation=turn.hashes[0].hex(),
        is_holdout=turn.is_holdout,
        bypass=turn.bypass,
        epoch=turn.rewrite.reason if turn.rewrite else None,
        num_new=sum(len(turn.raws[index]) for index in turn.new),
        num_markers=num_markers,
        num_lines_omitted=num_lines,
        num_chars_out=as_sent.num_chars_in - num_chars,
        renditions=renditions,
        originals=turn.originals,
    )


def trail_of(turn: Turn, reading: Reading, compressed: Compressed, looked_up_s: float) -> Trail:
    """What is kept of a request that was answered out of the ledger as a whole.

    Args:
        turn: decided, and written.
        reading: of its messages.
        compressed: what it came to.
        looked_up_s: when all its records were last asked for in the store, by the wall clock.
    """
    return Trail(
        sent=reading.sent,
        digests=reading.digests,
        stops=reading.stops,
        raws=reading.raws,
        identities=reading.identities,
        hashes=reading.hashes,
        num_chars=reading.num_chars,
        records=turn.records,
        refused=turn.refused,
        renditions=list(compressed.renditions),
        num_markers=compressed.num_markers,
        num_lines_omitted=compressed.num_lines_omitted,
        num_chars_saved=compressed.num_chars_in - compressed.num_chars_out,
        forwarded=compressed.messages[len(compressed.messages) - len(reading.sent) :],
        looked_up_s=looked_up_s,
    )
