"""Reads a request's messages as far as the ledger needs them: which of them are one, their identities, their hashes.

What the conversation's last request began with is taken from its trail. Knows no store.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sluice.compressor import ledger, replies
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.lru import LRU
from sluice.compressor.trail import Digest, Trail, Trails
from sluice.compressor.turn import parse
from sluice.compressor.types import Message, Role


@dataclass(frozen=True, slots=True)
class Reading:
    """A request's messages, read. Those that stand for one reply are one (see `replies.py`)."""

    leading: Sequence[Digest]
    """System messages before all others: they may change with every request (a date, a branch …), and so are no part
    of the chain."""
    sent: Sequence[bytes]
    """The others, as the client sent them."""
    digests: Sequence[Digest]
    """Of each of `sent`."""
    stops: Sequence[int]
    """Where each message ends in `sent`."""
    raws: Sequence[Sequence[bytes]]
    """Each message, in as many texts as it came in."""
    identities: Sequence[bytes]
    hashes: Sequence[bytes]
    num_chars: Sequence[int]
    parsed: Mapping[bytes, Message]
    """By their text, those that had to be read for the first time."""
    trail: Trail
    """The request that this one continues; an empty one where there is none."""
    num_same: int
    """Messages at the beginning that are there the same, byte for byte."""
    num_known: int
    """Messages at the beginning that are there, less what clients move about."""

    @property
    def num_chars_in(self) -> int:
        """Characters of all messages."""
        return sum(digest.num_chars for digest in self.leading) + sum(self.num_chars)

    def role(self, index: int) -> Role:
        """Whose a message is."""
        return self.digests[self.stops[index] - 1].role

    @property
    def is_begun(self) -> bool:
        """Whether the model has said anything yet."""
        return any(digest.role == "assistant" for digest in self.digests)


class Reader:
    """Reads requests; remembers what it has read.

    Args:
        max_digests: messages whose digests are kept.
        trails: the last requests of conversations.
    """

    def __init__(self, max_digests: int, trails: Trails) -> None:
        self._digests: LRU[bytes, Digest] = LRU(max_digests)
        self._trails = trails

    def num_chars(self, messages: Sequence[bytes], dialect: Dialect) -> int:
        """Characters of messages."""
        return sum(self._digest(raw, dialect, {}).num_chars for raw in messages)

    def read(self, messages: Sequence[bytes], dialect: Dialect, start: bytes) -> Reading:
        """Read a request's messages.

        Args:
            messages: JSON of each.
            dialect: of these messages.
            start: see `ledger.chain_start`.
        """
        parsed: dict[bytes, Message] = {}
        leading: list[Digest] = []
        while len(leading) < len(messages):
            digest = self._digest(messages[len(leading)], dialect, parsed)
            if digest.role != "system":
                break
            leading.append(digest)
        sent = messages[len(leading) :]
        trail = self._trail(sent, dialect, start, parsed)
        num_raws = trail.num_same(sent)
        digests = [*trail.digests[:num_raws], *(self._digest(raw, dialect, parsed) for raw in sent[num_raws:])]
        # The last of the messages that are there may go on in what is new.
        num_same = max(0, bisect_right(trail.stops, num_raws) - 1)
        done = trail.stops[num_same - 1] if num_same else 0
        runs = [
            slice(done + run.start, done + run.stop) for run in replies.runs([digest.role for digest in digests[done:]])
        ]
        identities = [*trail.identities[:num_same], *(_identity(digests[run]) for run in runs)]
        num_known = trail.num_known(identities)
        hashes = [*trail.hashes[:num_known]]
        hashes += ledger.chain(hashes[-1] if hashes else start, identities[num_known:])
        return Reading(
            leading=leading,
            sent=sent,
            digests=digests,
            stops=[*trail.stops[:num_same], *(run.stop for run in runs)],
            raws=[*trail.raws[:num_same], *(sent[run] for run in runs)],
            identities=identities,
            hashes=hashes,
            num_chars=[
                *trail.num_chars[:num_same],
                *(sum(digest.num_chars for digest in digests[run]) for run in runs),
            ],
            parsed=parsed,
            trail=trail,
            num_same=num_same,
            num_known=num_known,
        )

    def _trail(self, sent: Sequence[bytes], dialect: Dialect, start: bytes, parsed: dict[bytes, Message]) -> Trail:
        first: list[Digest] = []
        for raw in sent:
            digest = self._digest(raw, dialect, parsed)
            if first and not (digest.role == first[-1].role == "assistant"):
                break
            first.append(digest)
        return self._trails.find(ledger.chain(start, [_identity(first)])[0], sent) if first else Trail()

    def _digest(self, raw: bytes, dialect: Dialect, parsed: dict[bytes, Message]) -> Digest:
        key = blake2b(raw, digest_size=16, person=dialect.name.encode()[:16]).digest()
        digest = self._digests.get(key)
        if digest is None:
            message = parsed[raw] = parse(raw, dialect)
            pieces = message.pieces or (message.identity,)
            digest = Digest(message.identity, message.role, message.num_chars, pieces)
            self._digests.put(key, digest)
        return digest


def _identity(digests: Sequence[Digest]) -> bytes:
    """Of a message that came as so many."""
    if len(digests) == 1:
        return digests[0].identity
    return replies.identity(piece for digest in digests for piece in digest.pieces)
