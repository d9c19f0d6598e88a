"""Lines of one result that only repeat the line above them: the same warning again, a progress bar's steps.

A series counts if its lines are equal as they stand, or equal but for numbers and bars while a percentage or a
`n/m` rises. A table of numbers is neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_BAR = re.compile(r"[#=\-.>*•█▉▊▋▌▍▎▏░▒▓━╸╺─⠀-⣿|/\\\s]+")
_PROGRESS = re.compile(r"(?<!\d)(?:(\d+(?:\.\d+)?)\s?%|(\d+)\s?/\s?(\d+))")
"""Tried where a number begins alone, so that a long one costs its length and not the square of it."""
_OF = re.compile(r"/\s?\d")
"""What a line without `%` has to hold to show progress: ruled out at a fraction of the time."""


def find_repeats(texts: tuple[str, ...], min_lines: int) -> Iterator[tuple[int, int]]:
    """Ranges (start, stop) of at least `min_lines` lines that repeat the line before the range.

    The last line of a series is never in the range: it says how the series ended.
    """
    start = 0
    while start < len(texts):
        stop = _end_of_equals(texts, start)
        if stop - start == 1:
            stop = _end_of_progress(texts, start)
        if texts[start].strip() and stop - start - 2 >= min_lines:
            yield start + 1, stop - 1
        start = stop


def _end_of_equals(texts: tuple[str, ...], start: int) -> int:
    stop = start + 1
    while stop < len(texts) and texts[stop] == texts[start]:
        stop += 1
    return stop


def _end_of_progress(texts: tuple[str, ...], start: int) -> int:
    stop = start + 1
    before = _progress(texts[start])
    if before is None:
        return stop
    shape = _shape(texts[start])
    while stop < len(texts):
        here = _progress(texts[stop])
        if here is None or here[0] != before[0] or here[1] < before[1] or _shape(texts[stop]) != shape:
            break
        before = here
        stop += 1
    return stop


def _progress(text: str) -> tuple[str, float] | None:
    """What is counted to (`%`, or the m of n/m), and how far it got."""
    if "%" not in text and _OF.search(text) is None:
        return None
    match = _PROGRESS.search(text)
    if match is None:
        return None
    return ("%", float(match[1])) if match[1] else (match[3], float(match[2]))


def _shape(text: str) -> str:
    return _BAR.sub(" ", _NUMBER.sub("0", text)).strip()
