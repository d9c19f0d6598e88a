"""Puts a network's logits and the features together: boosted trees over both, whose chances are calibrated.

Plain functions of arrays; the trees' numbers are in the model's folder. Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.features import FEATURES, Table
from sluice.compressor.scoring.forest import Forest
from sluice.compressor.scoring.neural.types import Floats

_NEAR, _AROUND = 2, 8
"""Lines on each side over which what is likely on one line speaks for another."""
LOGIT_FEATURES = tuple(
    f"{head}_logit{part}"
    for head in HEADS
    for part in ("", f"_best_within_{_NEAR}", f"_mean_within_{_AROUND}", "_best_in_segment")
)
"""Names of the columns that logits come to."""
COLUMNS = (*FEATURES, *LOGIT_FEATURES)
"""What the trees look at."""


@dataclass(frozen=True, slots=True)
class Combination:
    """The last layer.

    Args:
        forest: over `COLUMNS`, with `HEADS`.
    """

    forest: Forest

    def margins(self, features: Floats, logits: Floats, bounds: Sequence[int]) -> Floats:
        """(lines, `HEADS`): the log odds of each head.

        Args:
            features: (lines, `FEATURES`).
            logits: (lines, `HEADS`), of the network.
            bounds: where each segment's lines begin; one more entry than segments.
        """
        return self.forest.margins(np.concatenate([features, logit_features(logits, bounds)], axis=1))


def combined(combination: Combination, table: Table, margins: Floats, logits: Sequence[Floats | None]) -> Floats:
    """(lines, `HEADS`): the log odds of all lines of a table, by network and features where there are logits.

    Args:
        combination: the last layer.
        table: of several segments.
        margins: (lines, `HEADS`), by features alone.
        logits: of each segment (lines, `HEADS`), of the network; None where it did not score it. At least one.
    """
    scored = [(span, found) for span, found in zip(pairwise(table.bounds), logits, strict=True) if found is not None]
    rows = np.concatenate([np.arange(*span) for span, _ in scored])
    bounds = [0, *np.cumsum([len(found) for _, found in scored]).tolist()]
    found = margins.copy()
    found[rows] = combination.margins(table.features[rows], np.concatenate([found for _, found in scored]), bounds)
    return found


def logit_features(logits: Floats, bounds: Sequence[int]) -> Floats:
    """(lines, `LOGIT_FEATURES`) of (lines, `HEADS`)."""
    found = np.empty((len(logits), len(LOGIT_FEATURES)), dtype=np.float32)
    for start, stop in pairwise(bounds):
        if start == stop:
            continue
        for head in range(len(HEADS)):
            values = logits[start:stop, head]
            columns = found[start:stop, 4 * head : 4 * head + 4]
            padded = np.pad(values, _NEAR, constant_values=-np.inf)
            total = np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])
            at = np.arange(stop - start)
            above, below = np.maximum(at - _AROUND, 0), np.minimum(at + _AROUND + 1, stop - start)
            columns[:, 0] = values
            columns[:, 1] = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEAR + 1).max(axis=1)
            columns[:, 2] = (total[below] - total[above]) / (below - above)
            columns[:, 3] = values.max()
    return found
