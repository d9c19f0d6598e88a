"""What was decided, byte for byte: renditions by chain hash.

A conversation needs no id. Each message's chain hash names the position, so that branches, rewinds and sub-agents
fall out of it: h_i = H(h_(i-1) ‖ message_i), as in a hash chain. Knows bytes and hashes, not what they say.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from hashlib import blake2b

import msgspec

RECORD_VERSION = 1
"""Of the record's form. A record of another version reads as a miss."""


class Reason(StrEnum):
    """Why lines were dropped."""

    SEEN_ABOVE = "seen above"
    """The forwarded request shows them elsewhere."""
    REPEATED = "repeated"
    """They repeat the line before them."""
    NOT_NEEDED = "not needed"
    """They were judged not to be worth their tokens."""


class TurnRecord(msgspec.Struct, array_like=True, frozen=True):
    """A conversation as of one request: stands in the rendition of that request's newest message."""

    at_s: float
    """When the request was made, by the wall clock."""
    num_turns: int
    """Requests of the conversation so far, this one included."""
    banked: float
    """What the conversation has cost less than untouched, in plain input tokens."""
    context: bytes
    """Digest of what else the provider's cache depends on: model, tools, system prompt."""
    is_holdout: bool = False
    """Whether the conversation goes through untouched, to measure the others against."""


class Omitted(msgspec.Struct, array_like=True, frozen=True):
    """Lines of one text that a marker stands for, from 0 in the text as the client sent it."""

    text_index: int
    start: int
    stop: int
    """Line after the last."""
    reason: Reason
    score: float | None = None
    """The keep probability of its line that is most likely needed, where lines were judged; 0 to 1."""


class Override(msgspec.Struct, array_like=True, frozen=True):
    """What an epoch forwards an earlier message as."""

    identity: bytes
    """Of the message, which a client may have changed since."""
    rendition: Rendition


class Rendition(msgspec.Struct, array_like=True, frozen=True):
    """What a message is forwarded as, frozen."""

    record_version: int
    policy_version: int
    body: bytes | None = None
    """JSON of the message less `cache_control`; None where the client's own bytes go out."""
    num_markers: int = 0
    num_lines_omitted: int = 0
    num_chars_saved: int = 0
    """Characters by which the message became shorter."""
    references: tuple[int, ...] = ()
    """Positions of the messages whose lines its markers refer to."""
    omitted: tuple[Omitted, ...] = ()
    restored: tuple[tuple[int, int, int, int], ...] = ()
    """Lines that are given back at its end: position of their message, index of the text, first line, line after."""
    turn: TurnRecord | None = None
    """Set on the newest message of a request."""
    epoch: dict[int, Override] | None = None
    """An epoch that began with this message: from here on, the messages at these indexes are forwarded so."""
    referred: tuple[bytes, ...] = ()
    """Short identities of the messages at `references`; empty in records of versions that did not note them."""


def short(identity: bytes) -> bytes:
    """So much of a message's identity (8 of 16 bytes) as tells what stands at one position from what stood there."""
    return identity[:8]


def chain_start(tenant: bytes, upstream: str) -> bytes:
    """h_0: conversations of different tenants or upstreams share nothing."""
    return _digest(_digest(tenant) + _digest(upstream.encode()))


def chain(start: bytes, identities: Iterable[bytes]) -> list[bytes]:
    """h_1 … h_n of the messages with these identities (16 bytes each)."""
    hashes: list[bytes] = []
    head = start
    for identity in identities:
        head = _digest(head + identity)
        hashes.append(head)
    return hashes


def place(root: bytes, index: int, identity: bytes) -> bytes:
    """Key under which a message is found again though a message before it was changed.

    Args:
        root: chain hash of the conversation's first message.
        index: of the message in the conversation.
        identity: of the message.
    """
    return _digest(b"place" + root + index.to_bytes(4, "big") + identity)


def is_held_out(root: bytes, share: float) -> bool:
    """Whether a new conversation belongs to the share that goes through untouched.

    Args:
        root: chain hash of its first message; the same conversation is drawn the same everywhere.
        share: from 0 (none) to 1 (all).
    """
    return int.from_bytes(_digest(b"holdout" + root)[:8], "big") < share * 2**64


def refusal(head: bytes) -> bytes:
    """Key of the epoch that began when the upstream refused a request as too long.

    Args:
        head: chain hash of that request's newest message, whose own record had been written by then.
    """
    return _digest(b"refused" + head)


def context_digest(context: bytes, system_identities: Iterable[bytes]) -> bytes:
    """Digest of what the provider's cache depends on beside the messages of the chain."""
    return _digest(_digest(context) + b"".join(system_identities))


def recall_id(identity: bytes, text_index: int) -> str:
    """Id (32 hex digits) of one original text: the same in every process, so that a lost record is rebuilt the same."""
    return _digest(identity + text_index.to_bytes(4, "big")).hex()


def encode(rendition: Rendition) -> bytes:
    """Write a record."""
    return _ENCODER.encode(rendition)


def decode(record: bytes) -> Rendition | None:
    """Read a record; None where its form is not known, which counts as a miss."""
    try:
        rendition = _DECODER.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return rendition if rendition.record_version == RECORD_VERSION else None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Rendition)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
