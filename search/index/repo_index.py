"""The index of one tree on disk: built when first asked, refreshed by what changed, answering for this tree alone.

Content decides: a changed file costs its own segment, and a file whose bytes were indexed before (another branch, a
worktree, a revert) costs a look-up. Knows no questions.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import language_of
from sluice.search.errors import StoreError, UnreadableRootError, WrongTreeError
from sluice.search.index.layer import Layer
from sluice.search.index.manifest import KnownFile, Manifest, decode_manifest, encode_manifest
from sluice.search.index.rules import MAX_FILE_BYTES, skip_by_content
from sluice.search.index.scanner import FileState, Scanner, blob_hash, read_inside
from sluice.search.index.segment import FORMAT, Segment, build_segment, pack, unpack
from sluice.search.index.store import SegmentStore
from sluice.search.index.tokenizer import forget_terms
from sluice.search.index.view import View

logger = logging.getLogger(__name__)

_BATCH = 256
"""Segments that are read, built and written together: what a killed build loses at most."""
_MIN_OVERLAY = 200
_MAX_OVERLAY_SHARE = 0.15
"""Changed files beyond this share of the tree (and more than `_MIN_OVERLAY`) are merged into the large layer."""
_REMEMBER_S = 30.0
"""For small changes the manifest, which only spares reading files again at the next start, is written this seldom."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a refresh found."""

    num_files: int
    num_changed: int
    num_built: int
    """Segments that no tree had before."""


class _Place(NamedTuple):
    """Where a file stands in the layers, and as what."""

    layer: int
    position: int
    key: bytes


class RepoIndex:
    """An index of the tree at `root`. Safe to use from several threads.

    Args:
        root: a directory; links in it are resolved once, here.
        store: where segments are kept.

    Attributes:
        root: absolute and resolved.
        last_refresh: what the last refresh found.
    """

    def __init__(self, root: Path, store: SegmentStore) -> None:
        self.root = root.resolve()
        self.last_refresh = Refresh(0, 0, 0)
        self._store = store
        self._scanner = Scanner(self.root)
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._files: dict[str, KnownFile] = {}
        self._layers: list[tuple[Layer, npt.NDArray[np.bool_]]] = []
        self._places: dict[str, _Place] = {}
        self._view: View | None = None
        self._scanned_at = float("-inf")
        self._remembered_at = float("-inf")
        self._is_closed = False

    def view(self, max_age_s: float = 0.0) -> View:
        """The tree as it is, or was at most `max_age_s` ago.

        Raises:
            UnreadableRootError: the root is no directory, or cannot be read.
            StoreError: the store failed, or the index is closed.
        """
        with self._lock:
            if self._view is None or time.monotonic() - self._scanned_at > max_age_s:
                return self._refresh()
            return self._view

    def close(self) -> None:
        """End what is being built, after the batch that is under way. The index is not used afterwards."""
        self._is_closed = True

    def is_current(self, paths: Sequence[str]) -> bool:
        """Whether these files still have the bytes that were indexed, by their metadata."""
        for path in paths:
            known = self._files.get(path)
            try:
                state = FileState.of(os.lstat(self.root / path))
            except OSError:
                return False
            if known is None or not known.fits(state):
                return False
        return True

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            OSError: it is gone, or leads out of the root.
        """
        return read_inside(self.root, path, MAX_FILE_BYTES)

    def stands(self) -> bool:
        """Whether the directory at `root` is the one that was indexed, and not another that has taken its place."""
        return self._identity is None or _identity(self.root) == self._identity

    def check_tree(self) -> None:
        """Refuse to stand for another tree.

        Raises:
            WrongTreeError: another directory has taken the root's place since it was indexed.
        """
        if not self.stands():
            raise WrongTreeError(f"another directory has taken the place of {str(self.root)!r} since it was indexed")

    def _refresh(self) -> View:
        started = time.monotonic()
        identity = _identity(self.root)
        if self._identity != identity:  # first use, or another tree has taken this one's place
            self._files = decode_manifest(self._store.get_manifest(str(self.root)), str(self.root), identity)
            self._layers, self._places, self._view = [], {}, None
            self._identity = identity
        found = self._scanner.scan()
        if self._scanner.truncated:
            logger.warning("%s holds more than %d files; the others are not searched", self.root, len(found))
        gone = [path for path in self._files if path not in found]
        for path in gone:
            del self._files[path]
        pending = [
            (path, state)
            for path, state in found.items()
            if (known := self._files.get(path)) is None or not known.fits(state)
        ]
        num_built = sum(self._index(pending[at : at + _BATCH]) for at in range(0, len(pending), _BATCH))
        num_changed = self._bring_up_to_date()
        due = num_changed > _MIN_OVERLAY or time.monotonic() - self._remembered_at > _REMEMBER_S
        # What cannot be read is pending again at each refresh, and nothing to remember.
        if due and (gone or any(path in self._files for path, _ in pending)):
            self._remember()
        self._scanned_at = time.monotonic()
        if self._view is None:
            self._view = View(self._layers)
        if num_built > _BATCH:
            forget_terms()
            logger.info("indexed %d files of %s in %.1f s", num_built, self.root, self._scanned_at - started)
        self.last_refresh = Refresh(self._view.num_files, num_changed, num_built)
        return self._view

    def _index(self, files: Sequence[tuple[str, FileState]]) -> int:
        """Read files, note what they hold, and see to their segments. Returns how many segments were new."""
        self._check_open()
        contents: dict[str, tuple[bytes, FileState]] = {}
        keys: dict[str, bytes] = {}
        for path, state in files:
            try:
                data = self.read(path)
            except OSError:
                self._files.pop(path, None)
                continue
            contents[path] = (data, state)
            language = language_of(path, data[:128])
            if skip_by_content(data, has_grammar=language is not None) is None:
                keys[path] = blob_hash(data) + FORMAT + (language.name.encode() if language is not None else b"")
        present = self._store.get_segments(list(set(keys.values())))
        built: dict[bytes, bytes] = {}
        for path, (data, state) in contents.items():
            key = keys.get(path, b"")
            if key and key not in present and key not in built:
                built[key] = pack(build_segment(data, language_of(path, data[:128])))
            racy = state.is_racy(time.time_ns())
            self._files[path] = KnownFile(state.size, state.mtime_ns, state.ctime_ns, state.inode, key, racy)
        if built:
            self._store.put_segments(built)
        return len(built)

    def _bring_up_to_date(self) -> int:
        """Make the layers hold what `_files` says. Returns how many files were not, or not so, in them.

        All files are compared, not those that changed alone, so that the next refresh makes good what one that failed
        has left undone.
        """
        stale = [
            path
            for path, place in self._places.items()
            if (known := self._files.get(path)) is None or known.key != place.key
        ]
        for path in stale:
            place = self._places.pop(path)
            layer, alive = self._layers[place.layer]
            alive = alive.copy()  # views in use keep theirs
            alive[place.position] = False
            self._layers[place.layer] = (layer, alive)
        added = [path for path, known in self._files.items() if known.key and path not in self._places]
        if stale or added:
            self._view = None
        if added:
            self._add(added)
        return len({*stale, *added})

    def _add(self, added: Sequence[str]) -> None:
        """Lay files out: beside the large layer, or in a new large one where they are many."""
        small = [path for path, place in self._places.items() if place.layer > 0]
        if not self._layers or len(small) + len(added) > max(_MIN_OVERLAY, _MAX_OVERLAY_SHARE * len(self._places)):
            below, paths = [], [*self._places, *added]
        else:
            below, paths = self._layers[:1], [*small, *added]
        layer = Layer(self._segments_of(sorted(paths)))
        self._layers = [*below, (layer, np.ones(len(layer.entries), np.bool_))]
        for path in paths:  # one that is gone by now has no place
            self._places.pop(path, None)
        for position, entry in enumerate(layer.entries):
            self._places[entry.path] = _Place(len(below), position, entry.key)

    def _segments_of(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes, Segment]]:
        for at in range(0, len(paths), _BATCH):
            self._check_open()
            batch = paths[at : at + _BATCH]
            stored = self._store.get_segments([self._files[path].key for path in batch])
            for path in batch:
                key = self._files[path].key
                segment = self._unpacked(path, key, stored.get(key))
                if segment is not None:
                    yield path, key, segment

    def _unpacked(self, path: str, key: bytes, data: bytes | None) -> Segment | None:
        """The segment; built anew where the store lost it or cannot read it. None if the file is gone as well."""
        if data is not None:
            try:
                return unpack(data)
            except ValueError:
                self._store.delete_segment(key)
        try:
            content = self.read(path)
        except OSError:
            return None
        segment = build_segment(content, language_of(path, content[:128]))
        if key.startswith(blob_hash(content)):
            self._store.put_segments({key: pack(segment)})
        return segment

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError(f"the index of {str(self.root)!r} is closed")

    def _remember(self) -> None:
        assert self._identity is not None
        manifest = Manifest(str(self.root), self._identity, self._files)
        self._store.put_manifest(str(self.root), encode_manifest(manifest))
        self._remembered_at = time.monotonic()


def _identity(root: Path) -> tuple[int, int]:
    """Device and inode: tells a directory from another that has taken its name."""
    try:
        status = os.stat(root)
    except OSError as error:
        raise UnreadableRootError(f"cannot read {str(root)!r}: {error.strerror}") from error
    return status.st_dev, status.st_ino
