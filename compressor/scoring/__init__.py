"""Scores the lines of tool results for the planner. What needs numpy is imported when a model is loaded."""

from sluice.compressor.scoring.base import Moment, Scorer
from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.spans import best_spans

__all__ = ["ModelFileError", "Moment", "Scorer", "best_spans", "load_default"]


def load_default() -> Scorer:
    """The shipped scorer.

    Raises:
        ModelFileError: the installation lacks its file.
        ImportError: numpy is not installed.
    """
    from sluice.compressor.scoring.feature_scorer import load_default as load

    return load()
