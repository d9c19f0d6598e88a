"""Segments and manifests on disk, shared by all roots of a user: one SQLite file.

Segments are addressed by content, so that branches and worktrees find each other's work. A process that is killed
while writing leaves the last commit; what is missing is built again. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sluice.search.errors import StoreError

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS segments (key BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (key BLOB, model TEXT, data BLOB NOT NULL, PRIMARY KEY (key, model));
CREATE TABLE IF NOT EXISTS manifests (root TEXT PRIMARY KEY, data BLOB NOT NULL);
"""
_MAX_VARIABLES = 500


class SegmentStore:
    """Key-value tables for segments, their vectors, and manifests. Safe to use from several threads and processes.

    What cannot be written (a full disk, a folder that may only be read) is not kept and is made anew when it is wanted.

    Args:
        path: the database file; None keeps everything in memory.
        max_bytes: when the file has grown past this at opening, the oldest half of the segments goes.

    Raises:
        StoreError: from any method, when the file cannot be opened or read.
    """

    def __init__(self, path: Path | None, max_bytes: int = 2 * 2**30) -> None:
        self._lock = threading.Lock()
        self._said = ""
        try:
            self._db = _open(path)
            if path is not None and path.stat().st_size > max_bytes:
                self._drop_oldest_half()
        except (sqlite3.Error, OSError) as error:
            hint = (
                "; make room there, or name another folder. It holds nothing that is not made anew, and may be deleted"
            )
            raise StoreError(f"cannot open the search index at {str(path)!r}: {error}{hint}") from error

    def get_segments(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of the segments that are there."""
        return self._select("SELECT key, data FROM segments WHERE", (), keys)

    def put_segments(self, segments: Mapping[bytes, bytes]) -> None:
        """Write segments, all or none; those that are there stay."""
        self._write("INSERT OR IGNORE INTO segments VALUES (?, ?)", segments.items())

    def get_vectors(self, model: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What the model made of segments, for those that it was made of."""
        return self._select("SELECT key, data FROM vectors WHERE model = ? AND", (model,), keys)

    def put_vectors(self, model: str, vectors: Mapping[bytes, bytes]) -> None:
        """Write what the model made of segments, all or none."""
        rows = [(key, model, data) for key, data in vectors.items()]
        self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def delete_segment(self, key: bytes) -> None:
        """Forget a segment (one that turned out to be unreadable)."""
        self._write("DELETE FROM segments WHERE key = ?", [(key,)])

    def get_manifest(self, root: str) -> bytes | None:
        """What was last known of the tree at this root."""
        with self._using() as db:
            row = db.execute("SELECT data FROM manifests WHERE root = ?", (root,)).fetchone()
        return None if row is None else bytes(row[0])

    def put_manifest(self, root: str, data: bytes) -> None:
        """Replace what is known of the tree at this root."""
        self._write("INSERT OR REPLACE INTO manifests VALUES (?, ?)", [(root, data)])

    def close(self) -> None:
        """Release the file. The store is not used afterwards."""
        with self._lock:
            self._db.close()

    def _select(self, statement: str, leading: tuple[str, ...], keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._using() as db:
            for at in range(0, len(keys), _MAX_VARIABLES):
                part = keys[at : at + _MAX_VARIABLES]
                marks = ",".join("?" * len(part))
                found.update(db.execute(f"{statement} key IN ({marks})", (*leading, *part)))
        return found

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._say(f"the search index is not kept on disk and made anew where it is wanted: {error}")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(f"the search index on disk failed: {error}") from error

    def _say(self, what: str) -> None:
        if what != self._said:
            logger.warning("%s", what)
        self._said = what

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise StoreError(f"the search index on disk failed: {error}") from error

    def _drop_oldest_half(self) -> None:
        self._db.execute(
            "DELETE FROM segments WHERE rowid IN (SELECT rowid FROM segments ORDER BY rowid "
            "LIMIT (SELECT COUNT(*) / 2 FROM segments))"
        )
        self._db.execute("DELETE FROM vectors WHERE key NOT IN (SELECT key FROM segments)")
        self._db.execute("VACUUM")


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(
        ":memory:" if path is None else path, timeout=10.0, check_same_thread=False, isolation_level=None
    )
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db
