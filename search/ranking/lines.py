"""A file's lines, cut out of its bytes when they are asked for: an answer needs few of each file that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np


class Lines(Sequence[str]):
    """A file's lines, bytes that are not UTF-8 replaced; behind a line feed at the end stands an empty one.

    Args:
        data: any bytes. A line feed is never part of another character, so that lines can be decoded one by one.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        stops = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        self._starts: list[int] = [0, *(stops + 1).tolist(), len(data) + 1]

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One line, or those of a slice."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if start >= stop or step != 1:
                return [self[at] for at in range(start, stop, step)]
            return self._text(start, stop).split("\n")
        at = range(len(self))[index]
        return self._text(at, at + 1)

    def _text(self, start: int, stop: int) -> str:
        return self._data[self._starts[start] : self._starts[stop] - 1].decode("utf-8", "replace")
