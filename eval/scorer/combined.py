"""Scores lines by their features and by logits that a run has left behind: replays a network without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring.base import HEADS, Moment
from sluice.compressor.scoring.feature_scorer import FeatureScorer
from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.scoring.neural.bases import BaseTokenizer
from sluice.compressor.scoring.neural.card import read_combination
from sluice.compressor.scoring.neural.combine import Combination
from sluice.compressor.scoring.neural.types import Floats
from sluice.compressor.scoring.neural.windows import WindowMaker
from sluice.eval.scorer.bases import base_named
from sluice.eval.scorer.corpus import Corpus, read_corpora
from sluice.eval.scorer.logits import read_run

FEATURES = "features.npz"
"""In a model's folder while it is judged: trees over features alone that have seen the same conversations."""
Halves = npt.NDArray[np.float16]


class CombinedScorer:
    """Features and a network together (see `Scorer`); lines without logits are scored by their features.

    Args:
        features: scores by features alone.
        combination: the last layer.
        maker: of the network's windows.
        logits: (lines, `HEADS`) of each window that was scored, by the window's key.
    """

    def __init__(
        self, features: FeatureScorer, combination: Combination, maker: WindowMaker, logits: Mapping[bytes, Halves]
    ) -> None:
        self._features = features
        self._combination = combination
        self._maker = maker
        self._logits = logits

    def for_turn(self) -> CombinedScorer:
        """See `Scorer`."""
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        if not segments:
            return []
        table, margins = self._features.margins(evidence, segments, moment)
        logits = self._logits_of(evidence, segments, table.bounds)
        combined = self._combination.margins(table.features, np.nan_to_num(logits), table.bounds)
        is_known = ~np.isnan(logits).any(axis=1, keepdims=True)
        return self._features.losses(table, np.where(is_known, combined, margins), moment)

    def _logits_of(self, evidence: Evidence, segments: Sequence[SegmentEvidence], bounds: Sequence[int]) -> Floats:
        """(lines, `HEADS`): NaN where no window has scored a line."""
        found = np.full((bounds[-1], len(HEADS)), np.nan, np.float32)
        for window in self._maker.windows(evidence, segments):
            values = self._logits.get(window.key)
            if values is not None:
                begin = bounds[window.segment] + window.first_line
                found[begin : begin + len(values)] = values
        return found


def combined_scorer(folder: Path, logits: Sequence[tuple[Path, str, Path]], base: str | None = None) -> CombinedScorer:
    """A scorer that reads a run's logits in place of running its network.

    Args:
        folder: with a last layer, and the trees that stand in where nothing was scored.
        logits: a run's file, which part of it (see `read_run`), and the corpora that were scored, as a pattern.
        base: name or folder of the network's base; None: what the corpora name.

    Raises:
        OSError: a file is not there.
        ValueError: no logits are named, or there are none of that part, or no corpora.
        ModelFileError: the folder lacks its trees, or there is no such base.
        BackendError: the base's package is not installed.
    """
    known: dict[bytes, Halves] = {}
    named, shape = None, None
    for run, part, path in logits:
        files = sorted(path.parent.glob(path.name))
        if not files:
            raise ValueError(f"{path}: there are no such corpora")
        corpus = read_corpora(files)
        known.update(_by_key(corpus, *read_run(run, part, corpus)))
        named, shape = corpus.base, corpus.shape
    if named is None or shape is None:
        raise ValueError("a network's scores are read from a run's logits: none are named")
    maker = WindowMaker(BaseTokenizer(base_named(base or named)), shape)
    features = FeatureScorer(read_forest(folder / FEATURES)[0])
    return CombinedScorer(features, read_combination(folder), maker, known)


def _by_key(corpus: Corpus, numbers: npt.NDArray[np.int64], logits: Halves) -> dict[bytes, Halves]:
    """A run's logits of some windows, by what was read."""
    sizes = np.diff(corpus.line_starts)[numbers]
    stops = np.cumsum(sizes)
    starts = stops - sizes
    return {
        corpus.window(number).key: logits[start:stop]
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True)
    }
