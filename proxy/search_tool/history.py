"""Finds, in a request's messages, where exchanges belong that the client did not see. Plain functions.

An exchange stands under the chain hash of the message that it answered, and what tells the answer from others to the
same messages. Of an answer that is what the client shows of it whatever it makes of its form: the text less its white
space, and the first call's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from sluice.compressor.types import Message
from sluice.proxy.search_tool.form import Form, Kept

Run = tuple[int, int]
"""The messages of one turn of the assistant's: the index of the first, and the one after the last."""


def decision_key(root: bytes) -> bytes:
    """Where it stands whether a conversation has the tool.

    Args:
        root: chain hash of its first message.
    """
    return _digest(b"search tool" + root)


def exchange_key(head: bytes, answer: bytes) -> bytes:
    """Where an exchange stands.

    Args:
        head: chain hash of the newest message of the request that it answered.
        answer: its fingerprint.
    """
    return _digest(b"search exchange" + head + answer)


def fingerprint(messages: Iterable[Message]) -> bytes:
    """16 bytes that tell an answer from others, as long as the client gives back its words and its calls.

    Args:
        messages: the assistant's, in a row. What stands behind the first that calls does not count: some clients put
            each call's result right behind it.
    """
    said: list[str] = []
    for message in messages:
        said += ["".join(text.text.split()) for text in message.texts]
        if message.calls:
            return _digest("".join((*said, "\0", message.calls[0].id)).encode(errors="surrogatepass"))
    return _digest("".join(said).encode(errors="surrogatepass"))


def restored(messages: Sequence[bytes], exchanges: Mapping[Run, Kept], form: Form) -> list[bytes]:
    """The messages with what the client did not see back in its place.

    Args:
        messages: the client's.
        exchanges: by the turn that the client saw of each.
        form: of the messages.
    """
    out: list[bytes] = []
    done = 0
    for (start, stop), kept in sorted(exchanges.items()):
        after = messages[stop] if stop < len(messages) else None
        out += messages[done:start]
        out += form.restored(messages[start:stop], after, kept)
        done = stop + (after is not None)
    return [*out, *messages[done:]]


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
