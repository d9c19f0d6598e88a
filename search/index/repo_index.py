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

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import language_of
from sluice.search.errors import StoreError, UnreadableRootError, WrongTreeError
from sluice.search.index.head import read_head
from sluice.search.index.manifest import KnownFile, Manifest, decode_manifest, encode_manifest
from sluice.search.index.rules import MAX_FILE_BYTES, skip_by_content
from sluice.search.index.scanner import FileState, Scanner, blob_hash, read_inside
from sluice.search.index.segment import FORMAT, Segment, build_segment, pack, unpack
from sluice.search.index.store import SegmentStore
from sluice.search.index.tokenizer import forget_terms
from sluice.search.index.view import Layer, View

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
    num_removed: int
    num_built: int
    """Segments that no tree had before."""
    took_ms: float


class RepoIndex:
    """An index of the tree at `root`. Safe to use from several threads.

    Args:
        root: a directory; links in it are resolved once, here.
        store: where segments are kept.

    Attributes:
        root: absolute and resolved.
        head: branch and commit at the last refresh, empty outside of git.
        last_refresh: what the last refresh found.
    """

    def __init__(self, root: Path, store: SegmentStore) -> None:
        self.root = root.resolve()
        self.head = ""
        self.last_refresh = Refresh(0, 0, 0, 0, 0.0)
        self._store = store
        self._scanner = Scanner(self.root)
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._files: dict[str, KnownFile] = {}
        self._layers: list[tuple[Layer, npt.NDArray[np.bool_]]] = []
        self._place: dict[str, tuple[int, int]] = {}
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

    def check_tree(self, root: Path) -> None:
        """Refuse to stand for another tree.

        Raises:
            WrongTreeError: `root` is not this index's, or another directory has taken its place since it was indexed.
        """
        if root.resolve() != self.root:
            raise WrongTreeError(f"this index is of {str(self.root)!r}, not of {str(root)!r}")
        if not self.stands():
            raise WrongTreeError(f"another directory has taken the place of {str(self.root)!r} since it was indexed")

    def _refresh(self) -> View:
        started = time.monotonic()
        identity = _identity(self.root)
        if self._identity != identity:  # first use, or another tree has taken this one's place
            self._files = decode_manifest(self._store.get_manifest(str(self.root)), str(self.root), identity)
            self._layers, self._place, self._view = [], {}, None
            self._identity = identity
        self.head = read_head(self.root)
        found = self._scanner.scan()
        if self._scanner.truncated:
            logger.warning("%s holds more than %d files; the others are not searched", self.root, len(found))
        changed: list[str] = []
        num_built = 0
        dirty = False
        removed = [path for path in self._files if path not in found]
        for path in removed:
            del self._files[path]
        pending: list[tuple[str, FileState]] = []
        for path, state in found.items():
            known = self._files.get(path)
            if known is None or not known.fits(state):
                pending.append((path, state))
            elif known.key and path not in self._place:
                changed.append(path)
        for at in range(0, len(pending), _BATCH):
            self._check_open()
            fresh, built = self._index(pending[at : at + _BATCH])
            dirty = True
            num_built += built
            changed.extend(fresh)
        self._apply(changed, removed)
        due = len(changed) + len(removed) > _MIN_OVERLAY or time.monotonic() - self._remembered_at > _REMEMBER_S
        if (dirty or removed) and due:
            self._remember()
        self._scanned_at = time.monotonic()
        if self._view is None or changed or removed:
            self._view = View(self._layers)
        if num_built > _BATCH:
            forget_terms()
        self.last_refresh = Refresh(
            self._view.num_files, len(changed), len(removed), num_built, (time.monotonic() - started) * 1e3
        )
        return self._view

    def _index(self, files: Sequence[tuple[str, FileState]]) -> tuple[list[str], int]:
        """Read files and see to their segments. Returns those whose content differs, and how many segments were new."""
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
        changed: list[str] = []
        for path, (data, state) in contents.items():
            key = keys.get(path, b"")
            if key and key not in present and key not in built:
                built[key] = pack(build_segment(data, language_of(path, data[:128])))
            before = self._files.get(path)
            racy = state.is_racy(time.time_ns())
            self._files[path] = KnownFile(state.size, state.mtime_ns, state.ctime_ns, state.inode, key, racy)
            if before is None or before.key != key or path not in self._place:
                changed.append(path)
        if built:
            self._store.put_segments(built)
        return changed, len(built)

    def _apply(self, changed: Sequence[str], removed: Sequence[str]) -> None:
        """Bring the layers up to date."""
        for path in (*changed, *removed):
            if (place := self._place.pop(path, None)) is not None:
                of_layer, position = place
                alive = self._layers[of_layer][1].copy()  # views in use keep theirs
                alive[position] = False
                self._layers[of_layer] = (self._layers[of_layer][0], alive)
        added = [path for path in changed if self._files[path].key]
        if not added:
            return
        small = [path for path, (of_layer, _) in self._place.items() if of_layer > 0]
        num_overlay = len(small) + len(added)
        if not self._layers or num_overlay > max(_MIN_OVERLAY, _MAX_OVERLAY_SHARE * len(self._place)):
            self._layers, paths = [], [*self._place, *added]
        else:
            self._layers, paths = self._layers[:1], [*small, *added]
        layer = Layer(self._segments_of(sorted(paths)))
        number = len(self._layers)
        self._layers.append((layer, np.ones(len(layer.entries), np.bool_)))
        for position, entry in enumerate(layer.entries):
            self._place[entry.path] = (number, position)

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
        manifest = Manifest(str(self.root), self._identity, self.head, self._files)
        self._store.put_manifest(str(self.root), encode_manifest(manifest))
        self._remembered_at = time.monotonic()


def _identity(root: Path) -> tuple[int, int]:
    """Device and inode: tells a directory from another that has taken its name."""
    try:
        status = os.stat(root)
    except OSError as error:
        raise UnreadableRootError(f"cannot read {str(root)!r}: {error.strerror}") from error
    return status.st_dev, status.st_ino
