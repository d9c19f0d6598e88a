"""Search as one object: configured roots in, answers out; what the CLI, the MCP server and the proxy's route call.

Every tree is indexed when it is first asked about, or ahead of that (`warm_up`), refreshed before it is answered from,
and worked on in a thread, so that an event loop is never held up. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sluice.search.deep.agent import DeepAgent
from sluice.search.deep.model import ChatModel, HTTPChatModel
from sluice.search.dense import DenseIndex, SharedModel
from sluice.search.errors import BackendError, QueryError, SearchError, StoreError, UnknownRootError
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers, learned_rankers
from sluice.search.settings import MIN_BUDGET_TOKENS, SearchSettings
from sluice.search.tokens import result_tokens
from sluice.search.types import SearchAnswer, SearchMode, SearchResult

logger = logging.getLogger(__name__)

_MAX_TRIES = 3
"""A file that changes while it is answered from is refreshed at most so often."""
_MAX_THREADS = 4
"""Answers that are worked on at once."""

OnAnswer = Callable[[Path, str, SearchMode, SearchAnswer], Awaitable[None]]
"""(the root, the question, the mode, the answer)."""


class SearchService:
    """Answers questions about the configured roots.

    Args:
        settings: roots, cache, limits.
        rankers: None for the learned ones.
        model: the model behind `deep`; None for the one that the settings name, if they do.
        on_answer: told of every question that was answered.

    A cache that cannot be opened is done without: what it would have kept is made anew at each start.
    """

    def __init__(
        self,
        settings: SearchSettings,
        rankers: Rankers | None = None,
        model: ChatModel | None = None,
        *,
        on_answer: OnAnswer | None = None,
    ) -> None:
        self._settings = settings
        self._on_answer = on_answer
        self._rankers = rankers or learned_rankers()
        database = None if settings.cache_dir is None else settings.cache_dir / "segments.db"
        self._store = _open_store(database)
        # Threads of its own: a large tree that is indexed must not hold up what else the process does in threads.
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "sluice-search")
        self._indexes: dict[Path, RepoIndex] = {root.resolve(): RepoIndex(root, self._store) for root in settings.roots}
        shared = SharedModel(settings.dense_model) if settings.dense_model else None
        self._dense = {index.root: DenseIndex(index, self._store, shared) for index in self._indexes.values() if shared}
        deep = settings.deep
        self._own_model = HTTPChatModel(deep) if model is None and deep.base_url else None
        chosen = model or self._own_model
        self._agent = DeepAgent(chosen, deep) if chosen is not None else None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The roots that can be asked about, resolved."""
        return tuple(self._indexes)

    def warm_up(self) -> None:
        """Index the roots in the background, so that the first question does not wait for it. Returns at once."""
        for index in self._indexes.values():
            self._threads.submit(self._warm, index)

    async def search(
        self,
        query: str,
        repo: str | None = None,
        budget_tokens: int = 1000,
        max_results: int | None = None,
        mode: SearchMode = "fast",
    ) -> SearchAnswer:
        """Line ranges that answer a question.

        Args:
            query: the question; only its first 20,000 characters are read.
            repo: a configured root, by its path or its last name; may be left out where there is one root only.
            budget_tokens: that all results may take together, headers included.
            max_results: at most so many.
            mode: `deep` lets a small model look around in a side context; it needs one to be configured.

        Raises:
            QueryError: the question, the budget or the mode cannot be meant.
            UnknownRootError: `repo` names no configured root.
            UnreadableRootError: the root cannot be read.
            WrongTreeError: another directory keeps taking the root's place.
            StoreError: the cache failed.
        """
        started = time.perf_counter()
        self._check(budget_tokens, max_results, mode)
        index = self.index_of(repo)
        results = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._fast, index, query, budget_tokens, max_results
        )
        if mode == "deep":
            results = await self._deep(index, query, results, budget_tokens, max_results)
        tokens = sum(result_tokens(r.path, r.start, r.end, len(r.text)) for r in results)
        found = SearchAnswer(tuple(results), tokens, (time.perf_counter() - started) * 1e3)
        if self._on_answer is not None:
            await self._on_answer(index.root, query, mode, found)
        return found

    def index_of(self, repo: str | None) -> RepoIndex:
        """The index of a configured root.

        Raises:
            UnknownRootError: there is none of that name, or no name was given and there are several.
        """
        known = ", ".join(str(root) for root in self._indexes) or "none is configured"
        if repo is None:
            if len(self._indexes) != 1:
                raise UnknownRootError(f"say which repository to search: {known}")
            return next(iter(self._indexes.values()))
        matching = [root for root in self._indexes if str(root) == repo.rstrip("/") or root.name == repo]
        if not matching and "/" in repo:  # a name with a link in it
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # no path at all, or links in a circle
                resolved = Path(repo).resolve()
                matching = [root for root in self._indexes if root == resolved]
        if len(matching) != 1:
            raise UnknownRootError(f"{repo!r} is {'ambiguous' if matching else 'no configured root'}: {known}")
        return self._indexes[matching[0]]

    async def aclose(self) -> None:
        """Release the cache and connections. The service is not used afterwards."""
        if self._own_model is not None:
            await self._own_model.aclose()
        for index in self._indexes.values():
            index.close()
        await asyncio.to_thread(self._threads.shutdown)
        for dense in self._dense.values():
            await asyncio.to_thread(dense.close)
        self._store.close()

    def _warm(self, index: RepoIndex) -> None:
        try:
            view = index.view()
        except SearchError as error:  # whoever asks is told
            logger.warning("not indexed ahead: %s", error)
            return
        if (dense := self._dense.get(index.root)) is not None:
            dense.want(view)

    def _check(self, budget_tokens: int, max_results: int | None, mode: str) -> None:
        limit = self._settings.max_budget_tokens
        if not MIN_BUDGET_TOKENS <= budget_tokens <= limit:
            raise QueryError(f"budget_tokens = {budget_tokens} is not between {MIN_BUDGET_TOKENS} and {limit}")
        if max_results is not None and max_results < 1:
            raise QueryError(f"max_results = {max_results} is below 1")
        if mode not in ("fast", "deep"):
            raise QueryError(f"mode = {mode!r} is neither 'fast' nor 'deep'")
        if mode == "deep" and self._agent is None:
            raise QueryError("mode = 'deep' needs a model, and none is configured (setting search_deep_model)")

    def _fast(self, index: RepoIndex, query: str, budget_tokens: int, max_results: int | None) -> list[SearchResult]:
        view = index.view(self._settings.rescan_s)
        for _ in range(_MAX_TRIES):
            dense = self._dense.get(index.root)
            results = answer(
                view,
                query,
                self._rankers,
                index.read,
                budget_tokens=budget_tokens,
                max_results=max_results,
                similarities=None if dense is None else dense.similarities(view, query),
            )
            if index.stands() and index.is_current([result.path for result in results]):
                break
            view = index.view()
        index.check_tree()
        return results

    async def _deep(
        self,
        index: RepoIndex,
        query: str,
        candidates: list[SearchResult],
        budget_tokens: int,
        max_results: int | None,
    ) -> list[SearchResult]:
        assert self._agent is not None
        try:
            async with asyncio.timeout(self._settings.deep.timeout_s):
                found = await self._agent.run(index, query, candidates, budget_tokens)
        except (BackendError, StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {self._settings.deep.timeout_s:g} s"
            logger.warning("deep search is answered from the index alone: %s", why)
            return candidates
        return found[:max_results] or candidates


def _open_store(database: Path | None) -> SegmentStore:
    try:
        return SegmentStore(database)
    except StoreError as error:
        logger.warning("%s; until then the index is kept in memory and made anew at each start", error)
        return SegmentStore(None)
