"""The scorer that is shipped: boosted trees over features, one head for quoted lines and one for names.

Knows no plan: it gives each line the facts that its loss would cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring.base import HEADS, Moment
from sluice.compressor.scoring.columns import Floats
from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.features import FEATURES, FeatureReader, Table
from sluice.compressor.scoring.forest import Forest, read_forest
from sluice.compressor.scoring.losses import WORD_WEIGHTS, losses


class FeatureScorer:
    """Scores lines with a forest over `FEATURES`, with `HEADS` (see `Scorer`)."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self._reader = FeatureReader()

    def for_turn(self) -> FeatureScorer:
        """See `Scorer`."""
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        if not segments:
            return []
        return self.losses(*self.margins(evidence, segments, moment), moment)

    def margins(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> tuple[Table, Floats]:
        """The segments' lines as features, and (lines, `HEADS`) log odds of what is needed of them.

        Args:
            evidence: the conversation so far, the segments included.
            segments: of that conversation, at least one.
            moment: see `Moment`.
        """
        table = self._reader.read(evidence, segments, moment)
        return table, self._forest.margins(table.features)

    def losses(self, table: Table, margins: Floats, moment: Moment) -> list[Sequence[float]]:
        """What `score` gives, from log odds."""
        return losses(table, margins, WORD_WEIGHTS[moment])


def load_default() -> FeatureScorer:
    """The shipped model.

    Raises:
        ModelFileError: the installation lacks it, or it was trained on other features.
    """
    file = files("sluice.compressor.scoring").joinpath("features.npz")
    forest, _ = read_forest(file)
    if forest.features != FEATURES or forest.heads != HEADS:
        raise ModelFileError(str(file), "it was trained on other features than this version reads")
    return FeatureScorer(forest)
