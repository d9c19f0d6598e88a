"""Our search as the evaluation sees it: one engine per checkout, with its costs. Baselines have the same form."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sluice.search.dense import DenseIndex, SharedModel
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers

VECTORS_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Found:
    """A line range that an engine returned, and what it costs to read."""

    path: str
    start: int
    end: int
    num_chars: int


class Engine(Protocol):
    """Searches one tree."""

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """Ranges, best first, within the budget."""
        ...


class SluiceEngine:
    """Our own, without the service around it.

    Args:
        root: the tree.
        rankers: learned or hand-set.
        store: segments that may be there already.
        model: of the dense tier, whose vectors are waited for; None: there is none.

    Attributes:
        index_s: seconds that indexing took.
        num_files: files that were indexed.
    """

    def __init__(self, root: Path, rankers: Rankers, store: SegmentStore, model: SharedModel | None = None) -> None:
        self._index = RepoIndex(root, store)
        self._rankers = rankers
        started = time.perf_counter()
        self._view = self._index.view()
        self.index_s = time.perf_counter() - started
        self.num_files = self._view.num_files
        self._dense = None if model is None else DenseIndex(self._index, store, model)
        if self._dense is not None and not self._dense.wait(self._view, VECTORS_TIMEOUT_S):
            raise TimeoutError(f"no vectors of {str(root)!r} within {VECTORS_TIMEOUT_S} s")

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """See `Engine`. Looks for changes as a served search does."""
        view = self._index.view(max_age_s=1.0)
        similarities = None if self._dense is None else self._dense.similarities(view, query)
        results = answer(
            view, query, self._rankers, self._index.read, budget_tokens=budget_tokens, similarities=similarities
        )
        self._index.is_current([result.path for result in results])
        return [Found(r.path, r.start, r.end, len(r.text)) for r in results]
