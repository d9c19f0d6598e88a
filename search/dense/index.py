"""Vectors of one tree's chunks, made in the background: an answer uses those that are there and waits for none.

Vectors depend on a segment's bytes alone and stand in the store under its key, so that branches and restarts share
them. While a changed tree is being caught up with, `similarities` gives nothing and the lexical evidence stands alone.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.search.dense.embedder import Embedder, SharedModel
from sluice.search.errors import SearchError
from sluice.search.index.layer import FileEntry
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.scanner import blob_hash
from sluice.search.index.store import SegmentStore
from sluice.search.index.view import View

logger = logging.getLogger(__name__)

BATCH_CHUNKS = 64
"""Chunks that are embedded at once, at the least; a file's chunks go together."""
MAX_CHUNK_CHARS = 1_500
"""What the model is shown of a chunk; it reads some 250 tokens."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Matrix:
    view: View
    vectors: F32
    """One row per chunk of the view; zeros where the file could not be read."""


class DenseIndex:
    """Keeps up with one `RepoIndex`.

    Args:
        index: the tree.
        store: where vectors are kept.
        model: loaded in the background. If it cannot be, that is logged, and there are no vectors.
    """

    def __init__(self, index: RepoIndex, store: SegmentStore, model: SharedModel) -> None:
        self._index = index
        self._store = store
        self._model = model
        self._embedder: Embedder | None = None
        self._wanted: View | None = None
        self._matrix: _Matrix | None = None
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def similarities(self, view: View, text: str) -> npt.NDArray[np.float64] | None:
        """Cosine of the question and each chunk of the view, or None where they are not ready; never waits for them."""
        self.want(view)
        matrix, embedder = self._matrix, self._embedder
        if matrix is None or matrix.view is not view or embedder is None:
            return None
        if not self._model.lock.acquire(blocking=False):  # in use for chunks
            return None
        try:
            question = embedder.embed([text[:MAX_CHUNK_CHARS]])[0]
        finally:
            self._model.lock.release()
        return np.asarray(matrix.vectors @ question, np.float64)

    def wait(self, view: View, timeout_s: float) -> bool:
        """Wait until a view's vectors are there; for measurements. False: they are not, in that time."""
        self.want(view)
        with self._wake:
            return self._wake.wait_for(lambda: self._matrix is not None and self._matrix.view is view, timeout_s)

    def close(self) -> None:
        """End the work in the background, after the batch that is under way."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    def want(self, view: View) -> None:
        """Have a view's vectors made in the background, instead of those that were wanted before."""
        with self._wake:
            if self._is_closed or self._wanted is view:
                return
            self._wanted = view
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sluice-dense", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _work(self) -> None:
        try:
            self._embedder = self._model.load()
            view = self._next(None)
            while view is not None:
                matrix = self._embedded(view, self._embedder)
                with self._wake:
                    self._matrix = matrix or self._matrix
                    self._wake.notify_all()
                view = self._next(view)
        except SearchError as error:
            logger.warning("search goes on without its dense tier: %s", error)
        except Exception:  # whatever a model's library raises
            logger.exception("search goes on without its dense tier")

    def _next(self, done: View | None) -> View | None:
        """Wait for a view that is not done yet; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._is_closed or self._wanted is not done)
            return None if self._is_closed else self._wanted

    def _embedded(self, view: View, embedder: Embedder) -> _Matrix | None:
        """The view's vectors; None where another view is wanted meanwhile (what was made is in the store)."""
        keys = list({view.files[file].key for file in np.flatnonzero(view.alive_files).tolist()})
        stored = self._store.get_vectors(embedder.name, keys)
        known = {key: np.frombuffer(data, np.float16).astype(np.float32) for key, data in stored.items()}
        batch: dict[int, list[str]] = {}
        for file in np.flatnonzero(view.alive_files).tolist():
            if view.files[file].key in known:
                continue
            batch[file] = self._texts(view, file)
            if sum(map(len, batch.values())) >= BATCH_CHUNKS:
                known.update(self._batch(view, batch, embedder))
                batch = {}
            if self._is_closed or self._wanted is not view:
                break
        known.update(self._batch(view, batch, embedder))
        if self._is_closed or self._wanted is not view:
            return None
        return self._joined(view, known)

    def _batch(self, view: View, batch: dict[int, list[str]], embedder: Embedder) -> dict[bytes, F32]:
        texts = [text for of_file in batch.values() for text in of_file]
        if not texts:
            return {}
        with self._model.lock:
            vectors = embedder.embed(texts)
        made: dict[bytes, F32] = {}
        at = 0
        for file, of_file in batch.items():
            if not of_file:
                continue
            made[view.files[file].key] = vectors[at : at + len(of_file)].ravel()
            at += len(of_file)
        self._store.put_vectors(embedder.name, {key: v.astype(np.float16).tobytes() for key, v in made.items()})
        return made

    def _texts(self, view: View, file: int) -> list[str]:
        """What the file's chunks say; nothing where it has changed since, or is gone."""
        first, count = int(view.first_chunk[file]), int(view.chunks_per_file[file])
        try:
            data = self._index.read(view.files[file].path)
        except OSError:
            return []
        if not view.files[file].key.startswith(blob_hash(data)):
            return []
        lines = data.decode("utf-8", "replace").split("\n")
        return [
            "\n".join(lines[int(view.starts[chunk]) - 1 : int(view.ends[chunk])])[:MAX_CHUNK_CHARS]
            for chunk in range(first, first + count)
        ]

    def _joined(self, view: View, known: dict[bytes, F32]) -> _Matrix:
        """One row per chunk; what has no vectors, or those of another number of dimensions, stays at zero."""
        alive = np.flatnonzero(view.alive_files).tolist()
        num_dimensions = max(
            (len(known[f.key]) // n for f, n in self._counted(view, alive) if f.key in known), default=1
        )
        vectors = np.zeros((len(view.starts), num_dimensions), np.float32)
        for file in alive:
            first, count = int(view.first_chunk[file]), int(view.chunks_per_file[file])
            own = known.get(view.files[file].key)
            if own is not None and len(own) == count * num_dimensions:
                vectors[first : first + count] = own.reshape(count, num_dimensions)
        return _Matrix(view, vectors)

    def _counted(self, view: View, files: list[int]) -> list[tuple[FileEntry, int]]:
        return [(view.files[file], count) for file in files if (count := int(view.chunks_per_file[file])) > 0]
