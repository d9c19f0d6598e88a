"""Scores lines by their features and by logits that a run has left behind: replays a network without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring.base import HEADS, Moment
from sluice.compressor.scoring.features import FeatureReader
from sluice.compressor.scoring.forest import Forest
from sluice.compressor.scoring.losses import WORD_WEIGHTS, losses
from sluice.compressor.scoring.neural.combine import Combination, by_segment
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.compressor.scoring.neural.windows import WindowMaker
from sluice.eval.scorer.corpus import Corpus


class CachedModel:
    """Logits by what was read (see `LineModel`). A window that was never scored is NaN."""

    name = "cached"
    version = "cached"

    def __init__(self, logits: Mapping[bytes, npt.NDArray[np.float16]], max_window_tokens: int) -> None:
        self._logits = logits
        self.max_window_tokens = max_window_tokens
        self.num_missed = 0

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        """See `LineModel`."""
        found: list[Floats] = []
        for window in windows:
            values = self._logits.get(window.key)
            self.num_missed += values is None
            if values is None:
                values = np.full((len(window.line_ends), len(HEADS)), np.nan, np.float16)
            found.append(values.astype(np.float32))
        return found


def keyed(
    corpus: Corpus, numbers: npt.NDArray[np.int64], logits: npt.NDArray[np.float16]
) -> dict[bytes, npt.NDArray[np.float16]]:
    """A run's logits of some windows, by what was read."""
    sizes = np.diff(corpus.line_starts)[numbers]
    stops = np.cumsum(sizes)
    starts = stops - sizes
    return {
        corpus.window(number).key: logits[start:stop]
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True)
    }


class CombinedScorer:
    """Features and a network together (see `Scorer`); a result without logits is scored by its features.

    Args:
        features: trees over features alone.
        combination: the last layer.
        maker: of the network's windows.
        model: gives their logits.
        word_weights: see `WORD_WEIGHTS`.
    """

    def __init__(
        self,
        features: Forest,
        combination: Combination,
        maker: WindowMaker,
        model: CachedModel,
        word_weights: Mapping[Moment, float] = WORD_WEIGHTS,
    ) -> None:
        self._features = features
        self._combination = combination
        self._maker = maker
        self._model = model
        self._word_weights = word_weights
        self._reader = FeatureReader()

    def for_turn(self) -> CombinedScorer:
        """See `Scorer`."""
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        if not segments:
            return []
        table = self._reader.read(evidence, segments, moment)
        windows = self._maker.windows(evidence, segments)
        logits = by_segment(windows, self._model.logits(windows), [len(segment.lines) for segment in segments])
        known = ~np.isnan(logits).any(axis=1)
        margins = self._combination.margins(table.features, np.nan_to_num(logits), table.bounds)
        if not known.all():
            margins[~known] = self._features.margins(table.features[~known])
        return losses(table, margins, self._word_weights[moment])
