"""What is remembered of a tree between starts: each file's metadata and the key of its segment.

It only spares reading files again. One that cannot be read, or is of another tree or format, is as good as none.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from sluice.search.index.scanner import FileState
from sluice.search.index.segment import FORMAT


class KnownFile(msgspec.Struct, array_like=True):
    """What the manifest holds of a file; an empty key means that it was read and is not worth an index."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    key: bytes
    is_racy: bool

    def fits(self, state: FileState) -> bool:
        """Whether a file in this state still has the bytes that were read."""
        return (
            self.mtime_ns == state.mtime_ns
            and self.size == state.size
            and self.ctime_ns == state.ctime_ns
            and self.inode == state.inode
            and not self.is_racy
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A tree as it was at a refresh."""

    root: str
    identity: tuple[int, int]
    """Device and inode of the root."""
    files: dict[str, KnownFile]


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as MessagePack, with the segments' format."""
    return _encoder.encode((FORMAT, manifest.root, manifest.identity, manifest.files))


def decode_manifest(data: bytes | None, root: str, identity: tuple[int, int]) -> dict[str, KnownFile]:
    """What is known of the files of this tree; nothing where the bytes are of another tree or format, or are none."""
    if data is None:
        return {}
    try:
        kept_format, kept_root, kept_identity, files = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return files if (kept_format, kept_root, kept_identity) == (FORMAT, root, identity) else {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, str, tuple[int, int], dict[str, KnownFile]])
