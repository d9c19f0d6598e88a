"""What of the ledger's records holds for a request: which rendition of each message is in force.

A message has the rendition that it was first forwarded as, and one more for each epoch that rewrote it; the latest is
in force. Where the client changed an earlier message, what refers to it no longer holds, nor what refers to that; the
rest stays as it is. Plain functions of the records; nothing here decides anything anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sluice.compressor.ledger import Override, Rendition, short


@dataclass(frozen=True, slots=True)
class Epoch:
    """A rewrite of earlier messages."""

    at: float
    """When: the index of its request's newest message, and half a step later if the upstream had refused that."""
    overrides: Mapping[int, Override]


def epochs_of(records: Sequence[Rendition | None], refused: Mapping[int, Rendition], *, start: int = 0) -> list[Epoch]:
    """The epochs of a conversation, in their order.

    Args:
        records: of each message.
        refused: by index of a request's newest message, the epoch that began when the upstream refused it.
        start: index of the first message that is looked at.
    """
    found: list[Epoch] = []
    for index in range(start, len(records)):
        record = records[index]
        if record is not None and record.epoch:
            found.append(Epoch(index, record.epoch))
        later = refused.get(index)
        if later is not None and later.epoch:
            found.append(Epoch(index + 0.5, later.epoch))
    return found


def latest(
    records: Sequence[Rendition | None],
    epochs: Sequence[Epoch],
    identities: Sequence[bytes],
    known: Sequence[Rendition] = (),
) -> list[Rendition | None]:
    """What is in force where every message is as it was.

    Args:
        records: of each message.
        epochs: in their order.
        identities: of each message.
        known: what was in force for the first messages before these epochs.
    """
    renditions = [*known, *records[len(known) :]]
    for epoch in epochs:
        for index, override in epoch.overrides.items():
            if index < len(identities) and override.identity == identities[index]:
                renditions[index] = override.rendition
    return renditions


def settle(
    records: Sequence[Rendition | None], epochs: Sequence[Epoch], identities: Sequence[bytes]
) -> list[Rendition | None]:
    """What still holds where some message was changed; None for what has to be decided anew.

    A rendition holds while every message that it refers to is the one that it was made for, and is forwarded as it was
    at some time at which the rendition stood: when it was made, or when an epoch looked at it again and left it as it
    was. That there is a record of such a message does not say so: the client may have changed that one before, too.

    Args:
        records: of each message; None where there is none, as for those that the client changed.
        epochs: in their order.
        identities: of each message, as it is now.
    """
    ends = [index for index, record in enumerate(records) if record is not None and record.turn]
    history = _History(epochs)
    in_force: list[Rendition | None] = []
    made_at: list[float | None] = []
    for index, record in enumerate(records):
        versions: list[tuple[float | None, Rendition]] = [
            (epoch.at, override.rendition)
            for epoch in reversed(epochs)
            if (override := epoch.overrides.get(index)) is not None and override.identity == identities[index]
        ]
        versions += [(None, record)] if record is not None else []
        for version, rendition in versions:
            if rendition.referred and rendition.referred != tuple(
                short(identities[position - 1]) for position in rendition.references
            ):
                continue
            end = bisect_left(ends, index)
            first = version if version is not None else float(ends[end]) if end < len(ends) else float(index)
            if any(
                all(
                    in_force[position - 1] is not None
                    and made_at[position - 1] == history.version_at(position - 1, moment)
                    for position in rendition.references
                )
                for moment in history.moments(index, first)
            ):
                in_force.append(rendition)
                made_at.append(version)
                break
        else:
            in_force.append(None)
            made_at.append(None)
    return in_force


class _History:
    """Which epoch rewrote what, and when."""

    def __init__(self, epochs: Sequence[Epoch]) -> None:
        self._epochs = epochs

    def version_at(self, index: int, moment: float) -> float | None:
        """The epoch whose rendition of a message was in force at a moment; None for its first rendition."""
        return next(
            (epoch.at for epoch in reversed(self._epochs) if epoch.at <= moment and index in epoch.overrides), None
        )

    def moments(self, index: int, made_at: float) -> Iterator[float]:
        """When a rendition of a message stood: when it was made, and at each epoch until one that changed it."""
        yield made_at
        for epoch in self._epochs:
            if epoch.at > made_at:
                if index in epoch.overrides:
                    return
                yield epoch.at
