"""Postings of a set of files as arrays, built once and never changed: a new generation covers what changed since.

Term → (chunk, occurrences), rows sorted by term, in the manner of a compressed sparse row matrix. Chunks are numbered
within the generation. Knows neither paths nor scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sluice.search.index.segment import I32, U8, U32, Segment

_T = TypeVar("_T", bound=np.generic)
_EMPTY_U32 = np.zeros(0, np.uint32)
_EMPTY_U8 = np.zeros(0, np.uint8)


class Generation:
    """Postings of `segments`, in this order; a segment is let go as soon as it has been read.

    Attributes:
        num_chunks: chunks in all.
        file_of_chunk: uint32[num_chunks], position in `segments`.
        starts, ends: uint32[num_chunks], line ranges.
        lengths: uint32[num_chunks], terms.
        owners: int32[num_chunks], definition within the file, -1 for none.
        first_chunk: uint32[num_files + 1].
    """

    def __init__(self, segments: Iterable[Segment]) -> None:
        ids: dict[str, int] = {}
        counts = [0]
        parts = _Parts()
        for segment in segments:
            base = np.uint32(counts[-1])
            counts.append(counts[-1] + len(segment.starts))
            to_id = np.fromiter(
                (ids.setdefault(term, len(ids)) for term in segment.terms), np.uint32, len(segment.terms)
            )
            parts.starts.append(segment.starts)
            parts.ends.append(segment.ends)
            parts.lengths.append(segment.lengths)
            parts.owners.append(segment.owners)
            parts.body_terms.append(to_id[segment.posting_terms])
            parts.body_chunks.append(segment.posting_chunks + base)
            parts.body_counts.append(segment.posting_counts)
            parts.title_terms.append(to_id[segment.title_terms])
            parts.title_chunks.append(segment.title_chunks + base)
        self.first_chunk = np.array(counts, np.uint32)
        self.num_chunks = counts[-1]
        self.file_of_chunk = np.repeat(np.arange(len(counts) - 1, dtype=np.uint32), np.diff(self.first_chunk))
        self.starts = _joined(parts.starts, np.uint32)
        self.ends = _joined(parts.ends, np.uint32)
        self.lengths = _joined(parts.lengths, np.uint32)
        self.owners = _joined(parts.owners, np.int32)
        self._ids = ids
        terms = _joined(parts.body_terms, np.uint32)
        order = np.argsort(terms, kind="stable")
        self._body_rows = _row_bounds(terms, len(ids))
        self._body_chunks = _joined(parts.body_chunks, np.uint32)[order]
        self._body_counts = _joined(parts.body_counts, np.uint8)[order]
        terms = _joined(parts.title_terms, np.uint32)
        order = np.argsort(terms, kind="stable")
        self._title_rows = _row_bounds(terms, len(ids))
        self._title_chunks = _joined(parts.title_chunks, np.uint32)[order]

    def body(self, term: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """Chunks that hold the term, ascending, and how often."""
        row = self._ids.get(term)
        if row is None:
            return _EMPTY_U32, _EMPTY_U8
        low, high = self._body_rows[row], self._body_rows[row + 1]
        return self._body_chunks[low:high], self._body_counts[low:high]

    def title(self, term: str) -> npt.NDArray[np.uint32]:
        """Chunks in or around which a definition is named so, ascending."""
        row = self._ids.get(term)
        if row is None:
            return _EMPTY_U32
        return self._title_chunks[self._title_rows[row] : self._title_rows[row + 1]]


@dataclass
class _Parts:
    """What is gathered per file before it is joined."""

    starts: list[U32] = field(default_factory=list)
    ends: list[U32] = field(default_factory=list)
    lengths: list[U32] = field(default_factory=list)
    owners: list[I32] = field(default_factory=list)
    body_terms: list[U32] = field(default_factory=list)
    body_chunks: list[U32] = field(default_factory=list)
    body_counts: list[U8] = field(default_factory=list)
    title_terms: list[U32] = field(default_factory=list)
    title_chunks: list[U32] = field(default_factory=list)


def _joined(parts: Sequence[npt.NDArray[_T]], dtype: type[_T]) -> npt.NDArray[_T]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _row_bounds(terms: npt.NDArray[np.uint32], num_terms: int) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(terms, minlength=num_terms))]).astype(np.int64)
