"""Feature vectors of lines: what a line looks like, what it shows for the first time, what the agent did since.

Reads the columns of `Evidence` with numpy. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from sluice.compressor.evidence import IS_NUMBER, IS_PATH, IS_TELLING, Evidence, SegmentEvidence
from sluice.compressor.provenance import Kind
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.shapes import SHAPES, shapes

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_KINDS = {kind: number for number, kind in enumerate(Kind)}
_CODE_ENDINGS = frozenset(
    [
        "py",
        "js",
        "jsx",
        "ts",
        "tsx",
        "go",
        "rs",
        "java",
        "kt",
        "c",
        "h",
        "cc",
        "cpp",
        "hpp",
        "cs",
        "rb",
        "php",
        "swift",
        "scala",
        "sh",
        "bash",
        "lua",
        "svelte",
        "vue",
        "sql",
        "zig",
        "ex",
        "exs",
    ]
)
_DATA_ENDINGS = frozenset(["json", "yaml", "yml", "toml", "ini", "cfg", "lock", "xml", "csv", "env"])
_PROSE_ENDINGS = frozenset(["md", "mdx", "rst", "txt", "html", "css", "scss"])
_CAP = 200
"""Ages above this are alike."""
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
        for name in ("said_since", "written_since", "carried_names", "task_words")
    ),
)
_PLACE_FEATURES = ("line_number", "lines_to_end", "share_of_lines")
_SEGMENT_FEATURES = (
    "kind",
    "file_type",
    "is_range",
    "is_shell",
    "has_read_tool",
    "num_lines",
    "num_chars",
    "age",
    "num_user_messages_since",
    "is_turn_of_user",
    "num_edits_before",
    "num_edits_since",
    "age_of_edit",
    "num_reads_before",
    "num_reads_since",
    "age_of_naming",
    "num_runs_before",
    "num_runs_since",
    "num_results",
    "num_user_messages",
    "num_file_edits",
    "share_of_edits",
    "edits_since",
    "share_said_since",
    "share_written_since",
    "num_open_names_in_segment",
    "is_epoch",
)
FEATURES = (*SHAPES, *_PLACE_FEATURES, *_LINE_FEATURES, *_SEGMENT_FEATURES)
"""Names of the columns."""


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of several segments, one below the other."""

    features: Floats
    """(lines, features)"""
    bounds: list[int]
    """Where each segment's lines begin; one more entry than segments."""
    is_line_fact: npt.NDArray[np.bool_]
    """Lines that would be lost as lines: nothing else shows them, and the agent has not written them."""
    has_word_fact: npt.NDArray[np.bool_]
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
        rows = _ranges([segment.start for segment in segments], sizes)
        of_segment = np.repeat(np.arange(len(segments)), sizes)
        born = np.array([segment.position for segment in segments], dtype=np.int64)[of_segment]
        words = _Words(evidence, rows)
        lines, facts = _line_features(evidence, rows, words, born, of_segment, moment, bounds)
        own = [self._own_features(segment) for segment in segments]
        outer = np.array(
            [_segment_features(evidence, segment, moment) for segment in segments], dtype=np.float32
        ).reshape(len(segments), -1)
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


class _Words:
    """The words of the lines in question: which line, which word."""

    def __init__(self, evidence: Evidence, rows: Ints) -> None:
        self.starts = np.array(evidence.line_words, dtype=np.int64)
        counts = self.starts[rows + 1] - self.starts[rows]
        places = _ranges(self.starts[rows], counts)
        self.word = np.array(evidence.shown_words, dtype=np.int64)[places]
        self.line = np.repeat(np.arange(len(rows)), counts)
        self.num_lines = len(rows)

    def count(self, mask: npt.NDArray[np.bool_]) -> Floats:
        """How many of each line's words the mask holds for."""
        return np.bincount(self.line[mask], minlength=self.num_lines).astype(np.float32)

    def best(self, values: Floats, mask: npt.NDArray[np.bool_], default: float, *, smallest: bool = False) -> Floats:
        """The largest (or smallest) value among each line's words for which the mask holds."""
        found = np.full(self.num_lines, np.inf if smallest else -np.inf, dtype=np.float32)
        (np.minimum if smallest else np.maximum).at(found, self.line[mask], values[mask])
        found[np.isinf(found)] = default
        return found


def _line_features(
    evidence: Evidence,
    rows: Ints,
    words: _Words,
    born: Ints,
    of_segment: Ints,
    moment: Moment,
    bounds: list[int],
) -> tuple[Floats, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    word, line = words.word, words.line
    flags = np.array(evidence.word_flags, dtype=np.uint8)[word]
    said_at = np.array(evidence.word_said, dtype=np.int64)[word]
    num_visible = np.array(evidence.word_num_visible, dtype=np.int64)
    results_at = np.array(evidence.num_results_at, dtype=np.int64)
    is_telling = (flags & IS_TELLING) > 0
    is_number = (flags & IS_NUMBER) > 0
    is_open = is_telling & (said_at == 0)
    is_said_since = said_at > born[line]
    is_carried = is_open & _carried_words(evidence, rows, words, num_visible, moment)
    task = np.zeros(len(num_visible) + 1, dtype=bool)
    task[list(evidence.first_task | evidence.latest_task)] = True
    latest = np.zeros(len(num_visible) + 1, dtype=bool)
    latest[list(evidence.latest_task)] = True
    name = np.array(evidence.word_name, dtype=np.int64)[word]
    named_at = np.array([*evidence.name_said, 0], dtype=np.int64)[name]
    touched_at = np.array([*evidence.name_touched, 0], dtype=np.int64)[name]
    age_of_said = np.minimum(evidence.num_results - results_at[said_at], _CAP).astype(np.float32)

    key = np.array(evidence.line_key, dtype=np.int64)[rows]
    written_at = np.array([*evidence.key_written, 0], dtype=np.int64)[key]
    num_copies = np.array([*evidence.key_num_visible, 0], dtype=np.int64)[key]
    is_written, is_written_since = written_at > 0, written_at > born
    is_line_fact = (key >= 0) & ~is_written & _carried_lines(evidence, rows, key, num_copies, moment)

    said_since = words.count(is_said_since)
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
        words.best(age_of_said, said_at > 0, _CAP + 1, smallest=True),
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
    for window in _WINDOWS:
        for values in (said_since, is_written_since.astype(np.float32), carried_names, task_words):
            columns.append(_around(values, bounds, window))
    has_word_fact = words.count(is_carried) > 0
    return np.stack(columns, axis=1).astype(np.float32), (is_line_fact, has_word_fact)


def _carried_words(
    evidence: Evidence, rows: Ints, words: _Words, num_visible: Ints, moment: Moment
) -> npt.NDArray[np.bool_]:
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


def _carried_lines(
    evidence: Evidence, rows: Ints, key: Ints, num_copies: Ints, moment: Moment
) -> npt.NDArray[np.bool_]:
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


def _segment_features(evidence: Evidence, segment: SegmentEvidence, moment: Moment) -> tuple[float, ...]:
    born, provenance = segment.position, segment.provenance
    path = provenance.path
    edits = evidence.edits(path) if path is not None else []
    reads = evidence.reads(path) if path is not None else []
    runs = evidence.runs(provenance.command) if provenance.command is not None else []
    edits_since = sum(at > born for at in evidence.edit_positions)
    recent = max(evidence.num_messages - 16, 0)
    return (
        _KINDS[provenance.kind],
        _file_type(path),
        provenance.first_line is not None and (provenance.first_line > 1 or provenance.last_line is not None),
        provenance.command is not None,
        evidence.has_read_tool,
        math.log1p(len(segment.lines)),
        math.log1p(segment.num_chars),
        math.log1p(evidence.num_results - segment.num_results_before - 1),
        min(sum(at > born for at in evidence.user_positions), 5),
        bool(evidence.user_positions) and evidence.user_positions[-1] == evidence.num_messages,
        min(sum(at < born for at in edits), 10),
        min(sum(at > born for at in edits), 10),
        _age(evidence, edits[-1] if edits else 0),
        min(sum(at < born - 1 for at in reads), 10),
        min(sum(at > born for at in reads), 10),
        _age(evidence, evidence.last_named(path) if path is not None else 0),
        min(sum(at < born for at in runs), 10),
        min(sum(at > born for at in runs), 10),
        math.log1p(evidence.num_results),
        min(len(evidence.user_positions), 20),
        math.log1p(len(evidence.edit_positions)),
        sum(at > recent for at in evidence.edit_positions),
        math.log1p(edits_since),
    )


def _shares(lines: Floats, of_segment: Ints, sizes: Sequence[int]) -> Floats:
    """Of each segment: what share of its lines the agent spoke of since, what share it wrote since, its open names."""
    num_lines = np.maximum(np.array(sizes, dtype=np.float32), 1)
    said, written, open_names = (
        np.bincount(of_segment, weights=lines[:, _LINE_FEATURES.index(name)] > 0, minlength=len(sizes))
        for name in ("num_said_since", "is_written_since", "num_open_names")
    )
    return np.stack([said / num_lines, written / num_lines, np.log1p(open_names)], axis=1).astype(np.float32)


def _age(evidence: Evidence, position: int) -> float:
    """Tool results since a message, as a logarithm; large if there was none."""
    if position == 0:
        return math.log1p(2 * _CAP)
    return math.log1p(min(evidence.num_results - evidence.num_results_at[position], _CAP))


def _file_type(path: str | None) -> int:
    if path is None:
        return 0
    name = path.rsplit("/", 1)[-1].lower()
    if "test" in name or "spec" in name:
        return 2
    ending = name.rsplit(".", 1)[-1]
    return 1 if ending in _CODE_ENDINGS else 3 if ending in _DATA_ENDINGS else 4 if ending in _PROSE_ENDINGS else 5


def _around(values: Floats, bounds: list[int], window: int) -> Floats:
    """Sums over a line and its neighbours on both sides, within its segment."""
    found = np.empty_like(values)
    for start, stop in zip(bounds, bounds[1:], strict=False):
        total = np.concatenate([np.zeros(1), np.cumsum(values[start:stop], dtype=np.float64)])
        at = np.arange(stop - start)
        above, below = np.maximum(at - window, 0), np.minimum(at + window + 1, stop - start)
        found[start:stop] = total[below] - total[above]
    return found


def _ranges(starts: Sequence[int] | Ints, sizes: Sequence[int] | Ints) -> Ints:
    """The integers of all ranges that begin at `starts`, one after the other."""
    sizes = np.asarray(sizes, dtype=np.int64)
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    return np.repeat(np.asarray(starts, dtype=np.int64) - before[:-1], sizes) + np.arange(before[-1])
