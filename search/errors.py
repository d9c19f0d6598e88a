"""What can go wrong in search.

SearchError
├── QueryError            the question holds nothing that can be searched for, or asks for something impossible
├── UnknownRootError      the repository asked for is not one of the configured roots
├── WrongTreeError        an index was asked to answer for a tree that it was not built from
├── UnreadableRootError   the root is no directory, or cannot be read
├── StoreError            the segment store on disk cannot be used
├── MissingExtraError     a package of the extra `search` or `dense` is not installed
├── ModelError            the embedding model cannot be loaded
└── BackendError          the model behind `deep` did not answer, or answered nonsense
"""

from __future__ import annotations


class SearchError(Exception):
    """Base of all errors that search raises."""


class QueryError(SearchError):
    """The question holds nothing that can be searched for, or asks for something impossible."""


class UnknownRootError(SearchError):
    """The repository asked for is not one of the configured roots."""


class WrongTreeError(SearchError):
    """An index was asked to answer for a tree that it was not built from."""


class UnreadableRootError(SearchError):
    """The root is no directory, or cannot be read."""


class StoreError(SearchError):
    """The segment store on disk cannot be used."""


class MissingExtraError(SearchError):
    """A package of the extra `search` or `dense` is not installed."""


class ModelError(SearchError):
    """The embedding model cannot be loaded. Search goes on without its dense tier."""


class BackendError(SearchError):
    """The model behind `deep` did not answer, or answered nonsense. `fast` never raises it."""
