"""What the loss of each line costs, in facts, from the chances of its quoted line and of its names.

Knows no model: chances come from trees, from a network, or from both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.features import Table

WORD_WEIGHTS: Mapping[Moment, float] = {Moment.ARRIVAL: 0.2, Moment.EPOCH: 0.3}
"""What the loss of a name counts beside the loss of a line: quoted lines are the first that become scarce."""
_NEIGHBOURS = 2
"""Lines on each side that make a name's place."""
_PLACE_SHARE = 0.5
"""What the loss of a name's surroundings counts, beside the loss of the name."""


def losses(table: Table, margins: npt.NDArray[np.float32], word_weight: float) -> list[Sequence[float]]:
    """The expected loss of each line, in [0, 1], segment by segment.

    Args:
        table: the lines, and which of them carry a fact.
        margins: (lines, `HEADS`), the log odds of each head.
        word_weight: see `WORD_WEIGHTS`.
    """
    chances = (1 / (1 + np.exp(-margins))).astype(np.float32)
    line = np.where(table.is_line_fact, chances[:, 0], 0)
    word = np.where(table.has_word_fact, chances[:, 1] * np.float32(word_weight), 0)
    found: list[Sequence[float]] = []
    for start, stop in zip(table.bounds, table.bounds[1:], strict=False):
        lost = line[start:stop] + np.maximum(word[start:stop], _PLACE_SHARE * _around(word[start:stop]))
        found.append(np.minimum(lost, 1.0).tolist())
    return found


def _around(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest value within a line's neighbourhood."""
    padded = np.pad(values, _NEIGHBOURS)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1).max(axis=1))
