"""The optional dense tier: chunks and questions as vectors, beside the lexical evidence and never instead of it."""

from __future__ import annotations

from sluice.search.dense.embedder import Embedder, SharedModel, make_embedder
from sluice.search.dense.index import DenseIndex

__all__ = ["DenseIndex", "Embedder", "SharedModel", "make_embedder"]
