"""Counters of what becomes of the results that a network is to score (see `ScorerWatch`)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from sluice.compressor.scoring.neural.scores import Fallback

_WAIT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)


class ScorerMetrics:
    """The counters.

    Args:
        registry: where they are rendered; None keeps them to themselves.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._results = Counter(
            "sluice_scorer_results",
            "Tool results by how they were scored: scored, kept (by a network, now or before), or why by features.",
            ["outcome"],
            registry=registry,
        )
        self._windows = Counter("sluice_scorer_windows", "Windows that a network scored.", registry=registry)
        self._wait_s = Histogram(
            "sluice_scorer_wait_seconds",
            "What a network added to the scoring of a message's results.",
            buckets=_WAIT_BUCKETS_S,
            registry=registry,
        )
        for outcome in ("scored", "kept", *Fallback):
            self._results.labels(str(outcome))

    def scored(self, num_results: int, num_windows: int, *, is_kept: bool) -> None:
        """See `ScorerWatch`."""
        self._results.labels("kept" if is_kept else "scored").inc(num_results)
        if not is_kept:
            self._windows.inc(num_windows)

    def fell_back(self, num_results: int, reason: Fallback) -> None:
        """See `ScorerWatch`."""
        self._results.labels(reason.value).inc(num_results)

    def waited(self, seconds: float) -> None:
        """See `ScorerWatch`."""
        self._wait_s.observe(seconds)
