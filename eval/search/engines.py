"""Our search as the evaluation sees it: one engine per checkout, with its costs. Baselines have the same form."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers


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

    Attributes:
        index_s: seconds that indexing took.
        num_files: files that were indexed.
    """

    def __init__(self, root: Path, rankers: Rankers, store: SegmentStore) -> None:
        self._index = RepoIndex(root, store)
        self._rankers = rankers
        started = time.perf_counter()
        self._view = self._index.view()
        self.index_s = time.perf_counter() - started
        self.num_files = self._view.num_files

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """See `Engine`. Looks for changes as a served search does."""
        view = self._index.view(max_age_s=1.0)
        results = answer(view, query, self._rankers, self._index.read, budget_tokens=budget_tokens)
        self._index.is_current([result.path for result in results])
        return [Found(r.path, r.start, r.end, len(r.text)) for r in results]
