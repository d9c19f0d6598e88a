"""Who is told what becomes of the results that a network is to score: counters, as a rule."""

from __future__ import annotations

from typing import Protocol

from sluice.compressor.scoring.neural.scores import Fallback


class ScorerWatch(Protocol):
    """Is told, from any thread."""

    def scored(self, num_results: int, num_windows: int, *, is_kept: bool) -> None:
        """Results were scored by the network, now or (`is_kept`) earlier."""
        ...

    def fell_back(self, num_results: int, reason: Fallback) -> None:
        """Results were scored by their features."""
        ...

    def waited(self, seconds: float) -> None:
        """Results took so much longer than by their features alone."""
        ...
