"""Whole-file BM25 (Robertson & Zaragoza 2009) over plain words: the files in order, read from the top."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from sluice.eval.search.baselines.files import as_found, source_files, within_budget
from sluice.eval.search.engines import Found
from sluice.search.tokens import CHARS_PER_TOKEN

K1, B = 1.2, 0.75


class FileBM25Engine:
    """Ranks files; a file that does not fit is shown as far as the budget goes.

    Args:
        root: the tree.
    """

    def __init__(self, root: Path) -> None:
        self._files = source_files(root)
        self._counts = [Counter(re.findall(r"\w+", " ".join(file.lines).lower())) for file in self._files]
        self._lengths = [sum(count.values()) for count in self._counts]
        self._mean = sum(self._lengths) / max(1, len(self._lengths))
        self._holding = Counter(word for count in self._counts for word in count)

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """See `Engine`."""
        words = set(re.findall(r"\w+", query.lower()))
        scores = [self._score(number, words) for number in range(len(self._files))]
        order = sorted(range(len(scores)), key=lambda n: (-scores[n], self._files[n].path))
        ranges: list[Found] = []
        left = budget_tokens * CHARS_PER_TOKEN
        for number in order:
            file = self._files[number]
            left -= len(file.path) + 14
            end = 0
            while end < len(file.lines) and left - len(file.lines[end]) - 1 > 0:
                left -= len(file.lines[end]) + 1
                end += 1
            if scores[number] <= 0 or end == 0:
                break
            ranges.append(as_found(file, 1, end))
        return within_budget(ranges, budget_tokens)

    def _score(self, number: int, words: set[str]) -> float:
        counts, norm = self._counts[number], K1 * (1 - B + B * self._lengths[number] / max(self._mean, 1))
        total = 0.0
        for word in words:
            if (times := counts.get(word, 0)) > 0:
                holding = self._holding[word]
                idf = math.log1p((len(self._files) - holding + 0.5) / (holding + 0.5))
                total += idf * times * (K1 + 1) / (times + norm)
        return total
