"""Medians with bootstrap intervals over rounds, of figures and of ratios within rounds."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if abs(self.median) < 10 else 1 if abs(self.median) < 100 else 0
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}–{self.high:.{digits}f}]"


def interval(values: Sequence[float]) -> Interval:
    """By percentiles of the medians of resampled rounds; `values` holds one for each round."""
    rng = random.Random(0)  # noqa: S311 - no secret; the same intervals each time
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(_NUM_RESAMPLES))
    low, high = medians[int(0.025 * _NUM_RESAMPLES)], medians[int(0.975 * _NUM_RESAMPLES) - 1]
    return Interval(statistics.median(values), low, high)


def ratio(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Of `values` to `others`, round by round, so that what slows a whole round cancels out."""
    return interval([value / other for value, other in zip(values, others, strict=True)])
