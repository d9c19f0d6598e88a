"""Counts of durations in buckets, as Prometheus keeps them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets; one without bound comes after them."""


@dataclass(slots=True)
class Histogram:
    """Durations of one kind."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """In each bucket, not summed up."""
    sum_s: float = 0.0

    def observe(self, duration_s: float, num: int = 1) -> None:
        """Count `num` durations of this length."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += num
        self.sum_s += duration_s * num
