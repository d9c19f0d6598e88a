"""Puts a scorer together of a model's folder and the logits that its runs left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.scoring.neural.bases import BaseTokenizer
from sluice.compressor.scoring.neural.card import read_combination
from sluice.compressor.scoring.neural.windows import WindowMaker
from sluice.eval.scorer.bases import base_named
from sluice.eval.scorer.cached import CachedModel, CombinedScorer, keyed
from sluice.eval.scorer.corpus import read_corpus
from sluice.eval.scorer.logits import read_run

FEATURES = "features.npz"
"""In a model's folder while it is judged: trees over features alone that have seen the same conversations."""


def combined_scorer(folder: Path, logits: Sequence[tuple[Path, str, Path]]) -> CombinedScorer:
    """A scorer that reads a run's logits in place of running its network.

    Args:
        folder: with a last layer, and the trees that stand in where nothing was scored.
        logits: a run's file, which part of it (see `read_run`), and the corpus that was scored.
    """
    known: dict[bytes, npt.NDArray[np.float16]] = {}
    for run, stem, path in logits:
        corpus = read_corpus(path)
        known.update(keyed(corpus, *read_run(run, stem, corpus)))
    maker = WindowMaker(BaseTokenizer(base_named(corpus.base)), corpus.shape)
    features, _ = read_forest(folder / FEATURES)
    return CombinedScorer(features, read_combination(folder), maker, CachedModel(known, corpus.shape.max_tokens))
