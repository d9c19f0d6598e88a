"""A repository and a question in, line ranges out: index, ranking, spans, the side-context agent, MCP server.

Knows nothing of messages and proxies. What answers is `sluice.search.service.SearchService`; it is imported from there
because it needs the packages of the `search` extra.
"""

from __future__ import annotations

from sluice.search.errors import (
    BackendError,
    MissingExtraError,
    ModelError,
    QueryError,
    SearchError,
    StoreError,
    UnknownRootError,
    UnreadableRootError,
    WrongTreeError,
)
from sluice.search.settings import DeepSettings, SearchSettings
from sluice.search.types import SearchAnswer, SearchMode, SearchResult

__all__ = [
    "BackendError",
    "DeepSettings",
    "MissingExtraError",
    "ModelError",
    "QueryError",
    "SearchAnswer",
    "SearchError",
    "SearchMode",
    "SearchResult",
    "SearchSettings",
    "StoreError",
    "UnknownRootError",
    "UnreadableRootError",
    "WrongTreeError",
]
