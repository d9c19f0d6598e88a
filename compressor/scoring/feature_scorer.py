"""The scorer that is shipped: boosted trees over features, one head for quoted lines and one for names.

Knows no plan: it gives each line the facts that its loss would cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.features import FEATURES, FeatureReader
from sluice.compressor.scoring.forest import Forest, read_forest

HEADS = ("line", "word")
"""P(the line is quoted later), P(a name that it alone shows is needed later)."""
_NEIGHBOURS = 2
"""Lines on each side that make a name's place."""
WORD_WEIGHTS: Mapping[Moment, float] = {Moment.ARRIVAL: 0.2, Moment.EPOCH: 0.3}
"""What the loss of a name counts beside the loss of a line: quoted lines are the first that become scarce."""
_PLACE_SHARE = 0.5
"""What the loss of a name's surroundings counts, beside the loss of the name."""


class FeatureScorer:
    """Scores lines with a forest (see `Scorer`)."""

    name = "features"

    def __init__(self, forest: Forest, version: str, word_weights: Mapping[Moment, float] = WORD_WEIGHTS) -> None:
        self.version = version
        self._word_weights = word_weights
        self._forest = forest
        self._reader = FeatureReader()

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        if not segments:
            return []
        table = self._reader.read(evidence, segments, moment)
        margins = self._forest.margins(table.features)
        chances = (1 / (1 + np.exp(-margins))).astype(np.float32)
        line = np.where(table.is_line_fact, chances[:, 0], 0)
        word = np.where(table.has_word_fact, chances[:, 1] * np.float32(self._word_weights[moment]), 0)
        scores: list[Sequence[float]] = []
        for start, stop in zip(table.bounds, table.bounds[1:], strict=False):
            lost = line[start:stop] + np.maximum(word[start:stop], _PLACE_SHARE * _around(word[start:stop]))
            scores.append(np.minimum(lost, 1.0).tolist())
        return scores


def load_default() -> FeatureScorer:
    """The shipped model.

    Raises:
        ModelFileError: the installation lacks it, or it was trained on other features.
    """
    file = files("sluice.compressor.scoring").joinpath("features.npz")
    forest, note = read_forest(file)
    if forest.features != FEATURES or forest.heads != HEADS:
        raise ModelFileError(str(file), "it was trained on other features than this version reads")
    return FeatureScorer(forest, str(note["version"]))


def _around(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest value within a line's neighbourhood."""
    padded = np.pad(values, _NEIGHBOURS)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1).max(axis=1))
