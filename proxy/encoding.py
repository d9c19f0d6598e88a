"""Unpacks request bodies that a client compressed, under a cap on what they unpack to. Knows no wire."""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib
from collections.abc import Callable

import zstandard

from sluice.proxy.errors import BodyTooLargeError

_MAX_INLINE_BYTES = 128 * 1024
"""Larger bodies are unpacked in a worker thread."""
_PIECE_BYTES = 2**20
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class UnreadableBodyError(Exception):
    """The body is packed in a way that is not known, or is not packed as it says. It can only be passed on."""


async def unpack_aside(body: bytes, encoding: str, max_body_bytes: int) -> bytes:
    """Unpack a body as `unpack` does, a large one off the event loop."""
    if len(body) < _MAX_INLINE_BYTES or not encoding:
        return unpack(body, encoding, max_body_bytes)
    return await asyncio.to_thread(unpack, body, encoding, max_body_bytes)


def unpack(body: bytes, encoding: str, max_body_bytes: int) -> bytes:
    """Unpack a body.

    Args:
        body: as the client sent it.
        encoding: its `content-encoding`: `gzip`, `deflate`, `zstd`, or nothing.
        max_body_bytes: what it may unpack to.

    Raises:
        BodyTooLargeError: it unpacks to more.
        UnreadableBodyError: it cannot be unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    unpack_as = _UNPACKERS.get(encoding)
    if unpack_as is None:
        raise UnreadableBodyError(f"content-encoding {encoding!r} is not known")
    try:
        plain = unpack_as(body, max_body_bytes + 1)
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError, EOFError) as error:
        raise UnreadableBodyError(f"the body is no {encoding}: {error}") from None
    if len(plain) > max_body_bytes:
        raise BodyTooLargeError(max_body_bytes)
    return plain


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Unpack gzip, its members one behind the other."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as reader:
        return _read(reader.read, max_bytes)


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """Unpack what is called deflate: zlib, or, from clients that read the name literally, the bare stream."""
    try:
        return _decompress(body, _GZIP_OR_ZLIB, max_bytes)
    except zlib.error:
        return _decompress(body, -zlib.MAX_WBITS, max_bytes)


def _decompress(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    plain = unpacker.decompress(body, max_bytes)
    if unpacker.unused_data or (not unpacker.eof and len(plain) < max_bytes):
        raise EOFError("it breaks off, or something follows")
    return plain


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        return _read(reader.read, max_bytes)


def _read(read: Callable[[int], bytes], max_bytes: int) -> bytes:
    """Read up to so many bytes, in pieces: asked for all at once, readers make room for them at once."""
    parts: list[bytes] = []
    num_bytes = 0
    while num_bytes < max_bytes and (part := read(min(_PIECE_BYTES, max_bytes - num_bytes))):
        parts.append(part)
        num_bytes += len(part)
    return b"".join(parts)


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "zstd": _unzstd,
}
