"""Cuts a file into chunks along its definitions: what is scored, and the first draft of what is returned.

Every line belongs to exactly one chunk. A definition of moderate length is one chunk with the comments above it; a
long one is cut between statements (or after blank lines, where there is no outline); short neighbours are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.compressor.syntax import Outline

MAX_LINES = 36
"""A longer piece is cut."""
TARGET_LINES = 24
"""Length that cuts aim at."""
MIN_LINES = 5
"""A shorter piece is joined to its neighbour, if that stays within `TARGET_LINES`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines `start` to `end` (from 1, both included); `definition` indexes the outline, -1 outside of any."""

    start: int
    end: int
    definition: int


def cut(lines: Sequence[str], outline: Outline | None) -> list[Chunk]:
    """Chunks of a file, in order, covering all its lines."""
    num_lines = len(lines)
    if num_lines == 0:
        return []
    owner = _owners(num_lines, outline)
    stops = _good_stops(lines, outline)
    pieces: list[Chunk] = []
    start = 0
    for index in range(1, num_lines + 1):
        if index == num_lines or owner[index] != owner[start]:
            pieces.extend(_split(start, index, owner[start], stops))
            start = index
    return _joined(pieces, outline)


def _owners(num_lines: int, outline: Outline | None) -> list[int]:
    """For each line the innermost definition that starts a chunk of its own, -1 for none."""
    owner = [-1] * num_lines
    if outline is None:
        return owner
    for index, definition in enumerate(outline.definitions):
        # A small definition inside a function is part of it: a closure alone explains nothing.
        inside_function = definition.parent >= 0 and outline.definitions[definition.parent].kind in _LEAVES
        if inside_function and definition.end - definition.lead < MAX_LINES:
            continue
        owner[definition.lead - 1 : definition.end] = [index] * (min(definition.end, num_lines) - definition.lead + 1)
    return owner


_LEAVES = frozenset({"function", "method", "macro", "test", "property"})


def _good_stops(lines: Sequence[str], outline: Outline | None) -> list[int]:
    """How good a cut before each line is: 3 after a blank line at shallow depth … 0 within a statement."""
    goodness = [0] * (len(lines) + 1)
    if outline is None:
        for index, line in enumerate(lines):
            if line and not line[0].isspace():
                goodness[index] = 2 if index and not lines[index - 1].strip() else 1
        return goodness
    for statement in outline.statements:
        if statement.start <= len(lines):
            blank_above = statement.start >= 2 and not lines[statement.start - 2].strip()
            shallow = 3 if statement.depth <= 2 else 1
            goodness[statement.start - 1] = max(goodness[statement.start - 1], shallow + (1 if blank_above else 0))
    return goodness


def _split(start: int, end: int, definition: int, stops: Sequence[int]) -> list[Chunk]:
    """Cut [start, end) into pieces of about `TARGET_LINES`, at the best place near each."""
    pieces: list[Chunk] = []
    while end - start > MAX_LINES:
        low, high = start + TARGET_LINES // 2, start + MAX_LINES
        middle = start + TARGET_LINES
        place = max(range(low, min(high, end - 1)), key=lambda i: (stops[i] * 4 - abs(i - middle), -i))
        pieces.append(Chunk(start + 1, place, definition))
        start = place
    pieces.append(Chunk(start + 1, end, definition))
    return pieces


def _joined(pieces: Sequence[Chunk], outline: Outline | None) -> list[Chunk]:
    """Join short pieces to the one before when both are siblings, or to what surrounds them."""
    joined: list[Chunk] = []
    for piece in pieces:
        if joined:
            before = joined[-1]
            length = piece.end - before.start + 1
            short = piece.end - piece.start + 1 < MIN_LINES or before.end - before.start + 1 < MIN_LINES
            if short and length <= TARGET_LINES:
                joined[-1] = Chunk(before.start, piece.end, _common(before.definition, piece.definition, outline))
                continue
        joined.append(piece)
    return joined


def _common(one: int, other: int, outline: Outline | None) -> int:
    """The innermost definition around both, or the one of them that holds the other."""
    if outline is None or one == other:
        return one
    around = set()
    index = one
    while index >= 0:
        around.add(index)
        index = outline.definitions[index].parent
    index = other
    while index >= 0 and index not in around:
        index = outline.definitions[index].parent
    return index
