"""Durations in buckets, as Prometheus keeps them: counted as they come, and what such counts say."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets; one without bound comes after them."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of durations, in seconds."""

    count: float
    sum_s: float
    buckets: tuple[tuple[float, float], ...]
    """Upper bound in seconds, and how many lie at or below it; ascending."""

    @property
    def mean_ms(self) -> float | None:
        """Mean in milliseconds; None where there is none."""
        return 1e3 * self.sum_s / self.count if self.count else None

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile in milliseconds, straight lines within buckets (as Prometheus does); None without data."""
        if not self.count or not self.buckets:
            return None
        rank, low, below = self.count * percent / 100, 0.0, 0.0
        for high, at_most in self.buckets:
            if at_most >= rank:
                if high == math.inf:
                    return 1e3 * low
                share = (rank - below) / (at_most - below) if at_most > below else 1.0
                return 1e3 * (low + (high - low) * share)
            low, below = high, at_most
        return 1e3 * low


@dataclass(slots=True)
class Histogram:
    """Counts durations of one kind."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """In each bucket, not summed up."""
    sum_s: float = 0.0

    def observe(self, duration_s: float, num: int = 1) -> None:
        """Count `num` durations of this length."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += num
        self.sum_s += duration_s * num

    def distribution(self) -> Distribution:
        """What was counted so far."""
        at_most = list(itertools.accumulate(self.counts))
        return Distribution(at_most[-1], self.sum_s, tuple(zip((*BOUNDS_S, math.inf), at_most, strict=True)))
