"""Which lines of a new text are already visible above it: an index of what was forwarded, and a search for runs.

The idea is rsync's and LZ77's: fixed windows of lines are looked up, and a hit is extended as far as both sides
agree. Knows texts and positions; what is dropped in the end is the planner's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sluice.compressor.lines import Lines

_SEPARATOR = -1
"""Stands between texts that are not contiguous; equal to no line."""
_MAX_CANDIDATES = 16
"""Places tried for one window, so that a thousand empty lines stay cheap: the earliest and the latest ones."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who showed lines: the message, and, for a file's content, the file."""

    position: int
    """Place in the conversation, from 1 after the leading system messages."""
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Lines `start` to `stop` (exclusive) of a new text that are visible in `source`, in order and contiguous."""

    start: int
    stop: int
    source: Source
    same_numbers: bool
    """Whether the copy shows the gutter's numbers too, or the dropped lines carry none."""

    def __len__(self) -> int:
        return self.stop - self.start


class VisibleLines:
    """Every line that the forwarded messages of one conversation show, searchable by windows of lines.

    Args:
        window: lines in a window, which is the shortest run that can be found.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._keys: dict[str, int] = {}
        self._lines: list[int] = []
        self._numbers: list[int | None] = []
        self._source_at: list[Source | None] = []
        self._places: dict[tuple[int, ...], list[int]] = {}

    def add(self, lines: Lines, source: Source) -> None:
        """Index a text that is forwarded."""
        base = len(self._lines)
        for body, number in zip(lines.bodies, lines.numbers, strict=True):
            self._lines.append(self._keys.setdefault(body, len(self._keys)))
            self._numbers.append(number)
            self._source_at.append(source)
        for place in range(base, len(self._lines) - self._window + 1):
            places = self._places.setdefault(tuple(self._lines[place : place + self._window]), [])
            if len(places) >= _MAX_CANDIDATES:
                del places[_MAX_CANDIDATES // 2]
            places.append(place)
        self._lines.append(_SEPARATOR)
        self._numbers.append(None)
        self._source_at.append(None)

    def find_runs(self, lines: Lines, usable: Callable[[Source], bool]) -> Iterator[Run]:
        """Disjoint runs of `lines` that are visible, from the top, at each place the longest one.

        Args:
            lines: the new text.
            usable: whether a source may be referred to.
        """
        keys = [self._keys.get(body, _SEPARATOR - 1) for body in lines.bodies]
        index = 0
        while index + self._window <= len(keys):
            best: Run | None = None
            for place in reversed(self._places.get(tuple(keys[index : index + self._window]), ())):
                source = self._source_at[place]
                assert source is not None, "a window begins on a line, not on a separator"
                if not usable(source):
                    continue
                length, same_numbers = self._extend(keys, lines.numbers, index, place)
                if best is None or (length, same_numbers) > (len(best), best.same_numbers):
                    best = Run(index, index + length, source, same_numbers)
            if best is None:
                index += 1
            else:
                yield best
                index = best.stop

    def _extend(self, keys: Sequence[int], numbers: Sequence[int | None], index: int, place: int) -> tuple[int, bool]:
        """How many lines agree from here on, and whether their numbers do."""
        length = 0
        same_numbers = True
        limit = min(len(keys) - index, len(self._lines) - place)
        while length < limit and keys[index + length] == self._lines[place + length]:
            number = numbers[index + length]
            same_numbers = same_numbers and (number is None or number == self._numbers[place + length])
            length += 1
        return length, same_numbers
