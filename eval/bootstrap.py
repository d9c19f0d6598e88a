"""Intervals for ratios of sums, by resampling whole conversations.

Turns of one conversation are no independent draws, so conversations are what is drawn. Source: Efron and Tibshirani,
"An Introduction to the Bootstrap" (percentile interval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2_000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two sums over conversations, with its interval."""

    value: float
    low: float
    high: float


def ratio(numerators: Sequence[float], denominators: Sequence[float], *, seed: int) -> Ratio | None:
    """Sum of numerators over sum of denominators, one pair a conversation; None where the denominators are all 0.

    The same seed draws the same conversations, so that intervals of several policies are paired.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if not below.sum():
        return None
    drawn = np.random.default_rng(seed).integers(len(above), size=(NUM_RESAMPLES, len(above)))
    sums = below[drawn].sum(axis=1)
    ratios = above[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Ratio(value=float(above.sum() / below.sum()), low=float(low), high=float(high))
