"""Unpacks request bodies that a client compressed, under a cap on what they unpack to. Knows no wire."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import zstandard

from sluice.proxy.errors import BodyTooLargeError

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class UnreadableBodyError(Exception):
    """The body is packed in a way that is not known, or is not packed as it says. It can only be passed on."""


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
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise UnreadableBodyError(f"the body is no {encoding}: {error}") from None
    if len(plain) > max_body_bytes:
        raise BodyTooLargeError(max_body_bytes)
    return plain


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Unpack gzip, its members one behind the other, or zlib."""
    parts: list[bytes] = []
    num_bytes = 0
    while body and num_bytes < max_bytes:
        unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
        parts.append(unpacker.decompress(body, max_bytes - num_bytes))
        num_bytes += len(parts[-1])
        if not unpacker.eof:
            if num_bytes < max_bytes:
                raise EOFError("it breaks off")
            break
        body = unpacker.unused_data
    return b"".join(parts)


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """Unpack what is called deflate: zlib, or, from clients that read the name literally, the bare stream."""
    try:
        return _gunzip(body, max_bytes)
    except zlib.error:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = unpacker.decompress(body, max_bytes)
        if not unpacker.eof and len(plain) < max_bytes:
            raise EOFError("it breaks off") from None
        return plain


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    num_bytes = 0
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        while num_bytes < max_bytes and (part := reader.read(min(2**20, max_bytes - num_bytes))):
            parts.append(part)
            num_bytes += len(part)
    return b"".join(parts)


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "zstd": _unzstd,
}
