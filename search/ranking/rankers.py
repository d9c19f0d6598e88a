"""The three rankers (files, chunks, pieces): learned ones from a file beside this module, and hand-set ones.

The hand-set ones are what the learned ones are measured against, and all that is needed where features have changed
and nothing has been trained yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sluice.search.ranking.chunks import CHUNK_FEATURES
from sluice.search.ranking.files import FILE_FEATURES
from sluice.search.ranking.pieces import PIECE_FEATURES
from sluice.search.ranking.trees import from_arrays

LEARNED = Path(__file__).with_name("rankers.npz")


class Ranker(Protocol):
    """Scores rows of features."""

    def score(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """float64[n] from float32[n, features]; higher is better."""
        ...


@dataclass(frozen=True)
class Linear:
    """A weighted sum of some columns."""

    columns: Sequence[str]
    weights: dict[str, float]

    def score(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See `Ranker`."""
        vector = np.array([self.weights.get(name, 0.0) for name in self.columns])
        scores: npt.NDArray[np.float64] = rows.astype(np.float64) @ vector
        return scores


@dataclass(frozen=True)
class Rankers:
    """One ranker per level."""

    file: Ranker
    chunk: Ranker
    piece: Ranker


@cache
def learned_rankers(path: Path = LEARNED) -> Rankers:
    """The rankers that were trained on the histories of open repositories (`sluice eval train-search`).

    Raises:
        ValueError: they were trained on other features than this version computes.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return Rankers(
            from_arrays(arrays, "file", FILE_FEATURES),
            from_arrays(arrays, "chunk", CHUNK_FEATURES),
            from_arrays(arrays, "piece", PIECE_FEATURES),
        )


def hand_set_rankers() -> Rankers:
    """Plain weighted sums of the strongest features."""
    aside = {"is_test": -2.0, "is_aside": -1.0, "is_prose": -1.0}
    return Rankers(
        Linear(FILE_FEATURES, {"bm25": 2.0, "best_chunk": 2.0, "stem": 1.0, "defines_name": 1.0, **aside}),
        Linear(CHUNK_FEATURES, {"bm25": 3.0, "file_score": 2.0, "title": 1.0, "is_test": -2.0}),
        Linear(PIECE_FEATURES, {"chunk_share": 2.0, "match": 1.0, "before": 0.3, "after": 0.3, "plain_share": -0.5}),
    )
