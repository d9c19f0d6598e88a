"""Candidates as rows of features, and the sums over arrays that files' and chunks' features are made of.

Features are relative to the best candidate or shares between 0 and 1 wherever they can be, so that what was learned on
one repository holds on another of another size. Knows no feature by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.search.index.view import View

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions in a view, and a row of features for each."""

    ids: I64
    features: npt.NDArray[np.float32]


def best_chunks(view: View, scores: F64) -> F64:
    """For each file the score of its best chunk; a file's chunks stand next to each other."""
    best = np.zeros(len(view.files))
    if len(scores):
        filled = view.chunks_per_file > 0
        best[filled] = np.maximum.reduceat(scores, view.first_chunk[filled])
    return best


def top(values: F64) -> float:
    """The greatest value, above 0 so that it can be divided by."""
    return max(float(values.max(initial=0.0)), 1e-9)


def relative(values: F64) -> F64:
    """Shares of the greatest value."""
    return values / top(values)


def best(scores: F64, count: int) -> I64:
    """Positions of the best positive scores, best first; ties by position."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > count:
        cut = np.argpartition(-scores[positive], count)[:count]
        positive = np.sort(positive[cut])
    return positive[np.argsort(-scores[positive], kind="stable")]


def ranks(values: F64) -> F64:
    """For each value how many stand before it; ties by position."""
    places = np.empty(len(values))
    places[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return places


def matrix(columns: dict[str, npt.NDArray[np.generic]], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The named columns side by side, float32[n, len(names)]."""
    return np.column_stack([columns[name] for name in names]).astype(np.float32)
