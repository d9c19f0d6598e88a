"""Reads the columns of `Evidence` for some lines with numpy: their words, and which of them they alone still show.

Knows no feature and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sluice.compressor.evidence import Evidence
from sluice.compressor.scoring.base import Moment

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Words:
    """The words of the lines in question: which line, which word."""

    def __init__(self, evidence: Evidence, rows: Ints) -> None:
        self.starts = np.array(evidence.line_words, dtype=np.int64)
        counts = self.starts[rows + 1] - self.starts[rows]
        places = ranges(self.starts[rows], counts)
        self.word = np.array(evidence.shown_words, dtype=np.int64)[places]
        self.line = np.repeat(np.arange(len(rows)), counts)
        self.num_lines = len(rows)

    def count(self, mask: Mask) -> Floats:
        """How many of each line's words the mask holds for."""
        return np.bincount(self.line[mask], minlength=self.num_lines).astype(np.float32)

    def best(self, values: Floats, mask: Mask, default: float, *, smallest: bool = False) -> Floats:
        """The largest (or smallest) value among each line's words for which the mask holds."""
        found = np.full(self.num_lines, np.inf if smallest else -np.inf, dtype=np.float32)
        (np.minimum if smallest else np.maximum).at(found, self.line[mask], values[mask])
        found[np.isinf(found)] = default
        return found


def carried_words(evidence: Evidence, rows: Ints, words: Words, num_visible: Ints, moment: Moment) -> Mask:
    """For each word of the lines, whether this line is the one that has to keep it."""
    visible = np.frombuffer(bytes(evidence.line_visible), dtype=np.uint8) > 0
    keeper = np.full(len(num_visible), -1, dtype=np.int64)
    place = rows[words.line]
    if moment is Moment.ARRIVAL:
        # Where lines above show the word, they keep it; else the first line here.
        word, at = words.word[visible[place]], place[visible[place]]
        num_here = np.bincount(word, minlength=len(num_visible))
        keeper[word[::-1]] = at[::-1]  # of equal indexes the last assignment stays
        keeper[num_visible > num_here] = -1
    else:
        at = np.repeat(np.arange(len(visible)), np.diff(words.starts))
        word = np.array(evidence.shown_words, dtype=np.int64)
        keeper[word[visible[at]]] = at[visible[at]]
    return np.asarray(keeper[words.word] == place)


def carried_lines(evidence: Evidence, rows: Ints, key: Ints, num_copies: Ints, moment: Moment) -> Mask:
    """For each line, whether it is the copy that has to stay."""
    visible = np.frombuffer(bytes(evidence.line_visible), dtype=np.uint8) > 0
    keeper = np.full(len(evidence.key_written) + 1, -1, dtype=np.int64)
    if moment is Moment.ARRIVAL:
        shown = visible[rows]
        keeper[key[shown][::-1]] = rows[shown][::-1]
        num_here = np.bincount(key[shown] + 1, minlength=len(keeper) + 1)
        keeper[key[num_copies > num_here[key + 1]]] = -1
    else:
        keeper[np.array(evidence.line_key, dtype=np.int64)[visible]] = np.flatnonzero(visible)
    return np.asarray(keeper[key] == rows)


def ranges(starts: Sequence[int] | Ints, sizes: Sequence[int] | Ints) -> Ints:
    """The integers of all ranges that begin at `starts`, one after the other."""
    sizes = np.asarray(sizes, dtype=np.int64)
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    return np.repeat(np.asarray(starts, dtype=np.int64) - before[:-1], sizes) + np.arange(before[-1])
