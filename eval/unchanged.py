"""Holds later passes over the same conversations to the first: figures of different data must not stand together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from sluice.eval.data import TraceLine
from sluice.eval.errors import TraceError


class Unchanged:
    """Remembers a digest of each line as it is first seen."""

    def __init__(self) -> None:
        self._seen: list[tuple[bytes, str]] = []
        self._is_whole = False

    def __call__(self, lines: Iterable[TraceLine]) -> Iterator[TraceLine]:
        """Pass lines on.

        Raises:
            TraceError: a line differs from that of an earlier pass, or there are more of them, or fewer.
        """
        number = 0
        for number, line in enumerate(lines, 1):
            seen = blake2b(line.data, digest_size=16).digest(), line.path
            if number <= len(self._seen):
                if seen != self._seen[number - 1]:
                    raise _changed(line.path)
            elif self._is_whole:
                raise _changed(line.path)
            else:
                self._seen.append(seen)
            yield line
        if number < len(self._seen):
            raise _changed(self._seen[number][1])
        self._is_whole = True


def _changed(path: str) -> TraceError:
    return TraceError(path, None, "changed while it was replayed; copy it first")
