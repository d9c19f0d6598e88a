"""Which lines the model has been shown: only these may stand in its answer."""

from __future__ import annotations

from sluice.search.ranking.spans import runs


class Seen:
    """Lines by path."""

    def __init__(self) -> None:
        self._lines: dict[str, set[int]] = {}

    def add(self, path: str, start: int, end: int) -> None:
        """Lines `start` to `end` were shown."""
        self._lines.setdefault(path, set()).update(range(start, end + 1))

    def within(self, path: str, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of a range that were shown; empty for what was never shown."""
        shown = self._lines.get(path, set())
        return runs({line for line in shown if start <= line <= end})
