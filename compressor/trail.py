"""What this process keeps of a conversation's last request, so that the next one looks at its new messages alone.

Records are written once, so that one that was read or written here never becomes stale; what was not there is asked
for again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sluice.compressor.ledger import Rendition
from sluice.compressor.lru import LRU
from sluice.compressor.types import Role

_MAX_BRANCHES = 4
"""Requests kept of one conversation: agents begin several with the same words, and go back in them."""
_MAX_LEFT_MESSAGES = 4
"""So many at its end may be missing from a request that goes on with another one: agents put reminders there that
change with every turn, and go back a step."""
_BYTES_A_MESSAGE = 700
"""What a message takes beside its bytes."""
_MIN_MESSAGES = 8
"""Shorter ones are looked at anew for nothing."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What every later turn needs of a message that was read once."""

    identity: bytes
    role: Role
    num_chars: int
    pieces: tuple[bytes, ...]
    """See `Message.pieces`."""


@dataclass(frozen=True, slots=True)
class Trail:
    """A request that was answered out of the ledger as a whole. Leading system messages are left out throughout."""

    sent: Sequence[bytes] = ()
    """As the client sent them."""
    digests: Sequence[Digest] = ()
    """Of each of `sent`."""
    stops: Sequence[int] = ()
    """See `Reading`, as for the next four."""
    raws: Sequence[Sequence[bytes]] = ()
    identities: Sequence[bytes] = ()
    hashes: Sequence[bytes] = ()
    num_chars: Sequence[int] = ()
    records: Sequence[Rendition | None] = ()
    """What the ledger holds of each message."""
    refused: Mapping[int, Rendition] = field(default_factory=dict)
    """See `Turn.refused`."""
    renditions: list[Rendition] = field(default_factory=list)
    """What is in force."""
    num_markers: int = 0
    """Of all renditions together, as the next two."""
    num_lines_omitted: int = 0
    num_chars_saved: int = 0
    forwarded: Sequence[bytes] = ()
    """What went out, one for each of `sent`."""
    looked_up_s: float = 0.0
    """When its records were last asked for in the store, by which they live on there: by the wall clock."""

    def num_same(self, sent: Sequence[bytes]) -> int:
        """With how many of the texts that the client sent a request begins, byte for byte."""
        return _num_common(sent, self.sent)

    def num_known(self, identities: Sequence[bytes]) -> int:
        """How many of its messages a request begins with, less what clients move about."""
        return _num_common(identities, self.identities)


class Trails:
    """The last requests of the conversations that were used last.

    Args:
        max_bytes: how much of them, by estimate; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._trails: LRU[bytes, list[Trail]] = LRU(max_bytes, _num_bytes)

    def find(self, root: bytes, sent: Sequence[bytes]) -> Trail:
        """The request that has most in common with this one; an empty one where there is none.

        Args:
            root: chain hash of the conversation's first message.
            sent: the request's messages.
        """
        return max(self._trails.get(root) or (), key=lambda trail: trail.num_same(sent), default=Trail())

    def put(self, trail: Trail, continued: Trail) -> None:
        """Keep a request, in place of the one that it continues.

        Not in place of a branch that has gone far since they parted: that goes on as well.
        """
        if len(trail.sent) < _MIN_MESSAGES:
            return
        num_left = len(continued.hashes) - _num_common(trail.hashes, continued.hashes)
        others = [
            other
            for other in self._trails.get(trail.hashes[0]) or ()
            if other is not continued or num_left > _MAX_LEFT_MESSAGES
        ]
        self._trails.put(trail.hashes[0], [trail, *others[: _MAX_BRANCHES - 1]])

    def drop(self, root: bytes) -> None:
        """Forget a conversation."""
        self._trails.pop(root)


def _num_bytes(trails: Sequence[Trail]) -> int:
    """By estimate, as if branches had nothing in common."""
    return sum(sum(map(len, trail.sent)) + _BYTES_A_MESSAGE * len(trail.num_chars) for trail in trails)


def _num_common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    stop = min(len(one), len(other))
    if one[:stop] == other[:stop]:
        return stop
    return next((index for index in range(stop) if one[index] != other[index]), stop)
