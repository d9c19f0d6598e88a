"""What networks said of lines that they had not seen: read from runs' files, and put beside the examples for trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.combine import LOGIT_FEATURES, logit_features
from sluice.eval.scorer.corpus import Corpus
from sluice.eval.scorer.data import Examples

Floats = npt.NDArray[np.float32]
Key = tuple[int, int]
"""Index of a message, and of its text."""


@dataclass(frozen=True, slots=True)
class Said:
    """One conversation's logits, result by result; results that were not scored are not there."""

    results: Mapping[Key, Floats]
    """(lines, `HEADS`) of each."""

    def columns(self, examples: Examples) -> Floats:
        """(examples, `LOGIT_FEATURES`): NaN where the result was not scored."""
        found = np.full((len(examples.places), len(LOGIT_FEATURES)), np.nan, np.float32)
        if not len(found):
            return found
        keys, group = np.unique(examples.places[:, :2], axis=0, return_inverse=True)
        for number, (message, text) in enumerate(keys.tolist()):
            logits = self.results.get((message, text))
            if logits is None:
                continue
            rows = np.flatnonzero(group.reshape(-1) == number)
            columns = logit_features(logits, [0, len(logits)])
            found[rows] = columns[examples.places[rows, 2]]
        return found


def by_conversation(
    corpus: Corpus, parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]
) -> dict[str, Said]:
    """By id of a conversation, what was said of its results.

    Args:
        corpus: whose windows were scored.
        parts: numbers of windows, and the logits of their lines one after the other.
    """
    num_lines = np.diff(corpus.line_starts)
    logits = np.full((int(corpus.line_starts[-1]), len(HEADS)), np.nan, np.float32)
    scored = np.zeros(len(corpus), dtype=bool)
    for numbers, values in parts:
        sizes = num_lines[numbers]
        first = corpus.line_starts[numbers] - np.concatenate([[0], np.cumsum(sizes)])[:-1]
        logits[np.repeat(first, sizes) + np.arange(sizes.sum())] = values
        scored[numbers] = True
    found: dict[str, dict[Key, list[Floats]]] = {group.id: {} for group in corpus.groups}
    for number in np.flatnonzero(scored).tolist():
        group, message, text, _, _ = corpus.windows[number].tolist()
        part = logits[corpus.line_starts[number] : corpus.line_starts[number + 1]]
        found[corpus.groups[group].id].setdefault((message, text), []).append(part)
    return {
        name: Said({key: np.concatenate(parts) for key, parts in results.items()}) for name, results in found.items()
    }


def logits_file(folder: Path, run: str) -> Path:
    """Where a run's logits are kept."""
    return folder / f"{run}.logits.npz"


def read_run(path: Path, part: str, corpus: Corpus) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """What a run said of some traces: the numbers of windows, and the logits of their lines.

    Args:
        path: see `logits_file`.
        part: `train` for what the run left out, `look_at` for what it only looked at.
        corpus: of those traces.

    Raises:
        OSError: the file is not there.
        ValueError: the run has no such part, or the file is no run's.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if part not in arrays:
            raise ValueError(f"{path} holds no part {part!r}: it holds {', '.join(arrays)}")
        windows = arrays["train_windows"] if part == "train" else np.arange(len(corpus))
        return windows, arrays[part]
