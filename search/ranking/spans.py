"""From scored pieces to line ranges within a budget of tokens: which lines are shown, and in which order.

Lines go by the pieces' scores wherever they stand, so that one file may take most of the budget; the order of the
ranges then puts each file's best range before any file's second, because the first question is which file. Files that
rank high and got no lines are named by one line each, as far as a small part of the budget goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import Definition
from sluice.search.index.view import View
from sluice.search.ranking.pieces import Pieces
from sluice.search.tokens import CHARS_PER_TOKEN, result_tokens

MAX_GAP_LINES = 3
"""Ranges of one file this near to each other become one."""
WHOLE_DEFINITION_LINES = 9
"""A definition no longer than this is shown whole when any of it is."""
POINTER_SHARE = 0.12
"""Part of the budget that may go to one-line pointers at files without lines."""
NUM_POINTED = 10
"""Only the first so many files are pointed at."""
MAX_REFUSED = 4
"""So many pieces may prove too long for what is left of the budget before it counts as spent."""


@dataclass(frozen=True, slots=True)
class Span:
    """Lines of a file that are to be shown."""

    file: int
    start: int
    end: int
    score: float
    piece: int
    """The best piece in it, or -1 for a pointer."""


class _Shown:
    """Lines taken so far, file by file, and what they cost."""

    def __init__(self, view: View, texts: Mapping[int, Sequence[str]]) -> None:
        self.used_tokens = 0
        self._view = view
        self._texts = texts
        self._lines: dict[int, set[int]] = {}
        self._num_chars: dict[tuple[int, int], int] = {}
        """By file and line."""

    def cost(self, file: int, lines: set[int]) -> int:
        """Tokens of the file's ranges with these lines, less those without."""
        return self._tokens(file, lines) - self._tokens(file, self._lines.get(file, set()))

    def with_gaps(self, file: int, start: int, end: int) -> set[int]:
        """The file's lines after adding a range, with small gaps closed."""
        lines = self._lines.get(file, set()) | set(range(start, end + 1))
        for line in range(start - 1, start - MAX_GAP_LINES - 2, -1):
            if line in lines:
                lines |= set(range(line, start))
                break
        for line in range(end + 1, end + MAX_GAP_LINES + 2):
            if line in lines:
                lines |= set(range(end, line))
                break
        return lines

    def take(self, file: int, lines: set[int]) -> None:
        self.used_tokens += self.cost(file, lines)
        self._lines[file] = lines

    def holds(self, file: int, start: int, end: int) -> bool:
        return set(range(start, end + 1)) <= self._lines.get(file, set())

    def ranges(self) -> list[tuple[int, int, int]]:
        """(file, start, end), each as long as it goes."""
        return [(file, low, high) for file, lines in self._lines.items() for low, high in runs(lines)]

    def _tokens(self, file: int, lines: set[int]) -> int:
        path = self._view.files[file].path
        return sum(
            result_tokens(path, low, high, sum(self._chars(file, line) for line in range(low, high + 1)) - 1)
            for low, high in runs(lines)
        )

    def _chars(self, file: int, line: int) -> int:
        """Characters of a line, its end included."""
        known = self._num_chars.get((file, line))
        if known is None:
            known = self._num_chars[file, line] = len(self._texts[file][line - 1]) + 1
        return known


def select_spans(
    view: View,
    pieces: Pieces,
    scores: npt.NDArray[np.float64],
    files: Sequence[int],
    texts: Mapping[int, Sequence[str]],
    budget_tokens: int,
) -> list[Span]:
    """Choose ranges and order them.

    Args:
        view: what is searched.
        pieces: candidates.
        scores: of each piece; differences matter, not scale.
        files: files that were ranked, best first.
        texts: lines of every file that a piece is of.
        budget_tokens: that all ranges may take, by `result_tokens`.
    """
    shown = _Shown(view, texts)
    pointers = _pointers(view, pieces, scores, files, texts, budget_tokens)
    reserved = {file: cost for file, _, cost in pointers}
    refused = 0
    for at in np.argsort(-scores, kind="stable").tolist():
        file, start, end = int(pieces.files[at]), int(pieces.starts[at]), int(pieces.ends[at])
        start, end = _trimmed(*_widened(view, file, start, end, len(texts[file])), texts[file])
        if shown.holds(file, start, end):
            continue
        lines = shown.with_gaps(file, start, end)
        held_back = sum(cost for other, cost in reserved.items() if other != file)
        if shown.used_tokens + shown.cost(file, lines) + held_back > budget_tokens:
            refused += 1
            if refused >= MAX_REFUSED:
                break
            continue
        shown.take(file, lines)
        reserved.pop(file, None)
    for file, line, _ in pointers:
        if file in reserved:  # still without lines
            shown.take(file, {line})
    return _ordered(shown.ranges(), pieces, scores, files)


def runs(lines: set[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, as (first, last), ascending."""
    found: list[tuple[int, int]] = []
    for line in sorted(lines):
        if found and line == found[-1][1] + 1:
            found[-1] = (found[-1][0], line)
        else:
            found.append((line, line))
    return found


def enclosing_definition(definitions: Sequence[Definition], start: int, end: int) -> Definition | None:
    """The innermost definition around a range, or None."""
    best: Definition | None = None
    for definition in definitions:
        if definition.start > start:
            break
        if definition.end >= end:
            best = definition
    return best


def _widened(view: View, file: int, start: int, end: int, num_lines: int) -> tuple[int, int]:
    """The whole definition, if it is short."""
    around = enclosing_definition(view.files[file].definitions, start, end)
    if around is not None and around.end - around.start < WHOLE_DEFINITION_LINES:
        start, end = around.start, around.end
    return start, min(end, num_lines)


def _trimmed(start: int, end: int, lines: Sequence[str]) -> tuple[int, int]:
    """Without blank lines at the ends; one line stays."""
    while start < end and not lines[start - 1].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return start, end


def _pointers(
    view: View,
    pieces: Pieces,
    scores: npt.NDArray[np.float64],
    files: Sequence[int],
    texts: Mapping[int, Sequence[str]],
    budget_tokens: int,
) -> list[tuple[int, int, int]]:
    """(file, line, tokens) of a line that stands for each of the first files, within the budget's share."""
    found: list[tuple[int, int, int]] = []
    left = POINTER_SHARE * budget_tokens
    for file in files[:NUM_POINTED]:
        own = np.flatnonzero(pieces.files == file)
        if not len(own):
            continue
        best = int(own[np.argmax(scores[own])])
        line = int(pieces.starts[best])
        around = enclosing_definition(view.files[file].definitions, line, int(pieces.ends[best]))
        if around is not None and around.start <= len(texts[file]):
            line = around.start
        cost = result_tokens(view.files[file].path, line, line, min(len(texts[file][line - 1]), 40 * CHARS_PER_TOKEN))
        if cost <= left and len(texts[file][line - 1]) <= 40 * CHARS_PER_TOKEN:
            left -= cost
            found.append((int(file), line, cost))
    return found


def _ordered(
    ranges: Sequence[tuple[int, int, int]],
    pieces: Pieces,
    scores: npt.NDArray[np.float64],
    files: Sequence[int],
) -> list[Span]:
    """Each file's best range by the files' order, then all others by score."""
    spans: list[Span] = []
    for file, start, end in ranges:
        inside = np.flatnonzero((pieces.files == file) & (pieces.starts <= end) & (pieces.ends >= start))
        best = int(inside[np.argmax(scores[inside])]) if len(inside) else -1
        spans.append(Span(file, start, end, float(scores[best]) if best >= 0 else float(scores.min()), best))
    spans.sort(key=lambda span: (-span.score, span.file, span.start))
    rank = {int(file): at for at, file in enumerate(files)}
    first: dict[int, Span] = {}
    for span in spans:
        first.setdefault(span.file, span)
    leading = sorted(first.values(), key=lambda span: rank.get(span.file, len(rank)))
    return [*leading, *(span for span in spans if first[span.file] is not span)]
