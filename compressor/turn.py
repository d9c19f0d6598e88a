"""One request of a conversation: its messages, what the ledger holds of them, and what becomes of each.

Decides nothing; see `advance.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from sluice.compressor.dialects.base import Dialect
from sluice.compressor.economics import Rewrite
from sluice.compressor.errors import MalformedMessageError
from sluice.compressor.frozen import epochs_of, latest, settle
from sluice.compressor.ledger import RECORD_VERSION, Override, Rendition, TurnRecord
from sluice.compressor.pins import Pin
from sluice.compressor.replies import joined
from sluice.compressor.settings import POLICY_VERSION
from sluice.compressor.types import Bypass, Message


@dataclass(slots=True)
class Turn:
    """The messages of one request, less the leading system messages, and what becomes of them."""

    raws: Sequence[Sequence[bytes]]
    """As the client sent them: one JSON text each, or several for a reply that came in pieces."""
    hashes: Sequence[bytes]
    """Chain hash of each."""
    identities: Sequence[bytes]
    """Identity of each."""
    num_chars: Sequence[int]
    """Of each, as sent."""
    dialect: Dialect
    records: list[Rendition | None]
    """What the ledger holds of each; None where it holds nothing."""
    at_s: float
    """The wall clock."""
    context: bytes
    """See `TurnRecord.context`."""
    parsed: Mapping[bytes, Message] = field(default_factory=dict)
    """By their text, those that had to be read to tell what they are."""
    moved: Sequence[int] = ()
    """Indexes of messages whose records were found behind one that the client changed. Those that still hold are
    written anew where they are now, the others are forgotten."""
    inherited: Mapping[int, Override] = field(init=False)
    """Epochs whose own messages were forgotten, and that go on to hold: the newest message takes them over."""
    refused: Mapping[int, Rendition] = field(default_factory=dict)
    """By index of a request's newest message: the epoch that began when the upstream refused that request, and the
    turn as it was then. Found for the last few messages alone: later turns carry it on."""
    known: list[Rendition] = field(default_factory=list)
    """What the first messages were forwarded as by a request that this one continues, with the same refusals; empty
    where that has to be found out."""
    num_chars_saved_known: int = 0
    """Characters by which those are shorter, together."""
    pins: Sequence[Pin] = ()
    """Lines that a person wants kept."""
    addition: str = ""
    """What stands behind a summary that is new in this request; see `instructions.py`."""
    max_tokens: int | None = None
    """What the forwarded messages may hold at the most; None bounds nothing."""
    is_holdout: bool = False
    """Whether the conversation goes through untouched."""
    renditions: list[Rendition | None] = field(init=False)
    """What each is forwarded as; None where it is not decided yet."""
    new: list[int] = field(init=False)
    """Indexes of the messages that the ledger did not hold."""
    originals: dict[str, str] = field(default_factory=dict)
    bypass: Bypass | None = None
    rewrite: Rewrite | None = None
    begun: Mapping[int, Override] = field(default_factory=dict)
    """What that makes of earlier messages."""

    def __post_init__(self) -> None:
        self.inherited = {}
        if not self.moved:
            epochs = epochs_of(self.records, self.refused, start=len(self.known))
            self.renditions = latest(self.records, epochs, self.identities, self.known)
        else:
            self.renditions = settle(self.records, epochs_of(self.records, self.refused), self.identities)
            self._forget()
        self.new = [index for index in range(len(self.known), len(self.records)) if self.records[index] is None]

    def message(self, index: int) -> Message:
        """A message, read."""
        return joined([self.parsed.get(raw) or parse(raw, self.dialect) for raw in self.raws[index]])

    def forked(self) -> Turn:
        """A copy to be decided elsewhere, while this one may still be decided otherwise."""
        fork = copy(self)
        fork.renditions, fork.originals = list(self.renditions), dict(self.originals)
        return fork

    @property
    def num_old(self) -> int:
        """Messages before the first new one: all that the provider can have seen."""
        return self.new[0] if self.new else len(self.raws)

    def settled(self, index: int) -> Rendition | None:
        """A record that was found behind a changed message, less what its epoch no longer holds for.

        Where an epoch has rewritten the message and the record's own rendition refers to others, it is less that, too:
        it may hold no longer, and would be in force where a request ends before the epoch.
        """
        record = self.records[index]
        if record is not None and record.references and self.renditions[index] is not record:
            record = Rendition(RECORD_VERSION, POLICY_VERSION, turn=record.turn, epoch=record.epoch)
        inherited = self.inherited if index == len(self.raws) - 1 else {}
        if record is None or not (record.epoch or inherited):
            return record
        return msgspec.structs.replace(record, epoch=self._holding({**inherited, **(record.epoch or {})}) or None)

    @property
    def before(self) -> TurnRecord | None:
        """What the conversation's last request left behind; None on its first."""
        for index in reversed(range(len(self.records))):
            record = self.records[index]
            if record is not None and record.turn:
                return self.refused[index].turn if index in self.refused else record.turn
        return None

    @property
    def handed_on(self) -> Mapping[int, Override]:
        """Epochs that no record of the chain holds yet: the newest message's will."""
        indexes = reversed(range(len(self.records)))
        newest = next((i for i in indexes if (record := self.records[i]) is not None and record.turn), -1)
        refused = self.refused.get(newest)
        return {**(refused.epoch if refused is not None and refused.epoch else {}), **self.inherited}

    def in_force(self) -> list[Rendition | None]:
        """The renditions that are forwarded: each message's own, but for those that a later epoch rewrote."""
        renditions = latest(self.records, epochs_of(self.records, self.refused), self.identities)
        for index, override in self.inherited.items():
            renditions[index] = override.rendition
        return renditions

    def _forget(self) -> None:
        """Take out the records of moved messages that no longer hold; their epochs are inherited as far as they do."""
        forgotten = [index for index in self.moved if self.renditions[index] is None]
        inherited: dict[int, Override] = {}
        for index in forgotten:
            record = self.records[index]
            assert record is not None, "only what was found is moved"
            inherited.update(self._holding(record.epoch or {}))
            self.records[index] = None
        self.inherited = inherited
        self.moved = [index for index in self.moved if self.records[index] is not None]

    def _holding(self, epoch: Mapping[int, Override]) -> dict[int, Override]:
        return {at: override for at, override in epoch.items() if self.renditions[at] is override.rendition}


def parse(raw: bytes, dialect: Dialect) -> Message:
    """Read a message; one that is not of its dialect's form is opaque, and goes out as it came."""
    try:
        return dialect.parse(raw)
    except MalformedMessageError:
        return Message("user", (), (), identity=blake2b(raw, digest_size=16).digest(), num_chars=len(raw))
