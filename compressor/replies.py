"""What a model says in one go is one message to the compressor, in however many pieces a client sends it.

The Responses format has an item for each thought and each call; Claude Code puts assistant messages that share an id
together on a later turn. Providers read both as one message of the assistant's, and nothing in them is ever rewritten.
Plain functions; knows no wire format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from sluice.compressor.types import Message, Role


def runs(roles: Sequence[Role]) -> list[slice]:
    """Where each message lies among those that the client sent: assistant messages in a row are one.

    Args:
        roles: of the messages, in order.
    """
    found: list[slice] = []
    start, before = 0, ""
    for index, role in enumerate(roles):
        if index and not (role == before == "assistant"):
            found.append(slice(start, index))
            start = index
        before = role
    if roles:
        found.append(slice(start, len(roles)))
    return found


def identity(pieces: Iterable[bytes]) -> bytes:
    """Digest (16 bytes) of a reply: the same, however its pieces (see `Message.pieces`) are spread over messages."""
    return blake2b(b"".join(pieces), digest_size=16).digest()


def joined(messages: Sequence[Message]) -> Message:
    """Several messages of the assistant's as one."""
    if len(messages) == 1:
        return messages[0]
    pieces = tuple(piece for message in messages for piece in message.pieces or (message.identity,))
    return Message(
        role="assistant",
        texts=tuple(text for message in messages for text in message.texts),
        calls=tuple(call for message in messages for call in message.calls),
        identity=identity(pieces),
        num_chars=sum(message.num_chars for message in messages),
        pieces=pieces,
    )
