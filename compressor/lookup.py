"""From a request's messages to the turn that is to be decided: what the ledger holds of each, in one round trip.

What the last request of the conversation left in this process is not asked for again, but for once in a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sluice.compressor import ledger, pins
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.reading import Reading
from sluice.compressor.records import Records
from sluice.compressor.turn import Turn

_MAX_NEW_MESSAGES = 32
"""More messages than arrive in one turn: among the last so many stands the newest one of the turn before."""
_SLIDE_S = 600.0
"""How often a conversation's records are all asked for in the store, by which they live on there."""


@dataclass(frozen=True, slots=True)
class Found:
    """A turn, with what the ledger holds of it."""

    turn: Turn
    is_pinned: bool
    """Whether lines of its conversation are pinned."""
    looked_up_s: float
    """When all its records were last asked for, by the wall clock."""


class Lookup:
    """Looks turns up.

    Args:
        records: where.
        clock: the wall clock, in seconds.
        has_pins: whether lines may be pinned; else none are looked for.
    """

    def __init__(self, records: Records, clock: Callable[[], float], *, has_pins: bool) -> None:
        self._records = records
        self._clock = clock
        self._has_pins = has_pins

    async def find(self, reading: Reading, dialect: Dialect, context: bytes, max_tokens: int | None) -> Found | None:
        """What the ledger holds of a request; None where the store is lost and nothing is known of what has begun.

        Args:
            reading: of its messages, at least one.
            dialect: of these messages.
            context: see `Compressor.compress`.
            max_tokens: see `Compressor.compress`.
        """
        trail, hashes, at_s = reading.trail, reading.hashes, self._clock()
        num_known = reading.num_known if 0 <= at_s - trail.looked_up_s < _SLIDE_S else 0
        recent = range(max(0, len(hashes) - _MAX_NEW_MESSAGES, num_known - 1), len(hashes))
        keys = [*hashes[num_known:], *(ledger.refusal(hashes[index]) for index in recent)]
        if self._has_pins:
            keys.append(pins.slot(hashes[0], 0))
        found, is_lost = await self._records.look_up(keys)
        is_pinned = self._has_pins and found.pop() is not None
        num_asked = len(hashes) - num_known
        # Where the model has said nothing yet there is nothing to be known: what goes out now is what is frozen.
        if is_lost and not num_known and reading.is_begun and not any(found[:num_asked]):
            return None
        records = [*trail.records[:num_known]]
        records += map(self._records.read, hashes[num_known:], found[:num_asked])
        unknown = [index for index in range(num_known, len(records)) if records[index] is None]
        if not is_lost and unknown and unknown[0] > 0 and any(reading.role(i) == "assistant" for i in unknown[1:]):
            # A turn's first new message is the reply to the turn before. An unknown reply behind another unknown
            # message, where the beginning is known, says that the client changed an earlier one.
            records = await self._records.find_again(records, hashes, reading.identities)
        refused = {
            index: rendition
            for index, record in zip(recent, found[num_asked:], strict=True)
            if record and (rendition := self._records.decode(record)) is not None
        }
        first = max(0, len(hashes) - _MAX_NEW_MESSAGES)
        refused |= {index: one for index, one in trail.refused.items() if first <= index < num_known - 1}
        is_continued = 0 < num_known == len(trail.hashes) and (
            not (trail.refused or refused)
            or all(trail.refused.get(index) == refused.get(index) for index in range(first, num_known))
        )
        turn = Turn(
            raws=reading.raws,
            parsed=reading.parsed,
            hashes=hashes,
            identities=reading.identities,
            num_chars=reading.num_chars,
            dialect=dialect,
            records=records,
            refused=refused,
            moved=[index for index in unknown if records[index] is not None],
            known=trail.renditions if is_continued else [],
            num_chars_saved_known=trail.num_chars_saved if is_continued else 0,
            at_s=at_s,
            context=ledger.context_digest(context, (digest.identity for digest in reading.leading)),
            max_tokens=max_tokens,
            bypass="state" if is_lost else None,
        )
        return Found(turn, is_pinned, trail.looked_up_s if num_known else at_s)
