"""An agent's grep: each keyword is searched for, and the densest 17-line windows are read."""

from __future__ import annotations

import re
from pathlib import Path

from sluice.eval.search.baselines.files import as_found, source_files, within_budget
from sluice.eval.search.engines import Found
from sluice.search.index.tokenizer import STOPWORDS

WINDOW_LINES = 17
MAX_KEYWORDS = 12


class RipgrepEngine:
    """Case-insensitive keyword hits; a window counts the distinct keywords in it, then its hits.

    Counts what `rg -i` prints for each keyword, without starting it once per keyword.

    Args:
        root: the tree.
    """

    def __init__(self, root: Path) -> None:
        self._files = source_files(root)
        self._lower = [[line.lower() for line in file.lines] for file in self._files]

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """See `Engine`."""
        words = dict.fromkeys(w.lower() for w in re.findall(r"\w{3,}", query) if w.lower() not in STOPWORDS)
        keywords = list(words)[:MAX_KEYWORDS]
        scored: list[tuple[int, int, str, int, int]] = []
        for number, lines in enumerate(self._lower):
            hits = [(at, k) for at, line in enumerate(lines) for k, word in enumerate(keywords) if word in line]
            first = 0
            while first < len(hits):
                start = hits[first][0]
                inside = [hit for hit in hits[first:] if hit[0] < start + WINDOW_LINES]
                distinct = len({k for _, k in inside})
                scored.append((-distinct, -len(inside), self._files[number].path, number, start))
                first += len(inside)
        scored.sort()
        ranges = []
        for _, _, _, number, start in scored[:200]:
            middle = start + 1
            ranges.append(as_found(self._files[number], middle - 1, middle + WINDOW_LINES - 2))
        return within_budget(ranges, budget_tokens)
