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
from sluice.eval.scorer.corpus import read_corpora
from sluice.eval.scorer.logits import read_run

FEATURES = "features.npz"
"""In a model's folder while it is judged: trees over features alone that have seen the same conversations."""


def combined_scorer(folder: Path, logits: Sequence[tuple[Path, str, Path]], base: str | None = None) -> CombinedScorer:
    """A scorer that reads a run's logits in place of running its network.

    Args:
        folder: with a last layer, and the trees that stand in where nothing was scored.
        logits: a run's file, which part of it (see `read_run`), and the corpora that were scored, as a pattern.
        base: name or folder of the network's base; None: what the corpora name.

    Raises:
        ValueError: no logits are named.
    """
    known: dict[bytes, npt.NDArray[np.float16]] = {}
    named, shape = None, None
    for run, part, path in logits:
        corpus = read_corpora(sorted(path.parent.glob(path.name)))
        known.update(keyed(corpus, *read_run(run, part, corpus)))
        named, shape = corpus.base, corpus.shape
    if named is None or shape is None:
        raise ValueError("a network's scores are read from a run's logits: none are named")
    maker = WindowMaker(BaseTokenizer(base_named(base or named)), shape)
    features, _ = read_forest(folder / FEATURES)
    return CombinedScorer(features, read_combination(folder), maker, CachedModel(known, shape.max_tokens))
