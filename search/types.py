"""Shapes that search's modules share. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SearchMode = Literal["fast", "deep"]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A line range that answers the question, or part of it."""

    path: str
    """Relative to the root, with `/`."""
    start: int
    """First line, from 1."""
    end: int
    """Last line, included."""
    score: float
    """Higher is better; comparable within one answer only."""
    reason: str
    """Why it is here: the definition it lies in and the words that it matched."""
    text: str
    """The lines as they stand in the file, without the last line's newline."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The results, best first, and what they cost."""

    results: tuple[SearchResult, ...]
    tokens: int
    """Tokens that the results take, headers included; never above the budget that was asked for."""
    took_ms: float
