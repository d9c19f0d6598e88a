"""What can go wrong in the compressor.

CompressorError
├── MalformedMessageError   a message is not of its dialect's form
├── StateError              the store did not answer, or not in time
│   └── StateRefusedError   the store answered, and takes nothing: it is full, or may only be read
├── UnknownRecallError      no original is kept under this id
├── AmbiguousRecallError    the short id fits several originals
└── TooManyPinsError        a conversation has as many pins as it may have
"""

from __future__ import annotations

from collections.abc import Mapping


class CompressorError(Exception):
    """Base of all errors that the compressor raises."""


class MalformedMessageError(CompressorError):
    """A message is not of its dialect's form, so that it cannot be read; it can still be forwarded."""


class StateError(CompressorError):
    """The state store did not answer, or not in time. A miss is no error.

    Args:
        message: what failed.
        known: records that could be told without the store, by key.
    """

    def __init__(self, message: str, known: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(message)
        self.known = known or {}


class StateRefusedError(StateError):
    """The store answered that it does not do this: it is full, or may only be read. What it holds is still there."""


class UnknownRecallError(CompressorError):
    """No original is kept under this id for this tenant."""

    def __init__(self, recall_id: str) -> None:
        super().__init__(
            f"no original is kept under id {recall_id!r}: it never was, it has expired, or another key owns it"
        )
        self.recall_id = recall_id


class AmbiguousRecallError(CompressorError):
    """The short id fits several originals of this tenant."""

    def __init__(self, recall_id: str, full_ids: list[str]) -> None:
        super().__init__(f"id {recall_id!r} fits {len(full_ids)} originals; name one in full: {', '.join(full_ids)}")
        self.recall_id = recall_id
        self.full_ids = full_ids


class TooManyPinsError(CompressorError):
    """A conversation has as many pins as it may have."""

    def __init__(self, max_pins: int) -> None:
        super().__init__(f"this conversation's pins were changed {max_pins} times, which is as often as they may be")
