"""A request as it is kept to be looked at: the client's messages, what was forwarded, and what was dropped and why.

Only where `store_content` asks for it. Packed with msgpack and zstd: a conversation repeats itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import zstandard

from sluice.backend.surrogates import whole
from sluice.compressor import Dialect
from sluice.compressor.economics import CHARS_PER_TOKEN
from sluice.compressor.instructions import words_of
from sluice.compressor.ledger import Omitted
from sluice.compressor.turn import parse
from sluice.proxy.meter.composition import Arrived, shares_of
from sluice.proxy.wire import WireName

_LEVEL = 1
_MAX_TITLE_CHARS = 120
_MAX_FILES = 40
_SPACE = re.compile(r"\s+")
_MAX_UNPACKED_BYTES = 512 * 2**20


class KeptMessage(msgspec.Struct, array_like=True, frozen=True):
    """One message of a request."""

    raw: bytes
    """As the client sent it."""
    forwarded: bytes | None = None
    """As it was forwarded; None where those are the client's bytes."""
    omitted: tuple[Omitted, ...] = ()


class KeptRequest(msgspec.Struct, array_like=True, frozen=True):
    """The last request of a conversation."""

    wire: WireName
    num_leading: int
    """System messages before the first message that a marker can name."""
    messages: tuple[KeptMessage, ...]


class FileShare(msgspec.Struct, array_like=True, frozen=True):
    """What of a request one file makes up, in tokens estimated from characters."""

    path: str
    tokens_in: int
    tokens_out: int


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """What lists show of a request that is kept."""

    conversation: str
    tenant: bytes
    """Whose it is: nobody else is shown it, but for the proxy's owner."""
    at_s: float
    title: str
    """Of what the user said first."""
    files: tuple[FileShare, ...] = ()
    """The largest, largest first."""


def pack(request: KeptRequest) -> bytes:
    """Make it small."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(msgspec.msgpack.encode(request))


def unpack(data: bytes) -> KeptRequest | None:
    """Read it again; None where another version wrote it in another form."""
    try:
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_UNPACKED_BYTES)
        return msgspec.msgpack.decode(plain, type=KeptRequest)
    except (zstandard.ZstdError, msgspec.DecodeError):
        return None


def summarize(
    conversation: str, tenant: bytes, at_s: float, came: Sequence[bytes], went: Sequence[bytes], dialect: Dialect
) -> Summary:
    """Say what a request is about, and which files it is made of.

    Args:
        conversation: its id.
        tenant: who sent it.
        at_s: when, by the wall clock.
        came: its messages, as the client sent them.
        went: as they were forwarded.
        dialect: of the messages.
    """
    title = next((words for raw in came for words in words_of(parse(raw, dialect))), "")
    files: dict[str, list[int]] = {}
    for share in shares_of(Arrived(dialect, came, went)):
        if share.path is not None:
            sums = files.setdefault(whole(share.path), [0, 0])
            sums[0] += share.num_chars_in
            sums[1] += share.num_chars_out
    largest = sorted(files, key=lambda path: (-files[path][0], path))[:_MAX_FILES]
    return Summary(
        conversation,
        tenant,
        at_s,
        whole(_shortened(_SPACE.sub(" ", title[: 4 * _MAX_TITLE_CHARS]).strip())),
        tuple(
            FileShare(path, files[path][0] // CHARS_PER_TOKEN, files[path][1] // CHARS_PER_TOKEN) for path in largest
        ),
    )


def _shortened(title: str) -> str:
    return title if len(title) <= _MAX_TITLE_CHARS else title[: _MAX_TITLE_CHARS - 1].rstrip() + "…"
