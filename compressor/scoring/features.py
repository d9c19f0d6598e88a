"""Feature vectors of lines: what a line looks like, what it shows for the first time, what the agent did since.

Reads the columns of `Evidence` with numpy. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np

from sluice.compressor.evidence import IS_NUMBER, IS_PATH, IS_TELLING, Evidence, SegmentEvidence
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.columns import Floats, Ints, Mask, Words, carried_lines, carried_words, ranges
from sluice.compressor.scoring.segment_features import MAX_AGE, SEGMENT_FEATURES, segment_features
from sluice.compressor.scoring.shapes import SHAPES, shapes

_LATELY = 6
"""Messages that count as what the agent is at."""
_WINDOWS = (2, 8)
"""Lines on each side over which what happens on one line speaks for another."""

_LINE_FEATURES = (
    "num_names",
    "num_open_names",
    "num_open_numbers",
    "num_carried_names",
    "num_carried_numbers",
    "num_carried_paths",
    "num_said",
    "num_said_since",
    "age_of_said",
    "num_said_lately",
    "rarest_open",
    "num_task_words",
    "num_latest_task_words",
    "is_written",
    "is_written_since",
    "num_copies",
    "is_carried_line",
    "num_named_since",
    "num_touched_since",
    *(
        f"{name}_within_{window}"
        for window in _WINDOWS
        for name in ("said_since", "said_lately", "written_since", "carried_names", "task_words")
    ),
)
_PLACE_FEATURES = ("line_number", "lines_to_end", "share_of_lines")
_SHARE_FEATURES = (
    "share_said_since",
    "share_said_lately",
    "latest_task_lines_in_segment",
    "share_written_since",
    "num_open_names_in_segment",
    "is_epoch",
)
FEATURES = (*SHAPES, *_PLACE_FEATURES, *_LINE_FEATURES, *SEGMENT_FEATURES, *_SHARE_FEATURES)
"""Names of the columns."""


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of several segments, one below the other."""

    features: Floats
    """(lines, features)"""
    bounds: list[int]
    """Where each segment's lines begin; one more entry than segments."""
    is_line_fact: Mask
    """Lines that would be lost as lines: nothing else shows them, and the agent has not written them."""
    has_word_fact: Mask
    """Lines with a telling word that nothing else shows and that nobody has said."""


class FeatureReader:
    """Makes feature vectors; what a segment looks like by itself is worked out once."""

    def __init__(self) -> None:
        self._own: WeakKeyDictionary[SegmentEvidence, Floats] = WeakKeyDictionary()

    def read(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> Table:
        """Features of all lines of the segments.

        Args:
            evidence: the conversation so far, the segments included.
            segments: at arrival all segments of the newest message; at an epoch any, in the order of the conversation.
            moment: see `Moment`.
        """
        sizes = [len(segment.lines) for segment in segments]
        bounds = [0, *np.cumsum(sizes, dtype=np.int64).tolist()]
        rows = ranges([segment.start for segment in segments], sizes)
        of_segment = np.repeat(np.arange(len(segments)), sizes)
        born = np.array([segment.position for segment in segments], dtype=np.int64)[of_segment]
        words = Words(evidence, rows)
        lines, facts = _line_features(evidence, rows, words, born, of_segment, moment, bounds)
        own = [self._own_features(segment) for segment in segments]
        outer = np.array([segment_features(evidence, segment) for segment in segments], dtype=np.float32).reshape(
            len(segments), -1
        )
        outer = np.concatenate([outer, _shares(lines, of_segment, sizes)], axis=1)
        is_epoch = np.full((len(rows), 1), moment is Moment.EPOCH, dtype=np.float32)
        empty = [np.zeros((0, len(SHAPES) + len(_PLACE_FEATURES)), dtype=np.float32)]
        features = np.concatenate([np.concatenate(own or empty), lines, outer[of_segment], is_epoch], axis=1)
        return Table(features, bounds, *facts)

    def _own_features(self, segment: SegmentEvidence) -> Floats:
        found = self._own.get(segment)
        if found is None:
            num_lines = len(segment.lines)
            looks = np.array(shapes(segment.lines.bodies), dtype=np.float32).reshape(num_lines, len(SHAPES))
            at = np.arange(num_lines, dtype=np.float32)
            place = np.stack(
                [np.minimum(at, 2_000), np.minimum(num_lines - 1 - at, 2_000), at / max(num_lines, 1)], axis=1
            )
            found = self._own[segment] = np.concatenate([looks, place], axis=1)
        return found


def _line_features(
    evidence: Evidence,
    rows: Ints,
    words: Words,
    born: Ints,
    of_segment: Ints,
    moment: Moment,
    bounds: list[int],
) -> tuple[Floats, tuple[Mask, Mask]]:
    word, line = words.word, words.line
    flags = np.array(evidence.word_flags, dtype=np.uint8)[word]
    said_at = np.array(evidence.word_said, dtype=np.int64)[word]
    num_visible = np.array(evidence.word_num_visible, dtype=np.int64)
    results_at = np.array(evidence.num_results_at, dtype=np.int64)
    is_telling = (flags & IS_TELLING) > 0
    is_number = (flags & IS_NUMBER) > 0
    is_open = is_telling & (said_at == 0)
    is_said_since = said_at > born[line]
    is_carried = is_open & carried_words(evidence, rows, words, num_visible, moment)
    task = np.zeros(len(num_visible) + 1, dtype=bool)
    task[list(evidence.first_task | evidence.latest_task)] = True
    latest = np.zeros(len(num_visible) + 1, dtype=bool)
    latest[list(evidence.latest_task)] = True
    name = np.array(evidence.word_name, dtype=np.int64)[word]
    named_at = np.array([*evidence.name_said, 0], dtype=np.int64)[name]
    touched_at = np.array([*evidence.name_touched, 0], dtype=np.int64)[name]
    age_of_said = np.minimum(evidence.num_results - results_at[said_at], MAX_AGE).astype(np.float32)

    key = np.array(evidence.line_key, dtype=np.int64)[rows]
    written_at = np.array([*evidence.key_written, 0], dtype=np.int64)[key]
    num_copies = np.array([*evidence.key_num_visible, 0], dtype=np.int64)[key]
    is_written, is_written_since = written_at > 0, written_at > born
    is_line_fact = (key >= 0) & ~is_written & carried_lines(evidence, rows, key, num_copies, moment)

    said_since = words.count(is_said_since)
    said_lately = words.count(said_at > evidence.num_messages - _LATELY)
    carried_names = words.count(is_carried & ~is_number)
    task_words = words.count(task[word])
    columns = [
        words.count(is_telling & ~is_number),
        words.count(is_open & ~is_number),
        words.count(is_open & is_number),
        carried_names,
        words.count(is_carried & is_number),
        words.count(is_carried & ((flags & IS_PATH) > 0)),
        words.count(said_at > 0),
        said_since,
        words.best(age_of_said, said_at > 0, MAX_AGE + 1, smallest=True),
        said_lately,
        words.best(num_visible[word].astype(np.float32), is_open & ~is_number, 0, smallest=True),
        task_words,
        words.count(latest[word]),
        is_written.astype(np.float32),
        is_written_since.astype(np.float32),
        np.minimum(num_copies, 50).astype(np.float32),
        is_line_fact.astype(np.float32),
        words.count(named_at > born[line]),
        words.count(touched_at > born[line]),
    ]
    written_since = is_written_since.astype(np.float32)
    columns += [
        _around(values, bounds, window)
        for window in _WINDOWS
        for values in (said_since, said_lately, written_since, carried_names, task_words)
    ]
    has_word_fact = words.count(is_carried) > 0
    return np.stack(columns, axis=1).astype(np.float32), (is_line_fact, has_word_fact)


def _shares(lines: Floats, of_segment: Ints, sizes: Sequence[int]) -> Floats:
    """Of each segment: shares of lines that the agent spoke of or wrote, lines with task words and open names."""
    num_lines = np.maximum(np.array(sizes, dtype=np.float32), 1)
    since, lately, task, written, open_names = (
        np.bincount(of_segment, weights=lines[:, _LINE_FEATURES.index(name)] > 0, minlength=len(sizes))
        for name in ("num_said_since", "num_said_lately", "num_latest_task_words", "is_written_since", "num_open_names")
    )
    shares = [since / num_lines, lately / num_lines, np.log1p(task), written / num_lines, np.log1p(open_names)]
    return np.stack(shares, axis=1).astype(np.float32)


def _around(values: Floats, bounds: list[int], window: int) -> Floats:
    """Sums over a line and its neighbours on both sides, within its segment."""
    found = np.empty_like(values)
    for start, stop in pairwise(bounds):
        total = np.concatenate([np.zeros(1), np.cumsum(values[start:stop], dtype=np.float64)])
        at = np.arange(stop - start)
        above, below = np.maximum(at - window, 0), np.minimum(at + window + 1, stop - start)
        found[start:stop] = total[below] - total[above]
    return found
